"""Concordance of signs: `sign_test`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, betaincinv

from mrfast import _validation as check
from mrfast.summary._inputs import associations
from mrfast.summary.estimate import MREstimate

__all__ = ["SignEstimate", "sign_test"]

_FEWEST = 6  # below, even full agreement has a p-value above 0.05


@dataclass(frozen=True, kw_only=True)
class SignEstimate(MREstimate):
    """Result of `sign_test`.

    `estimate` is the share of SNPs whose associations have one sign less the share with opposite
    signs, from -1 to 1: no effect per unit of exposure.

    Attributes
    ----------
    n_concordant, n_discordant : int
        Their sum is `n_snps`: SNPs with an association of exactly 0 are left out.
    """

    title = "sign test"

    n_concordant: int
    n_discordant: int


def sign_test(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    ci_level: float = 0.95,
) -> SignEstimate:
    """Test whether the two associations of a SNP tend to have the same sign.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Only the signs are used; standard errors are checked. At least 6 SNPs, not counting those
        with an association of exactly 0.
    ci_level : float, default 0.95
        Of the exact (Clopper-Pearson) interval.

    Returns
    -------
    SignEstimate
        The p-value is the exact two-sided binomial one.

    Raises
    ------
    InvalidInputError
        Bad arrays or too few SNPs.

    References
    ----------
    Clopper, Pearson (1934), doi:10.1093/biomet/26.4.404.

    Examples
    --------
    >>> import mrfast
    >>> signs = mrfast.sign_test(
    ...     beta_exposure=[1, 2, 3, 4, 5, -6, 7], se_exposure=[1] * 7,
    ...     beta_outcome=[1, 1, 1, 1, 1, -1, 1], se_outcome=[1] * 7,
    ... )
    >>> signs.p_value
    0.015625
    """
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=_FEWEST,
        needs_se_exposure=False,
    )
    signs = np.sign(data.bx) * np.sign(data.by)
    same, opposite = int((signs > 0).sum()), int((signs < 0).sum())
    n = same + opposite
    if n < _FEWEST:
        raise check.fail(
            "beta_exposure", f"at least {_FEWEST} SNPs with associations other than 0", f"{n}"
        )
    tail = (1 - level) / 2
    lower = float(betaincinv(same, opposite + 1, tail)) if same else 0.0
    upper = float(betaincinv(same + 1, opposite, 1 - tail)) if opposite else 1.0
    share = (same - opposite) / n
    return SignEstimate(
        method="sign_test",
        estimate=share,
        std_error=math.sqrt((1 - share**2) / n),
        ci_lower=2 * lower - 1,
        ci_upper=2 * upper - 1,
        p_value=min(1.0, 2 * float(bdtr(min(same, opposite), n, 0.5))),
        n_snps=n,
        ci_level=level,
        n_concordant=same,
        n_discordant=opposite,
    )
