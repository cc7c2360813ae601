"""What a program hands to a public function: words, switches, numbers, paths. Decides which of them it takes.

The annotations say it. A wrong one is a ``ConverterError`` that names what there is to choose from, before anything is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature, unwrap
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from converter.errors import ArgumentError, ConverterError, printable

P = ParamSpec("P")
R = TypeVar("R")
Error = type[ConverterError]

_WORDS: Mapping[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    os.PathLike: "a path",
    Mapping: "a dict",
    Callable: "a function",
    Sequence: "a sequence",
}
_FITS: Mapping[Any, Callable[[Any], bool]] = {
    # 0 and 1 are habits from C, and NumPy has its own bool.
    bool: lambda value: isinstance(value, bool) or value in (0, 1) or type(value).__name__ in ("bool", "bool_"),
    int: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    Callable: callable,
}


def checked(*, but: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that checks a function's arguments against its annotations.

    Args:
        but: parameters that the function looks at itself.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        expected: dict[str, Any] = {}
        shape = signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not expected:
                expected.update(hints_of(function, but))
            try:
                given = shape.bind(*args, **kwargs).arguments
            except TypeError:  # as Python words it: an unknown name, or one too many
                return function(*args, **kwargs)
            for name, value in given.items():
                if name in expected:
                    check(name, value, expected[name])
            return function(*args, **kwargs)

        return call

    return decorate


def hints_of(function: Callable[..., Any], but: Collection[str] = ()) -> dict[str, Any]:
    """The types of a function's parameters, except those that take anything."""
    parameters = signature(function).parameters.values()
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    asked = [one for one in parameters if one.kind not in several and one.name not in but and one.name != "cls"]
    module = getattr(unwrap(function), "__globals__", {})
    found = {one.name: eval(one.annotation, module) for one in asked if isinstance(one.annotation, str)}  # noqa: S307
    return {name: hint for name, hint in found.items() if hint is not Any}


def check(name: str, value: Any, hint: Any, error: Error = ArgumentError) -> None:
    """Refuses a value that is not of a type.

    Args:
        name: of the parameter.
        value: for it.
        hint: the type; the text of an ``Annotated`` one says what is expected, of a ``{}`` that is there.
        error: to raise.

    Raises:
        ConverterError: it is another; the message names the words, or the type, that are expected.
    """
    if _fits(value, hint):
        return
    if get_origin(hint) is Annotated:
        raise error(get_args(hint)[1].format(type(value).__name__))
    kinds = _kinds(hint)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    others = [kind for kind in kinds if get_origin(kind) is not Literal]
    if words and (isinstance(value, str) or set(others) <= {NoneType}):
        choices = [*map(repr, words), *(["None"] if NoneType in others else [])]
        raise error(f"{name} {printable(repr(value), 60)} does not exist; choose {' or '.join(choices)}")
    texts = [kind for kind in others if kind is not str or not _takes_paths(others)]
    expected = " or ".join(dict.fromkeys([*map(_word, texts), *map(repr, words)]))
    shown = "None" if value is None else f"{printable(repr(value), 60)} ({type(value).__name__})"
    raise error(f"{name} is {shown}; expected {expected}")


def check_least(name: str, value: int | None, least: int) -> None:
    """Refuses a number that is too small.

    Raises:
        ArgumentError: it is.
    """
    if value is not None and value < least:
        raise ArgumentError(f"{name} is {value}; expected {least} or more")


def _takes_paths(kinds: Sequence[Any]) -> bool:
    return any(get_origin(kind) is os.PathLike for kind in kinds)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin is Annotated:
        return _fits(value, get_args(hint)[0])
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint is None:
        return value is None
    if origin in _FITS:
        return _FITS[origin](value)
    return origin is Any or isinstance(value, origin)


def _word(kind: Any) -> str:
    kind = NoneType if kind is None else get_origin(kind) or kind
    return _WORDS.get(kind) or f"a {kind.__name__}"
