"""Numbers that other packages print where mrfast's differ, named by package and version.

For checking an analysis against published output; not for new ones. Each function says what is
wrong with its number.
"""

from __future__ import annotations

from mrfast.compat.mendelianrandomization import (
    mendelianrandomization_0_10_egger,
    mendelianrandomization_0_10_penalised_ivw,
)
from mrfast.compat.mendelianrandomization_mixture import (
    mendelianrandomization_0_10_conmix,
    mendelianrandomization_0_10_hetpen,
)
from mrfast.compat.mr_raps import RAPSPeerEstimate, mr_raps_0_4_robust
from mrfast.compat.multivariable import (
    MVPeerEstimate,
    mendelianrandomization_0_10_mv_egger,
    twosamplemr_0_7_mv_multiple,
    twosamplemr_0_7_mv_residual,
)
from mrfast.compat.peer_estimate import PeerEstimate
from mrfast.compat.presso import MRPresso10, mr_presso_1_0
from mrfast.compat.twosamplemr import (
    twosamplemr_0_7_directionality,
    twosamplemr_0_7_effective_n,
    twosamplemr_0_7_egger_bootstrap,
    twosamplemr_0_7_ivw_mre,
    twosamplemr_0_7_r_from_log_odds,
    twosamplemr_0_7_r_from_p,
    twosamplemr_0_7_rucker,
    twosamplemr_0_7_unweighted,
)

__all__ = [
    "MRPresso10",
    "MVPeerEstimate",
    "PeerEstimate",
    "RAPSPeerEstimate",
    "mendelianrandomization_0_10_conmix",
    "mendelianrandomization_0_10_egger",
    "mendelianrandomization_0_10_hetpen",
    "mendelianrandomization_0_10_mv_egger",
    "mendelianrandomization_0_10_penalised_ivw",
    "mr_presso_1_0",
    "mr_raps_0_4_robust",
    "twosamplemr_0_7_directionality",
    "twosamplemr_0_7_effective_n",
    "twosamplemr_0_7_egger_bootstrap",
    "twosamplemr_0_7_ivw_mre",
    "twosamplemr_0_7_mv_multiple",
    "twosamplemr_0_7_mv_residual",
    "twosamplemr_0_7_r_from_log_odds",
    "twosamplemr_0_7_r_from_p",
    "twosamplemr_0_7_rucker",
    "twosamplemr_0_7_unweighted",
]
