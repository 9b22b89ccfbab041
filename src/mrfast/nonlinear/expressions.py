"""Functions of one variable from text: arithmetic in a whitelist, never executed as Python."""

from __future__ import annotations

import ast
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import InvalidInputError, MrfastError

__all__ = ["FUNCTIONS", "ParsedFunction", "function_values", "parse_function"]

_LONGEST = 4000  # characters
_DEEPEST = 60
_MOST = 1000  # parts of an expression
_SHOWN = 60  # characters of a text in a message

Operation = Callable[..., Any]


def _expit(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(0.0, x)


def _normal_cdf(x: Any) -> Any:
    from scipy.special import ndtr

    return ndtr(x)


FUNCTIONS: Mapping[str, tuple[Operation, int]] = {
    "abs": (np.abs, 1),
    "exp": (np.exp, 1),
    "expit": (_expit, 1),
    "expm1": (np.expm1, 1),
    "log": (np.log, 1),
    "log10": (np.log10, 1),
    "log1p": (np.log1p, 1),
    "log2": (np.log2, 1),
    "sqrt": (np.sqrt, 1),
    "square": (np.square, 1),
    "power": (np.power, 2),
    "pow": (np.power, 2),
    "sin": (np.sin, 1),
    "cos": (np.cos, 1),
    "tan": (np.tan, 1),
    "arcsin": (np.arcsin, 1),
    "arccos": (np.arccos, 1),
    "arctan": (np.arctan, 1),
    "sinh": (np.sinh, 1),
    "cosh": (np.cosh, 1),
    "tanh": (np.tanh, 1),
    "sign": (np.sign, 1),
    "floor": (np.floor, 1),
    "ceil": (np.ceil, 1),
    "round": (np.round, 1),
    "softplus": (_softplus, 1),
    "normal_cdf": (_normal_cdf, 1),
    "min": (np.minimum, 2),
    "minimum": (np.minimum, 2),
    "max": (np.maximum, 2),
    "maximum": (np.maximum, 2),
    "where": (np.where, 3),
    "clip": (np.clip, 3),
}
"""Functions that an expression may call, with the number of their arguments."""

_CONSTANTS = {"pi": math.pi, "e": math.e}
_MODULES = ("np", "numpy", "math")  # may stand before a function's name

_BINARY: Mapping[type[ast.operator], Operation] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_UNARY: Mapping[type[ast.unaryop], Operation] = {ast.UAdd: np.positive, ast.USub: np.negative}
_LOGICAL: Mapping[type[ast.AST], Operation] = {
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
    ast.Not: np.logical_not,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.Invert: np.logical_not,
}
_COMPARISONS: Mapping[type[ast.cmpop], Operation] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}

Node = Callable[[Float], Any]


@dataclass(frozen=True)
class ParsedFunction:
    """Function of x from a text.

    Attributes
    ----------
    text : str
        What it was read from.
    """

    text: str
    _function: Callable[[Float], Any] = field(repr=False, compare=False)

    def __call__(self, x: ArrayLike) -> Float:
        """Evaluate the function.

        Parameters
        ----------
        x : array_like

        Returns
        -------
        ndarray
            Of x's shape.

        Raises
        ------
        InvalidInputError
            A value is not finite, or the values have another shape.
        """
        points = check.float_array("x", x, ndim=None).reshape(np.shape(x))
        return function_values(self.text[:_SHOWN], self._function, points)


