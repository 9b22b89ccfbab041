"""Published and further scenarios of nonlinear Mendelian randomization, with the true effect.

In all of them U is the unmeasured confounder, independent of the instruments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.simulation.composed import Simulation
from mrfast.simulation.simulated_iv import SimulatedIV
from mrfast.simulation.simulated_variables import Exponential, Normal, Uniform, Variants
from mrfast.simulation.true_curves import true_curve

__all__ = [
    "NONLINEAR_SCENARIOS",
    "NonlinearScenario",
    "binary_outcome",
    "burgess_2014",
    "effect_modifier",
    "families",
    "measured_covariates",
    "poster_simple",
    "selected_sample",
    "single_instrument",
    "tian_2022",
    "unobserved_modifier",
]

_TIAN_STRENGTH = 0.5
_TIAN_OUTCOMES = {1: "null", 2: "quadratic", 3: "threshold"}


def poster_simple(
    n: int = 10_000,
    *,
    rng: object = None,
    h2: float = 0.5,
    beta_ux: float = 0.35,
    beta_uy: float = -0.7,
    curve: str = "poster",
    n_variants: int = 20,
    frequencies: tuple[float, float] = (0.2, 0.45),
    random_signs: bool = False,
) -> SimulatedIV:
    """Draw the simple case of the ml-mr poster: variants that explain a share of the exposure.

    X = sum_j sqrt(h2 d_j) g_j + beta_ux U + N(0, 1 - h2 - beta_ux^2) and
    Y = f(X) + beta_uy U + N(0, 1), where d ~ Dirichlet(1, ..., 1), g_j are dosages standardised
    by their frequencies, drawn uniformly, and U ~ N(0, 1); X has mean 0 and variance 1.

    Parameters
    ----------
    n : int
        Number of people; 10^4, 10^5 and 10^6 on the poster.
    rng : None, int, SeedSequence or Generator
        Source of randomness, for the variants' effects and frequencies and for the people.
    h2 : float
        Share of the exposure's variance that the variants explain; 0.2, 0.5 and 0.8 on the
        poster. h2 + beta_ux^2 is below 1.
    beta_ux, beta_uy : float
        Effects of the confounder on exposure and outcome.
    curve : str
        True effect, a name of `mrfast.simulation.true_curves.CURVES`. The poster's is
        0.3 (x + 2) (x - 1) + 1.
    n_variants : int
    frequencies : tuple of two floats
        Range of the allele frequencies.
    random_signs : bool
        Whether half of the variants lower the exposure.

    Returns
    -------
    SimulatedIV

    Raises
    ------
    InvalidInputError
        A number is out of its range.
    """
    truth = true_curve(curve)
    sim = _variants_and_exposure(
        n, rng, h2, beta_ux, beta_uy, n_variants, frequencies, random_signs
    )
    sim.add_variable(
        "y", lambda s: s.elementwise(lambda x, u, e: truth(x) + beta_uy * u + e, "x", "u", "e_y")
    )
    name = "poster_simple" if curve == "poster" else f"poster_{curve}"
    return _data(sim, name, "g", truth.expression, truth.function)


def burgess_2014(n: int = 100_000, *, rng: object = None) -> SimulatedIV:
    """Draw the J-shaped scenario of Burgess, Davies and Thompson (2014).

    One variant g ~ Binomial(2, 0.3), U ~ U(0, 1), X = 0.25 g + U + Exp(1) and
    Y = 0.2 (X - 1)^2 + 0.8 U + N(0, 1); the true effect is 0.2 (x - 1)^2 + 0.4, the confounder's
    mean included.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    SimulatedIV

    References
    ----------
    Burgess, Davies, Thompson (2014), Epidemiology 25, doi:10.1097/EDE.0000000000000161.
    """
    sim = Simulation(n, rng=rng)
    sim.parameters["frequency"] = 0.3
    sim.add_variables([Variants("g", "frequency"), Uniform("u"), Exponential("e_x"), Normal("e_y")])
    sim.add_variable("x", lambda s: 0.25 * s["g"][:, 0] + s["u"] + s["e_x"])
    sim.add_variable("y", lambda s: 0.2 * (s["x"] - 1) ** 2 + 0.8 * s["u"] + s["e_y"])
    return _data(
        sim, "burgess_2014", "g", "0.2 * (x - 1)**2 + 0.4", lambda x: 0.2 * (x - 1) ** 2 + 0.4
    )


def tian_2022(
    n: int = 10_000, *, rng: object = None, exposure: str = "A", outcome: int = 1
) -> SimulatedIV:
    """Draw one of the twelve scenarios of Tian, Mason, Liu and Burgess.

    U, e_X, e_Y ~ N(0, 1), Z ~ N(0, 0.5^2). Exposure A: X = 0.5 Z + U + e_X; B: A and
    2 Z^3 + 2 where Z <= -1; C: X = -10 + (1.5 + 0.4 U) Z + U + e_X; D: A in whole numbers.
    Outcome Y = f(X) + U + e_Y with 1: f = 0; 2: f = 0.1 x^2; 3: f = -0.1 x^2 where x <= 0, else 0.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator
        Scenarios of one seed share their random numbers.
    exposure : {"A", "B", "C", "D"}
    outcome : {1, 2, 3}

    Returns
    -------
    SimulatedIV

    References
    ----------
    Tian, Mason, Liu, Burgess (2023), PLoS Genetics 19, doi:10.1371/journal.pgen.1010823.
    """
    check.choice("exposure", exposure, ("A", "B", "C", "D"))
    number = check.integer("outcome", outcome, minimum=1, maximum=3)
    data = single_instrument(n, rng=rng, exposure=exposure, curve=_TIAN_OUTCOMES[number])
    return _renamed(data, f"tian_{exposure}{number}")


def single_instrument(
    n: int = 10_000,
    *,
    rng: object = None,
    exposure: str = "A",
    curve: str = "quadratic",
    strength: float = _TIAN_STRENGTH,
) -> SimulatedIV:
    """Draw people with one continuous instrument Z ~ N(0, 0.5^2).

    U, e_X, e_Y ~ N(0, 1) and Y = f(X) + U + e_Y. Exposures A to D are those of `tian_2022`. In E,
    X = (1.6 + 1.6 U) Z + U + e_X, the instrument's effect depends strongly on the confounder; in
    H, X = 2 Z + exp(Z / 2) (U + e_X), the exposure's spread depends on the instrument. In both a
    control function that is additive in the first-stage residual is wrong.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator
        Scenarios of one seed share their random numbers.
    exposure : {"A", "B", "C", "D", "E", "H"}
    curve : str
        True effect, a name of `mrfast.simulation.true_curves.CURVES`.
    strength : float
        Coefficient of Z in A, B and D; the others have their own. For n = 10^4, 0.2, 0.1 and 0.05
        have F statistics of about 50, 12 and 3.

    Returns
    -------
    SimulatedIV
    """
    check.choice("exposure", exposure, tuple(_EXPOSURES))
    slope = check.scalar("strength", strength)
    if exposure in "CEH" and slope != _TIAN_STRENGTH:
        raise check.fail("strength", f"{_TIAN_STRENGTH} for exposure {exposure}", f"{slope:g}")
    mean = -10.0 if exposure == "C" else 0.0
    truth = true_curve(curve, mean=mean, sd=_EXPOSURE_SD[exposure](slope))
    sim = Simulation(n, rng=rng)
    sim.parameters["strength"] = slope
    sim.add_variables([Normal("z", 0, 0.5), Normal("u"), Normal("e_x"), Normal("e_y")])
    sim.add_variable("x", lambda s: _EXPOSURES[exposure](s["z"], s["u"], s["e_x"], slope))
    sim.add_variable("y", lambda s: truth(s["x"]) + s["u"] + s["e_y"])
    return _data(sim, f"{exposure}_{curve}", "z", truth.expression, truth.function)


def unobserved_modifier(n: int = 10_000, *, rng: object = None) -> SimulatedIV:
    """Draw people whose effect of the exposure depends on the unmeasured confounder.

    Z, U, e_X, e_Y ~ N(0, 1), X = 0.7 Z + U + e_X and Y = 0.1 X^2 + 0.3 U X + U + e_Y: the true
    effect is 0.1 x^2, and E[Y - f(X) | Z] = 0.3, so that a moment condition alone shifts it.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    SimulatedIV
    """
    truth = true_curve("quadratic")
    sim = Simulation(n, rng=rng)
    sim.add_variables([Normal("z"), Normal("u"), Normal("e_x"), Normal("e_y")])
    sim.add_variable("x", lambda s: 0.7 * s["z"] + s["u"] + s["e_x"])
    sim.add_variable("y", lambda s: truth(s["x"]) + s["u"] * (1 + 0.3 * s["x"]) + s["e_y"])
    return _data(sim, "unobserved_modifier", "z", truth.expression, truth.function)


def binary_outcome(n: int = 10_000, *, rng: object = None, link: str = "probit") -> SimulatedIV:
    """Draw people with an outcome of 0 or 1.

    Z, U, e_X ~ N(0, 1), X = 0.7 Z + U + e_X and Y = 1 where
    -0.5 + 0.6 X - 0.15 X^2 + 0.8 U + e_Y > 0, with e_Y standard normal or standard logistic. The
    true effect is the risk, averaged over U.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator
    link : {"probit", "logit"}
        Law of e_Y: normal or logistic.

    Returns
    -------
    SimulatedIV
    """
    check.choice("link", link, ("probit", "logit"))
    normal = link == "probit"
    sim = Simulation(n, rng=rng)
    sim.add_variables([Normal("z"), Normal("u"), Normal("e_x")])
    sim.add_variable(Normal("e_y") if normal else Uniform("p_y", 2.0**-54, 1.0))
    sim.add_variable("x", lambda s: 0.7 * s["z"] + s["u"] + s["e_x"])

    def outcome(s: Simulation) -> Float:
        noise = s["e_y"] if normal else np.log(s["p_y"]) - np.log1p(-s["p_y"])
        return np.where(_index(s["x"]) + 0.8 * s["u"] + noise > 0, 1.0, 0.0)

    sim.add_variable("y", outcome)
    expression = "normal_cdf((-0.5 + 0.6 * x - 0.15 * x**2) / sqrt(1.64))" if normal else None
    effect = _probit_risk if normal else _logit_risk
    return _data(sim, f"binary_{link}", "z", expression, effect)


def effect_modifier(
    n: int = 10_000,
    *,
    rng: object = None,
    slope: str = "quadratic",
    h2: float = 0.5,
    beta_ux: float = 0.35,
    beta_uy: float = -0.7,
    n_variants: int = 20,
) -> SimulatedIV:
    """Draw people whose effect is linear in the exposure, with a slope that a covariate changes.

    Variants, exposure and confounder as in `poster_simple`; M ~ N(0, 1) is measured and
    Y = s(M) X + 0.2 M + beta_uy U + N(0, 1).

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator
    slope : {"quadratic", "linear", "logistic", "sine"}
        s(m) = 0.3 m^2 - 0.1; 0.2 + 0.3 m; 0.4 / (1 + exp(-3 m)); 0.2 + 0.4 sin(2 m). The mean of
        each is 0.2.
    h2, beta_ux, beta_uy, n_variants
        As in `poster_simple`.

    Returns
    -------
    SimulatedIV
        ``conditional_effect(x, m)`` is s(m) x + 0.2 m, ``true_effect(x)`` its mean over M, 0.2 x.
    """
    function = _SLOPES[check.choice("slope", slope, tuple(_SLOPES))]
    sim = _variants_and_exposure(n, rng, h2, beta_ux, beta_uy, n_variants, (0.2, 0.45), False)
    sim.add_variable(Normal("m"))
    sim.add_variable(
        "y",
        lambda s: function(s["m"]) * s["x"] + 0.2 * s["m"] + beta_uy * s["u"] + s["e_y"],
    )

    def conditional(x: ArrayLike, covariates: ArrayLike) -> Float:
        m = np.asarray(covariates, dtype=np.float64)[..., 0]
        return np.asarray(function(m) * np.asarray(x, dtype=np.float64) + 0.2 * m)

    name = "effect_modifier" if slope == "quadratic" else f"effect_modifier_{slope}"
    return _data(
        sim,
        name,
        "g",
        "0.2 * x",
        lambda x: 0.2 * x,
        covariates=("m",),
        conditional_effect=conditional,
    )


def measured_covariates(
    n: int = 10_000, *, rng: object = None, curve: str = "quadratic"
) -> SimulatedIV:
    """Draw people with measured covariates, one of which confounds the instrument.

    age ~ N(0, 1), sex ~ Bernoulli(0.4), Z = 0.3 age + N(0, 0.5^2),
    X = 0.5 Z + 0.5 age - 0.4 sex + U + e_X and Y = f(X) + 0.5 age + 0.3 sex + U + e_Y: without
    the age Z is no instrument.

    Parameters
    ----------
    n : int
    rng : None, int, SeedSequence or Generator
    curve : str
        True effect, a name of `mrfast.simulation.true_curves.CURVES`; 0.12 for the sex is added.

    Returns
    -------
    SimulatedIV
    """
    truth = true_curve(curve, sd=1.61)
    sim = Simulation(n, rng=rng)
    sim.add_variables(
        [Normal("age"), Uniform("p_sex"), Normal("e_z", 0, 0.5), Normal("u"), Normal("e_x")]
    )
    sim.add_variable(Normal("e_y"))
    sim.add_variable("sex", lambda s: np.where(s["p_sex"] < 0.4, 1.0, 0.0))
    sim.add_variable("z", lambda s: 0.3 * s["age"] + s["e_z"])
    sim.add_variable(
        "x",
        lambda s: 0.5 * s["z"] + 0.5 * s["age"] - 0.4 * s["sex"] + s["u"] + s["e_x"],
    )
    sim.add_variable(
        "y",
        lambda s: truth(s["x"]) + 0.5 * s["age"] + 0.3 * s["sex"] + s["u"] + s["e_y"],
    )
    name = "measured_covariates" if curve == "quadratic" else f"measured_covariates_{curve}"
    return _data(
        sim,
        name,
        "z",
        f"{truth.expression} + 0.12",
        lambda x: truth.function(x) + 0.12,
        covariates=("age", "sex"),
    )


def families(
    n: int = 10_000, *, rng: object = None, curve: str = "quadratic", size: int = 4
) -> SimulatedIV:
    """Draw families whose members resemble each other in the instrument and in the outcome.

    As exposure A of `single_instrument`, with correlations within a family of 0.8 in Z and of 0.5
    in e_Y: standard errors for independent people are too small.

    Parameters
    ----------
    n : int
        Number of people; the last family may be smaller.
    rng : None, int, SeedSequence or Generator
    curve : str
        True effect, a name of `mrfast.simulation.true_curves.CURVES`.
    size : int
        Members of a family.

    Returns
    -------
    SimulatedIV
    """
    members = check.integer("size", size, minimum=1)
    truth = true_curve(curve, sd=_EXPOSURE_SD["A"](0.5))
    sim = Simulation(n, rng=rng)
    sim.add_variable("family", np.arange(sim.n) // members)
    sim.add_variables([Normal("shared_z"), Normal("shared_y"), Normal("own_z"), Normal("own_y")])
    sim.add_variables([Normal("u"), Normal("e_x")])

    def together(s: Simulation, trait: str, correlation: float) -> Float:
        shared: Float = s[f"shared_{trait}"][s["family"]]  # the first rows: one a family
        own: Float = s[f"own_{trait}"]
        return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own

    sim.add_variable("z", lambda s: 0.5 * together(s, "z", 0.8))
    sim.add_variable("x", lambda s: 0.5 * s["z"] + s["u"] + s["e_x"])
    sim.add_variable("y", lambda s: truth(s["x"]) + s["u"] + together(s, "y", 0.5))
    name = "families" if curve == "quadratic" else f"families_{curve}"
    return _data(sim, name, "z", truth.expression, truth.function, clusters="family")


def selected_sample(
    n: int = 10_000, *, rng: object = None, curve: str = "quadratic"
) -> SimulatedIV:
    """Draw a sample in which exposure and outcome change the chance to take part.

    The population is exposure A of `single_instrument`; a person takes part with the probability
    1 / (1 + exp(-(0.5 + X - Y))), kept between 0.1 and 1, and has its inverse as weight.

    Parameters
    ----------
    n : int
        Number of people who take part.
    rng : None, int, SeedSequence or Generator
    curve : str
        True effect, a name of `mrfast.simulation.true_curves.CURVES`.

    Returns
    -------
    SimulatedIV
    """
    people = check.integer("n", n, minimum=1)
    truth = true_curve(curve, sd=_EXPOSURE_SD["A"](0.5))
    sim = Simulation(3 * people + 300, rng=rng)
    sim.add_variables([Normal("z", 0, 0.5), Normal("u"), Normal("e_x"), Normal("e_y")])
    sim.add_variable("x", lambda s: 0.5 * s["z"] + s["u"] + s["e_x"])
    sim.add_variable("y", lambda s: truth(s["x"]) + s["u"] + s["e_y"])
    sim.add_variable(
        "chance",
        lambda s: np.maximum(0.1, 0.5 * (1 + np.tanh(0.25 + 0.5 * s["x"] - 0.5 * s["y"]))),
    )
    sim.add_variable(Uniform("p_part"))
    rows = np.flatnonzero(sim["p_part"] < sim["chance"])[:people]
    if len(rows) < people:  # for no curve of this package
        raise check.fail("curve", "one that leaves a third of the people in", repr(curve))
    data = _data(
        sim,
        "selected_sample" if curve == "quadratic" else f"selected_sample_{curve}",
        "z",
        truth.expression,
        truth.function,
        rows=rows,
    )
    return _renamed(data, data.name, sample_weight=1 / sim["chance"][rows])


@dataclass(frozen=True)
class NonlinearScenario:
    """Scenario by name: ``NONLINEAR_SCENARIOS[name](n, rng=seed)``.

    Attributes
    ----------
    name : str
    meaning : str
        In one line.
    simulate : callable
        From n and ``rng``, and options that the scenario leaves open, to a `SimulatedIV`.
    fixed : mapping of str
        Options of `simulate` that the scenario does not leave open.
    """

    name: str
    meaning: str
    simulate: Callable[..., SimulatedIV]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Options that the scenario leaves open, with their defaults."""
        found = inspect.signature(self.simulate).parameters
        return {
            name: each.default
            for name, each in found.items()
            if name not in ("n", "rng", *self.fixed)
        }

    def __call__(self, n: int, *, rng: object = None, **options: Any) -> SimulatedIV:
        """Draw people.

        Parameters
        ----------
        n : int
        rng : None, int, SeedSequence or Generator
        **options
            Those of `options`.

        Returns
        -------
        SimulatedIV

        Raises
        ------
        InvalidInputError
            An option is not one that the scenario leaves open, or out of its range.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise check.fail(name, f"an option of {self.name} ({known})", "another")
        chosen = {**self.fixed, **options}
        data = self.simulate(n, rng=rng, **chosen)
        return _renamed(data, self.name, parameters=MappingProxyType({**chosen, **data.parameters}))


# ---------------------------------------------------------------------- pieces


def _variants_and_exposure(
    n: int,
    rng: object,
    h2: float,
    beta_ux: float,
    beta_uy: float,
    n_variants: int,
    frequencies: tuple[float, float],
    random_signs: bool,
) -> Simulation:
    """Variants g, confounder u, exposure x of variance 1, and noise e_y of the outcome."""
    share = check.scalar("h2", h2, minimum=0.0, below=1.0)
    slope = check.scalar("beta_ux", beta_ux)
    check.scalar("beta_uy", beta_uy)
    j = check.integer("n_variants", n_variants, minimum=1, maximum=10**6)
    check.flag("random_signs", random_signs)
    low, high = check.float_array("frequencies", frequencies, ndim=1, shape=(2,))
    if not 0 < low <= high < 1:
        raise check.fail("frequencies", "a range strictly between 0 and 1", f"{low:g} to {high:g}")
    rest = 1 - share - slope**2
    if rest <= 0:
        raise check.fail("h2, beta_ux", "h2 + beta_ux^2 below 1", f"{share + slope**2:g}")
    sim = Simulation(n, rng=rng)
    sim.parameters["h2"] = share
    sim.parameters["beta_ux"] = slope
    sim.parameters["beta_uy"] = beta_uy
    sim.parameters["frequencies"] = lambda s: s.rng.uniform(low, high, j)

    def effects(s: Simulation) -> Float:
        size = np.sqrt(share * s.rng.dirichlet(np.ones(j)))
        return size * s.rng.choice([-1.0, 1.0], j) if random_signs else size

    sim.parameters["effects"] = effects
    sim.add_variables([Variants("g", "frequencies"), Normal("u"), Normal("e_y")])
    sim.add_variable(Normal("e_x", 0, np.sqrt(rest)))

    def exposure(s: Simulation) -> Float:
        f = s.parameters["frequencies"]
        weights = s.parameters["effects"] / np.sqrt(2 * f * (1 - f))
        x = s.weighted_sum("g", weights)
        x += s.elementwise(lambda u, e: slope * u + e - (weights * 2 * f).sum(), "u", "e_x")
        return x

    sim.add_variable("x", exposure)
    return sim


def _exposure_a(z: Float, u: Float, e: Float, strength: float) -> Float:
    return strength * z + u + e


def _exposure_b(z: Float, u: Float, e: Float, strength: float) -> Float:
    return _exposure_a(z, u, e, strength) + np.where(z <= -1, 2 * z**3 + 2, 0.0)


def _exposure_c(z: Float, u: Float, e: Float, strength: float) -> Float:
    return -10 + (1.5 + 0.4 * u) * z + u + e


def _exposure_d(z: Float, u: Float, e: Float, strength: float) -> Float:
    return np.round(_exposure_a(z, u, e, strength))


def _exposure_e(z: Float, u: Float, e: Float, strength: float) -> Float:
    return (1.6 + 1.6 * u) * z + u + e


def _exposure_h(z: Float, u: Float, e: Float, strength: float) -> Float:
    return 2 * z + np.exp(0.5 * z) * (u + e)


_EXPOSURES: Mapping[str, Callable[[Float, Float, Float, float], Float]] = {
    "A": _exposure_a,
    "B": _exposure_b,
    "C": _exposure_c,
    "D": _exposure_d,
    "E": _exposure_e,
    "H": _exposure_h,
}
# Of the exposures, which the sharp curves are laid over; about those of B and D.
_EXPOSURE_SD: Mapping[str, Callable[[float], float]] = {
    "A": lambda strength: float(np.sqrt(2 + 0.25 * strength**2)),
    "B": lambda strength: float(np.sqrt(2 + 0.25 * strength**2)),
    "C": lambda _: float(np.sqrt(2 + 0.25 * (1.5**2 + 0.4**2))),
    "D": lambda strength: float(np.sqrt(2 + 0.25 * strength**2)),
    "E": lambda _: float(np.sqrt(2 + 0.25 * 2 * 1.6**2)),
    "H": lambda _: float(np.sqrt(1 + 2 * np.exp(0.125))),
}

_SLOPES: Mapping[str, Callable[[Float], Float]] = {
    "quadratic": lambda m: 0.3 * m**2 - 0.1,
    "linear": lambda m: 0.2 + 0.3 * m,
    "logistic": lambda m: 0.2 * (1 + np.tanh(1.5 * m)),
    "sine": lambda m: 0.2 + 0.4 * np.sin(2 * m),
}


def _index(x: Float) -> Float:
    return -0.5 + 0.6 * x - 0.15 * x**2


def _probit_risk(x: Float) -> Float:
    """Risk E[Phi(index + 0.8 U)] = Phi(index / sqrt(1 + 0.8^2))."""
    from scipy.special import ndtr

    return np.asarray(ndtr(_index(x) / np.sqrt(1.64)))


def _logit_risk(x: Float) -> Float:
    """Risk E[expit(index + 0.8 U)] by Gauss-Hermite quadrature, exact to 1e-14."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    index = _index(x)
    total = np.zeros(index.shape)
    for node, weight in zip(nodes, weights / np.sqrt(2 * np.pi), strict=True):
        total += 0.5 * weight * (1 + np.tanh(0.5 * (index + 0.8 * node)))
    return total


