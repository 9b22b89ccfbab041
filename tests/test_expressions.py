"""Functions from text: what they mean, what is refused, and that nothing is executed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mrfast.errors import InvalidInputError
from mrfast.nonlinear.expressions import FUNCTIONS, function_values, parse_function

X = np.linspace(-3, 4, 29)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("lambda x: 0.3*(x+2)*(x-1)+1", lambda x: 0.3 * (x + 2) * (x - 1) + 1),
        ("lambda t: t**2 - -t", lambda x: x**2 + x),
        (" -x**2 ", lambda x: -(x**2)),
        ("2**-x", lambda x: 2.0**-x),
        ("7 // 2 + 7 % 4 - x/4", lambda x: 3 + 3 - x / 4),
        ("where(x <= 0, -0.1*x**2, 0)", lambda x: -0.1 * x**2 if x <= 0 else 0.0),
        ("-0.1 * x**2 * (x <= 0)", lambda x: -0.1 * x**2 if x <= 0 else 0.0),
        ("x if 0 < x < 1 or x >= 3 else -1", lambda x: x if 0 < x < 1 or x >= 3 else -1.0),
        ("1*(not (x > 0))", lambda x: float(not x > 0)),
        ("1*((x > 0) & (x < 2) | (x == -3))", lambda x: float((0 < x < 2) or x == -3)),
        ("np.exp(-x) + numpy.log(x*x + 1)", lambda x: math.exp(-x) + math.log(x * x + 1)),
        ("math.sin(pi*x) + cos(e)", lambda x: math.sin(math.pi * x) + math.cos(math.e)),
        ("max(min(x, 2), -1)", lambda x: max(min(x, 2.0), -1.0)),
        ("abs(x) + sqrt(abs(x)) + tanh(x)", lambda x: abs(x) + abs(x) ** 0.5 + math.tanh(x)),
        ("expit(x) + softplus(x)", lambda x: 1 / (1 + math.exp(-x)) + math.log1p(math.exp(x))),
        ("normal_cdf(x)", lambda x: 0.5 * math.erfc(-x / math.sqrt(2))),
        ("5", lambda x: 5.0),
        ("(x > 0) + (x > 1) - (x < -1)", lambda x: (x > 0) + (x > 1) - (x < -1)),
        ("-(x > 0) + exp(x > 1) * sign(x < 0)", lambda x: -(x > 0) + math.exp(x > 1) * (x < 0)),
        ("~(x > 0) * 2 + (not x > 1 and x != 0)", lambda x: 2 * (x <= 0) + (x <= 1 and x != 0)),
        ("np.pi * x + math.e + numpy.power(x, 2)", lambda x: math.pi * x + math.e + x * x),
        ("lambda e: e + 1", lambda x: x + 1),
    ],
)
def test_meaning(text: str, function) -> None:
    """-x**2 is -(x^2), and a chain a < x < b is both: as in Python, element by element.

    Comparisons add up: fails where numpy's sum of two truths is one truth.
    """
    parsed = parse_function(text)
    np.testing.assert_allclose(parsed(X), [function(float(x)) for x in X], rtol=1e-13, atol=1e-14)
    assert parsed(X.reshape(-1, 1)).shape == (len(X), 1)
    assert parsed(1.5).shape == ()
    assert parsed(X).dtype == np.float64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x +",
        "y",
        "x.real",
        "x.__class__",
        "().__class__.__bases__[0].__subclasses__()",
        "__import__('os').system('true')",
        "open('f')",
        "exp.__globals__",
        "os.exp(x)",
        "np.load(x)",
        "np.linalg.exp(x)",
        "exp(x, out=x)",
        "exp(*x)",
        "exp()",
        "min(x)",
        "[x]",
        "x[0]",
        "'a' * 9",
        "True",
        "1j * x",
        "1e999",
        "9" * 400,
        "(y := x)",
        "f'{x}'",
        "x << 2",
        "x^2",
        "x & 2",
        "x or 5",
        "not x",
        "~x",
        "x > 0 & x < 2",
        "np.tau",
        "lambda exp: exp(1)",
        "lambda np: np.exp(1)",
        "x @ x",
        "x in x",
        "x is x",
        "lambda x, y: x",
        "lambda *x: 1",
        "lambda x=1: x",
        "lambda: 1",
        "lambda x: lambda y: y",
        "[i for i in x]",
        "x; x",
        "x = 1",
        "await x",
        "x" + " + x" * 1000,
        "-" * 100 + "x",
        "(" * 500 + "x" + ")" * 500,
        "exp(" * 61 + "x" + ")" * 61,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="text: expected"):
        parse_function(text)


def test_a_refusal_does_not_run_anything(tmp_path) -> None:
    target = tmp_path / "made"
    for text in (f"open({str(target)!r}, 'w')", f"exp(open({str(target)!r}, 'w'))"):
        with pytest.raises(InvalidInputError):
            parse_function(text)
    assert not target.exists()


def test_huge_powers_do_not_hang() -> None:
    """Integers are floats: 9**9**9**9 overflows at once instead of growing."""
    with pytest.raises(InvalidInputError, match="finite"):
        parse_function("9**9**9**9")(1.0)


def test_values_that_are_not_finite_are_errors_that_say_where() -> None:
    with pytest.raises(InvalidInputError, match=r"log\(x\): expected finite values.*x = -1"):
        parse_function("log(x)")([2.0, -1.0])
    with pytest.raises(InvalidInputError, match="x: expected finite"):
        parse_function("x")([np.nan])


def test_a_power_is_not_written_as_in_r() -> None:
    """Fails where x^2 is an exclusive or, which has values 0 and 1."""
    with pytest.raises(InvalidInputError, match=r"BitXor, powers are written \*\*"):
        parse_function("0.1*x^2")


def test_functions_of_single_numbers_are_called_point_by_point() -> None:
    points = np.array([[-1.0, 0.0], [0.5, 2.0]])

    def piecewise(x: float) -> float:
        return x if x > 0 else -1

    expected = [[-1, -1], [0.5, 2]]
    np.testing.assert_array_equal(function_values("f", piecewise, points), expected)
    np.testing.assert_allclose(function_values("f", math.sin, points), np.sin(points))
    np.testing.assert_array_equal(function_values("f", lambda x: 3, points), np.full((2, 2), 3))
    with pytest.raises(InvalidInputError, match=r"f: .*ValueError.* at x = -1"):
        function_values("f", math.sqrt, points)
    with pytest.raises(InvalidInputError, match="f: expected finite values"):
        function_values("f", lambda x: x / 0, points)


def test_every_function_runs() -> None:
    for name, (_, count) in FUNCTIONS.items():
        text = f"{name}({', '.join(['x', '0.5', '2'][:count])})"
        values = parse_function(text)(np.array([0.25, 0.75]))
        assert np.isfinite(values).all(), name


def test_function_of_a_file(tmp_path) -> None:
    path = tmp_path / "truth.py"
    path.write_text("import numpy as np\nSCALE = 2\ndef truth(x):\n    return SCALE * np.sin(x)\n")
    parsed = parse_function(f"{path}:truth")
    np.testing.assert_allclose(parsed(X), 2 * np.sin(X))
    for text, message in (
        (f"{path}:SCALE", "function of"),
        (f"{path}:none", "function of"),
        (f"{tmp_path / 'absent.py'}:truth", "exists"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            parse_function(text)
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Line:\n    slope: float\n    def __call__(self, x):\n"
        "        return self.slope * x\ntruth = Line(2)\n"
    )
    np.testing.assert_array_equal(parse_function(f"{path}:truth")(X), 2 * X)
    path.write_text("1 / 0\n")
    with pytest.raises(InvalidInputError, match="ZeroDivisionError"):
        parse_function(f"{path}:truth")
    path.write_text("def truth(x):\n    return x[:1]\n")
    with pytest.raises(InvalidInputError, match="shape"):
        parse_function(f"{path}:truth")(X)
