"""The arithmetic that rule files may use on config fields: integers, comparisons and choices, nothing else."""

from __future__ import annotations

import ast
import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from converter.errors import ConfigError, printable

Value = bool | int | float | str | None | Sequence["Value"] | Mapping[str, "Value"]

Number = int | float
MAX_SIZE = 2**40
_NAME = re.compile(r"[A-Za-z0-9_-]+")

_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, power: _number(base ** min(power, 62)),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Value, Value], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: lambda a, b: _number(a) < _number(b),
    ast.LtE: lambda a, b: _number(a) <= _number(b),
    ast.Gt: lambda a, b: _number(a) > _number(b),
    ast.GtE: lambda a, b: _number(a) >= _number(b),
    ast.In: lambda a, b: a in _sequence(b),
    ast.NotIn: lambda a, b: a not in _sequence(b),
}
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "none": None}


def evaluate(expression: str, fields: Mapping[str, Value]) -> Value:
    """Evaluates an expression of a rule file.

    Args:
        expression: for example ``"(pair(image_size)[0] // pair(patch_size)[0]) ** 2 + 1"``. It may use
            integers, ``true false none``, names of fields, ``+ - * / // % **``, comparisons, ``in``, ``and or not``,
            ``a if c else b``, ``int(x)``, ``len(x)``, ``x[i]``, ``pair(x)`` and ``names(x)``. ``pair`` gives ``(x, x)`` for a
            number and a sequence unchanged. ``names`` checks a list of names and gives a tuple.
        fields: values of the names, config fields and placeholders.

    Returns:
        The value: a boolean, an integer or the value of a field.

    Raises:
        ConfigError: the expression makes no sense for a field's value.
        ValueError: the expression itself is not one (a mistake in a rule file).
    """
    try:
        return _evaluate(_parse(expression), fields)
    except (TypeError, IndexError, ArithmeticError) as error:
        used = {node.id for node in ast.walk(_parse(expression)) if isinstance(node, ast.Name)} & set(fields)
        held = ", ".join(f"{name} = {printable(repr(fields[name]), 60)}" for name in sorted(used))
        raise ConfigError(f"config.json: {held} cannot be right ({expression}: {error}); correct the config") from None


def integer(expression: str, fields: Mapping[str, Value]) -> int:
    """Evaluates an expression that must give a size: an integer from 0 to 2**40."""
    value = evaluate(expression, fields)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SIZE:
        raise ConfigError(
            f"config.json: {expression} gives {printable(repr(value), 60)}, expected a size; correct the config"
        )
    return value


def truth(expression: str, fields: Mapping[str, Value]) -> bool:
    """Evaluates a condition. Fields count as Python counts them: 0, "" and none are false."""
    return bool(evaluate(expression, fields))


@functools.cache
def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"a rule uses {expression!r}, which is not an expression: {error.msg}") from None


def _evaluate(node: ast.expr, fields: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=int() | str() as constant):
            return constant
        case ast.Name(id=name):
            if name in _CONSTANTS:
                return _CONSTANTS[name]
            if name not in fields:
                raise ValueError(f"a rule uses {name!r}, which is neither a placeholder nor an honoured field")
            return fields[name]
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _BINARY:
            return _BINARY[type(operation)](_number(_evaluate(left, fields)), _number(_evaluate(right, fields)))
        case ast.BoolOp(op=op, values=terms):
            results = (bool(_evaluate(term, fields)) for term in terms)
            return any(results) if isinstance(op, ast.Or) else all(results)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, fields)
        case ast.Compare(left=left, ops=[relation], comparators=[right]) if type(relation) in _COMPARE:
            return _COMPARE[type(relation)](_evaluate(left, fields), _evaluate(right, fields))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _evaluate(body if _evaluate(test, fields) else orelse, fields)
        case ast.Subscript(value=sequence, slice=index):
            position = _number(_evaluate(index, fields))
            return _sequence(_evaluate(sequence, fields))[int(position)]
        case ast.Call(func=ast.Name(id="int"), args=[argument], keywords=[]):
            return int(_number(_evaluate(argument, fields)))
        case ast.Call(func=ast.Name(id="len"), args=[argument], keywords=[]):
            return len(_sequence(_evaluate(argument, fields)))
        case ast.Call(func=ast.Name(id="pair"), args=[argument], keywords=[]):
            held = _evaluate(argument, fields)
            return held if isinstance(held, list | tuple) else (held, held)
        case ast.Call(func=ast.Name(id="names"), args=[argument], keywords=[]):
            return _names(_evaluate(argument, fields))
        case _:
            raise ValueError(f"a rule uses {ast.unparse(node)!r}, which expressions do not have")


def _number(value: Value) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 2**62:
        raise TypeError(f"expected a number, found {printable(repr(value), 60)}")
    return value


def _names(value: Value) -> tuple[str, ...]:
    """A list of different names, none of which may hold a separator of the levels of a tensor's name."""
    found = tuple(each for each in _sequence(value) if isinstance(each, str) and _NAME.fullmatch(each))
    if len(set(found)) != len(_sequence(value)):
        raise TypeError("expected different names of letters, digits, - and _")
    return found


def _sequence(value: Value) -> Sequence[Value]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list, found {printable(repr(value), 60)}")
    return value