def _data(
    sim: Simulation,
    name: str,
    instruments: str,
    expression: str | None,
    effect: Callable[[Float], Float],
    *,
    covariates: tuple[str, ...] = (),
    clusters: str | None = None,
    rows: Any = None,
    conditional_effect: Callable[[ArrayLike, ArrayLike], Float] | None = None,
) -> SimulatedIV:
    """Data of a simulation with the variables x and y."""
    keep = slice(None) if rows is None else rows
    z = sim[instruments]
    several = z.ndim == 2
    return SimulatedIV(
        name=name,
        instruments=(z if several else z[:, None])[keep],
        exposure=sim["x"][keep],
        outcome=sim["y"][keep],
        _true_effect=effect,
        expression=expression,
        seed=sim.seed,
        parameters=MappingProxyType(dict(sim.parameters)),
        covariates=np.column_stack([sim[each][keep] for each in covariates])
        if covariates
        else None,
        covariate_names=covariates,
        instrument_names=tuple(f"{instruments}_{j + 1}" for j in range(z.shape[1]))
        if several
        else (instruments,),
        clusters=None if clusters is None else sim[clusters][keep].astype(np.int64),
        conditional_effect=conditional_effect,
    )


def _renamed(data: SimulatedIV, name: str, **changes: Any) -> SimulatedIV:
    return replace(data, name=name, **changes)