def function_values(argument: str, function: Callable[[Any], Any], points: Float) -> Float:
    """Evaluate a function of one variable.

    Parameters
    ----------
    argument : str
        What messages call it.
    function : callable
        From the array of points to numbers of its shape, or to one number for all of them. One
        that takes single numbers only, such as ``math.sin``, is called for each point.
    points : ndarray of float64

    Returns
    -------
    ndarray of float64
        Of the shape of `points`.

    Raises
    ------
    InvalidInputError
        A value is not finite, the values have another shape, or the function fails.
    """
    with np.errstate(all="ignore"):
        try:
            found = function(points)
        except MrfastError:
            raise
        except (TypeError, ValueError):  # of functions that take single numbers only
            found = [_value(argument, function, x) for x in points.ravel().tolist()]
            found = np.asarray(found).reshape(points.shape) if found else points
        except Exception as error:  # whatever the user's function does
            raise check.fail(argument, "a function of x that runs", repr(error)) from error
    values = np.asarray(found)
    if values.dtype.kind not in "biuf" or values.shape not in (points.shape, ()):
        raise check.fail(
            argument,
            f"numbers of shape {points.shape}",
            f"{values.dtype} of shape {values.shape}",
        )
    result = np.array(np.broadcast_to(values, points.shape), dtype=np.float64)
    bad = ~np.isfinite(result)
    if bad.any():
        received = f"{result[bad].flat[0]} at x = {points[bad].flat[0]:g}"
        raise check.fail(argument, "finite values", received)
    return result


def _value(argument: str, function: Callable[[Any], Any], x: float) -> float:
    try:
        return float(function(x))
    except Exception as error:  # whatever the user's function does
        received = f"{error!r} at x = {x:g}"
        raise check.fail(argument, "a function of x that gives numbers", received) from error


