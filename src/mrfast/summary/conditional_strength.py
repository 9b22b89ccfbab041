"""How strong the instruments of several exposures are, each given the others: `conditional_f`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._least_squares import Whitening, correlations
from mrfast.summary._multivariable import (
    MVAssociations,
    error_correlations,
    mv_associations,
)
from mrfast.summary.estimate import WEAK, chi_square_p, plain, strength_messages

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ConditionalStrength", "conditional_f", "strength_of", "weak_exposures"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionalStrength:
    """Result of `conditional_f`.

    Attributes
    ----------
    exposures : tuple of str
    conditional_f_statistic : ndarray, shape (K,)
        `q` over its degrees of freedom.
    f_statistic : ndarray, shape (K,)
        Mean of (beta_exposure / se_exposure)^2, of each exposure alone.
    q : ndarray, shape (K,)
        Q statistic of instrument strength: what of the associations with an exposure those with
        the others do not explain.
    q_df : int
        J - K + 1.
    q_p_value : ndarray, shape (K,)
        Of no SNP telling the exposure from a combination of the others.
    coefficients : ndarray, shape (K, K)
        Row k: regression of the associations with exposure k on those with the others; 0 on the
        diagonal.
    n_snps : int
    messages : tuple of str
    """

    exposures: tuple[str, ...]
    conditional_f_statistic: Float
    f_statistic: Float
    q: Float
    q_df: int
    q_p_value: Float
    coefficients: Float
    n_snps: int
    messages: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers, strings and lists."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row an exposure."""
        import pandas as pd

        return pd.DataFrame(
            {
                "exposure": list(self.exposures),
                "conditional_f_statistic": self.conditional_f_statistic,
                "f_statistic": self.f_statistic,
                "q": self.q,
                "q_df": self.q_df,
                "q_p_value": self.q_p_value,
                "n_snps": self.n_snps,
            }
        )

    def __str__(self) -> str:
        width = max(map(len, self.exposures)) + 2
        lines = [f"conditional F ({self.n_snps} SNPs, {len(self.exposures)} exposures)"]
        lines += [
            f"  {name + ':':<{width}}{self.conditional_f_statistic[i]:.4g} (alone "
            f"{self.f_statistic[i]:.4g}), Q = {self.q[i]:.4g} on {self.q_df} df, "
            f"p = {self.q_p_value[i]:.3g}"
            for i, name in enumerate(self.exposures)
        ]
        return "\n".join(lines + [f"  note: {message}" for message in self.messages])


def conditional_f(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    exposures: Sequence[object] | None = None,
    exposure_correlation: Any = None,
    weights: str = "first_order",
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
) -> ConditionalStrength:
    """Conditional F statistics of Sanderson and Windmeijer, from summary data.

    The associations with each exposure are regressed on those with the others; what is left,
    squared over its variance and summed, is Q, and Q / (J - K + 1) the conditional F. Exposures
    may all be strongly associated with the SNPs and yet not be told apart: then F is large and the
    conditional F small.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J, K)
        One column an exposure.
    exposures : sequence of str, optional
        Names; columns of a table have their own.
    exposure_correlation : array_like, shape (K, K), optional
        Correlations of the errors of a SNP's associations with the exposures: those of the
        exposures themselves where one sample gave all. Default: independent, as of separate
        samples.
    weights : {"first_order", "simple"}, default "first_order"
        Of the regressions: 1/se_exposure^2, which is the first stage with individual data, or all
        SNPs alike.
    ld, snps, ld_snps
        Correlations between SNPs, as in `mrfast.ivw`.

    Returns
    -------
    ConditionalStrength

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer SNPs than exposures, exposures that are collinear.

    References
    ----------
    Sanderson, Windmeijer (2016), doi:10.1016/j.jeconom.2015.06.004; Sanderson, Spiller, Bowden
    (2021), doi:10.1002/sim.9133.

    Examples
    --------
    >>> import mrfast
    >>> strength = mrfast.conditional_f(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09]],
    ...     se_exposure=[[0.01, 0.01]] * 4,
    ... )
    >>> strength.conditional_f_statistic.round(1).tolist()
    [57.1, 54.3]
    """
    rows = len(check.float_array("beta_exposure", beta_exposure, ndim=2))
    data = mv_associations(
        beta_exposure, se_exposure, np.zeros(rows), np.ones(rows), exposures=exposures, spare=0
    )
    check.choice("weights", weights, ("first_order", "simple"))
    if ld is not None and weights == "simple":
        raise check.fail("weights", '"first_order" with ld', "'simple'")
    names = data.exposures
    correlation = error_correlations("exposure_correlation", exposure_correlation, names)
    whiten = Whitening(None if ld is None else correlations(ld, snps, ld_snps, rows))
    return strength_of(data, correlation, whiten, weights)


def strength_of(
    data: MVAssociations, correlation: Float, whiten: Whitening, weights: str = "first_order"
) -> ConditionalStrength:
    """`conditional_f` of checked associations."""
    j, k = data.bx.shape
    equal = np.ones(j)
    scaled = np.stack(
        [whiten(data.bx, data.sx[:, i] if weights == "first_order" else equal) for i in range(k)]
    )
    gram = np.einsum("ija,ijb->iab", scaled, scaled)
    own = np.arange(k)
    combination = np.zeros((k, k))  # row i: exposure i less its regression on the others
    combination[own, own] = 1
    if k > 1:
        others = np.array([np.delete(own, i) for i in range(k)])
        found = np.linalg.solve(
            gram[own[:, None, None], others[:, :, None], others[:, None, :]],
            gram[own[:, None], others, own[:, None]][:, :, None],
        )
        combination[own[:, None], others] = -found[:, :, 0]
    rest = np.einsum("jk,ik->ij", data.bx, combination)
    errors = [np.sqrt(combined_variance(data.sx, row, correlation)) for row in combination]
    q = np.array([(whiten(rest[i], errors[i]) ** 2).sum() for i in range(k)])
    if weights == "first_order":
        alone = gram[own, own, own] / j
    else:
        alone = ((data.bx / data.sx) ** 2).mean(axis=0)
    conditional = q / (j - k + 1)
    return ConditionalStrength(
        exposures=data.exposures,
        conditional_f_statistic=conditional,
        f_statistic=alone,
        q=q,
        q_df=j - k + 1,
        q_p_value=np.array([chi_square_p(float(value), j - k + 1) for value in q]),
        coefficients=np.eye(k) - combination,
        n_snps=j,
        messages=tuple(weak_exposures(data.exposures, conditional)),
    )


def combined_variance(sx: Float, combination: Float, correlation: Float) -> Float:
    """Variances of linear combinations of a SNP's exposure associations, shape (J,)."""
    scaled = sx * combination
    return np.asarray(np.einsum("ja,ab,jb->j", scaled, correlation, scaled))


def weak_exposures(exposures: tuple[str, ...], conditional: Float) -> list[str]:
    """What to say of conditional F statistics."""
    if len(exposures) == 1:
        return strength_messages(float(conditional[0]))
    return [
        f"conditional F of {name} is {value:.3g}: weak instruments given the other exposures, "
        "whose estimates are biased as well"
        for name, value in zip(exposures, conditional, strict=True)
        if value < WEAK
    ]