def _registry() -> dict[str, NonlinearScenario]:
    found: dict[str, NonlinearScenario] = {}

    def add(name: str, meaning: str, simulate: Callable[..., SimulatedIV], **fixed: Any) -> None:
        found[name] = NonlinearScenario(name, meaning, simulate, MappingProxyType(fixed))

    add("poster_simple", "poster's quadratic, 20 variants, h2 0.5", poster_simple)
    add("poster_h2_0.2", "poster's quadratic, 20 variants, h2 0.2", poster_simple, h2=0.2)
    add("poster_h2_0.8", "poster's quadratic, 20 variants, h2 0.8", poster_simple, h2=0.8)
    add("burgess_2014", "J shape, one variant of three levels", burgess_2014)
    for kind in "ABCD":
        for number, curve in _TIAN_OUTCOMES.items():
            meaning = f"Tian's exposure {kind}, outcome {number}: {curve}"
            add(f"tian_{kind}{number}", meaning, tian_2022, exposure=kind, outcome=number)
    add("single_instrument", "one continuous instrument", single_instrument)
    for kind, curve in (("A", "sine"), ("A", "logistic"), ("E", "quadratic"), ("H", "quadratic")):
        meaning = f"one instrument, exposure {kind}, {curve}"
        add(f"{kind}_{curve}", meaning, single_instrument, exposure=kind, curve=curve)
    for curve in ("logistic_step", "steep_step", "two_bends", "rise_and_fall", "jump"):
        words = curve.replace("_", " ")
        meaning = f"one instrument, exposure A, {words}"
        add(f"A_{curve}", meaning, single_instrument, exposure="A", curve=curve)
        add(f"poster_{curve}", f"20 variants, {words}", poster_simple, curve=curve)
    for strength, f in ((0.2, 50), (0.1, 12), (0.05, 3)):
        meaning = f"weak instrument: F about {f} at n = 10,000"
        add(f"weak_{strength}", meaning, single_instrument, exposure="A", strength=strength)
    many = {"n_variants": 200, "h2": 0.1, "random_signs": True}
    add("many_weak", "poster's quadratic, 200 weak variants, h2 0.1", poster_simple, **many)
    add("unobserved_modifier", "effect depends on the confounder", unobserved_modifier)
    for link in ("probit", "logit"):
        add(f"binary_{link}", f"outcome 0 or 1, {link}", binary_outcome, link=link)
    for slope in _SLOPES:
        name = "effect_modifier" if slope == "quadratic" else f"effect_modifier_{slope}"
        add(name, f"slope {slope} in a measured modifier", effect_modifier, slope=slope)
    add("measured_covariates", "a covariate confounds the instrument", measured_covariates)
    add("families", "relatives resemble each other: clusters", families)
    add("selected_sample", "selection by exposure and outcome: weights", selected_sample)
    return found


NONLINEAR_SCENARIOS: Mapping[str, NonlinearScenario] = MappingProxyType(_registry())
"""The scenarios by name."""
