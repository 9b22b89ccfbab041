"""Ridge regressions of stacked problems in closed form, through which losses are differentiated.

Penalties are in rows: a coefficient is drawn to 0 as strongly as by so many further rows on which
its column has the variance that it has in the data, and the target is 0. The estimate therefore
depends neither on the scale of a column nor, in the limit, on the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["StackedRidge", "ridge_regression"]


@dataclass(frozen=True)
class StackedRidge:
    """Fitted regressions of many members.

    Attributes
    ----------
    coefficients : Tensor, shape (members, columns, targets)
    column_means : Tensor, shape (members, 1, columns)
    target_means : Tensor, shape (members, 1, targets)
    penalised_loss : Tensor, shape (members, targets)
        Mean squared error over the rows of the fit plus the penalty, which the coefficients
        minimise.
    """

    coefficients: torch.Tensor
    column_means: torch.Tensor
    target_means: torch.Tensor
    penalised_loss: torch.Tensor

    def predict(self, columns: torch.Tensor) -> torch.Tensor:
        """Predictions, (members, rows, columns) to (members, rows, targets)."""
        return torch.baddbmm(self.offset(), columns, self.coefficients)

    def offset(self) -> torch.Tensor:
        """Prediction where all columns are 0, (members, 1, targets)."""
        return self.target_means - torch.bmm(self.column_means, self.coefficients)


def ridge_regression(
    columns: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, rows: float | torch.Tensor
) -> StackedRidge:
    """Regress targets on columns and an intercept, which is not penalised.

    With means over the weighted rows m(.) and all variables about their means, the coefficients
    are (m(c c') + (rows / n) diag m(c c'))^-1 m(c t').

    Parameters
    ----------
    columns : Tensor, shape (members, n, columns)
    targets : Tensor, shape (members, n, targets)
    weight : Tensor, shape (members, n)
        Of the rows; 0 leaves one out.
    rows : float or Tensor, shape (members,) or (members, columns)
        Penalty, in rows. The n above is Kish's effective number of rows.

    Returns
    -------
    StackedRidge
    """
    share = (weight / weight.sum(1, keepdim=True)).unsqueeze(2)
    column_means = (share * columns).sum(1, keepdim=True)
    target_means = (share * targets).sum(1, keepdim=True)
    centred, aims = columns - column_means, targets - target_means
    # In double precision: over many rows rounding would outgrow what keeps collinear columns apart.
    precise = centred.double()
    weighted = share.double() * precise
    gram = torch.bmm(weighted.mT, precise)
    cross = torch.bmm(weighted.mT, aims.double())
    variances = gram.diagonal(dim1=1, dim2=2)
    per_row = (share * share).sum((1, 2)).double()  # 1 over the effective number of rows
    rows = torch.as_tensor(rows, dtype=torch.float64, device=columns.device)
    strength = (rows if rows.dim() == 2 else rows.reshape(-1, 1)) * per_row[:, None]
    rounding = 10 * torch.finfo(columns.dtype).eps  # for columns that are repeated or constant
    floor = rounding**2 * variances.mean(1, keepdim=True) + 1e-30
    ridge = (strength + rounding) * variances + floor
    factor = torch.linalg.cholesky(gram + torch.diag_embed(ridge))
    coefficients = torch.cholesky_solve(cross, factor)
    squares = (share * aims * aims).sum(1).double()
    loss = squares - (coefficients * cross).sum(1)
    kind = columns.dtype
    return StackedRidge(coefficients.to(kind), column_means, target_means, loss.to(kind))