def parse_function(text: str) -> ParsedFunction:
    """Read a function of one variable.

    Parameters
    ----------
    text : str
        An expression of x, such as ``"0.3*(x+2)*(x-1)+1"``; the same after ``"lambda x:"``, with
        any name for the variable; or ``"file.py:name"``, a function of a Python file, which is
        run. Expressions have numbers, + - * / // % **, comparisons (1 where they hold, else 0),
        ``and or not``, or ``& | ~``, between comparisons, ``a if c else b``, the constants pi
        and e, and the functions of `FUNCTIONS`. Functions and constants may be written with
        ``np.`` before them. They act on arrays.

    Returns
    -------
    ParsedFunction

    Raises
    ------
    InvalidInputError
        The text has another form, is too long or too deep, or the file has no such function.

    Examples
    --------
    >>> parse_function("lambda x: 0.3*(x+2)*(x-1)+1")([0.0, 1.0])
    array([0.4, 1. ])
    """
    if not isinstance(text, str):
        raise check.fail("text", "a text", type(text).__name__)
    path, colon, name = text.rpartition(":")
    if colon and path.strip().endswith(".py"):
        return ParsedFunction(text, _from_file(Path(path.strip()), name.strip()))
    if len(text) > _LONGEST:
        raise check.fail("text", f"at most {_LONGEST} characters", f"{len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python on the form of a text
            body: ast.expr = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _refused(text, f"one that cannot be read ({reason})") from error
    variable = "x"
    if isinstance(body, ast.Lambda):
        arguments = body.args
        plain = ast.arguments([], arguments.args, None, [], [], None, [])
        if len(arguments.args) != 1 or ast.dump(plain) != ast.dump(arguments):
            raise _refused(text, "a lambda that is not of one plain argument")
        variable, body = arguments.args[0].arg, body.body
    return ParsedFunction(text, _Reader(text, variable).read(body, 0))


class _Reader:
    """Turns the parts of an expression into functions of the variable."""

    def __init__(self, text: str, variable: str) -> None:
        self._text, self._variable, self._parts = text, variable, 0

    def read(self, node: ast.expr, depth: int) -> Node:
        """Read a part of an expression."""
        self._parts += 1
        if depth > _DEEPEST or self._parts > _MOST:
            raise _refused(self._text, "one of too many parts")
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.UnaryOp):
            if type(node.op) in _LOGICAL:
                return self._logical(node.op, [node.operand], depth)
            return _applied(_UNARY[type(node.op)], [self.read(node.operand, depth + 1)])
        if isinstance(node, ast.BinOp):
            if type(node.op) in _LOGICAL:
                return self._logical(node.op, [node.left, node.right], depth)
            if type(node.op) not in _BINARY:
                power = ", powers are written **" if isinstance(node.op, ast.BitXor) else ""
                raise self._unknown(f"the operator {type(node.op).__name__}{power}")
            sides = [self.read(side, depth + 1) for side in (node.left, node.right)]
            return _applied(_BINARY[type(node.op)], sides)
        if isinstance(node, ast.BoolOp):
            return self._logical(node.op, node.values, depth)
        if isinstance(node, ast.Compare):
            return self._comparison(node, depth)
        if isinstance(node, ast.IfExp):
            parts = [self.read(part, depth + 1) for part in (node.test, node.body, node.orelse)]
            return _applied(np.where, parts)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        constant = _CONSTANTS.get(self._of_module(node))
        if constant is not None:
            return lambda _x: constant
        raise self._unknown(type(node).__name__)

    def _constant(self, node: ast.Constant) -> Node:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise self._unknown(f"the constant {node.value!r}"[:_SHOWN])
        try:
            value = float(node.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self._unknown("a number that is too large")
        return lambda _x: value

    def _name(self, name: str) -> Node:
        if name == self._variable:
            return lambda x: x
        if name in _CONSTANTS:
            value = _CONSTANTS[name]
            return lambda _x: value
        raise self._unknown(f"the name {name!r}")

    def _logical(self, operator: ast.AST, parts: list[ast.expr], depth: int) -> Node:
        """And, or, not, of comparisons: of numbers Python's ``or`` gives one of these."""
        if not all(map(_is_logical, parts)):
            raise self._unknown(f"{type(operator).__name__} of what is no comparison in brackets")
        sides = [self.read(part, depth + 1) for part in parts]
        if len(sides) == 1:
            return lambda x: 1.0 - sides[0](x)
        return _folded(_LOGICAL[type(operator)], sides)

    def _comparison(self, node: ast.Compare, depth: int) -> Node:
        sides = [self.read(side, depth + 1) for side in (node.left, *node.comparators)]
        pairs = []
        for kind, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if type(kind) not in _COMPARISONS:
                raise self._unknown(f"the comparison {type(kind).__name__}")
            pairs.append(_applied(_COMPARISONS[type(kind)], [left, right]))
        return _folded(np.logical_and, pairs)

    def _call(self, node: ast.Call, depth: int) -> Node:
        function = node.func
        name = function.id if isinstance(function, ast.Name) else self._of_module(function)
        if name not in FUNCTIONS or name == self._variable:
            raise self._unknown(f"the function {ast.unparse(function)!r}"[:_SHOWN])
        operation, count = FUNCTIONS[name]
        if node.keywords or len(node.args) != count:
            raise self._unknown(f"{name} with other than {count} plain argument(s)")
        return _applied(operation, [self.read(each, depth + 1) for each in node.args])

    def _of_module(self, node: ast.expr) -> str:
        """Name after ``np.``; empty for everything else."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = node.value.id
            return node.attr if module in _MODULES and module != self._variable else ""
        return ""

    def _unknown(self, what: str) -> InvalidInputError:
        return _refused(self._text, what)


def _applied(operation: Operation, parts: list[Node]) -> Node:
    return lambda x: operation(*(part(x) for part in parts))


def _folded(operation: Operation, parts: list[Node]) -> Node:
    """Operation over one or more parts that gives the numbers 0 and 1."""

    def value(x: Float) -> Any:
        total = parts[0](x)
        for part in parts[1:]:
            total = operation(total, part(x))
        return np.asarray(total, dtype=np.float64)

    return value


def _is_logical(node: ast.expr) -> bool:
    """Whether a part of an expression is true or false."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        return type(node.op) in _LOGICAL
    return isinstance(node, (ast.BoolOp, ast.Compare))


def _from_file(path: Path, name: str) -> Callable[[Float], Any]:
    if not path.is_file():
        raise check.fail("text", "a file that exists before the colon", str(path))
    spec = importlib.util.spec_from_file_location(f"mrfast_function_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise check.fail("text", "a Python file before the colon", str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file does
        del sys.modules[spec.name]
        raise check.fail("text", f"a file that runs ({path})", repr(error)) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise check.fail("text", f"a function of {path} after the colon", repr(name))
    return function  # type: ignore[no-any-return]


def _refused(text: str, what: str) -> InvalidInputError:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return check.fail("text", "an arithmetic expression of one variable", f"{what} in {shown!r}")
