"""Wrong words and objects for every parameter of a function, made from its signature."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from inspect import signature, unwrap
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from converter import ConverterError

# Of each type, those of the values below that are right.
RIGHT: Mapping[Any, tuple[Any, ...]] = {
    str: ("nonsense",),
    int: (7,),
    float: (7, 1.5),
    NoneType: (None,),
    bool: (),
    os.PathLike: (),
    Mapping: (),
    Callable: (),
}
VALUES = ("nonsense", 7, 1.5, b"bytes", ["a list"], object(), None)


def kinds_of(hint: Any) -> Iterator[Any]:
    """The types that an annotation joins."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from kinds_of(get_args(hint)[0])
    elif origin in (None, Literal):
        yield hint
    elif origin in RIGHT:
        yield origin
    else:
        for kind in get_args(hint):
            yield from kinds_of(kind)


def hints_of(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """The types of each parameter, but for those that take anything."""
    function = unwrap(function)
    found = {}
    for one in signature(function).parameters.values():
        if isinstance(one.annotation, str) and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            kinds = tuple(kinds_of(eval(one.annotation, function.__globals__)))
            if Any not in kinds:
                found[one.name] = kinds
    return found


def cases(function: Callable[..., Any]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Every parameter with a wrong value, and the words that the message has to name."""
    for name, kinds in hints_of(function).items():
        words = tuple(repr(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))
        right = [value for kind in kinds if get_origin(kind) is not Literal for value in RIGHT.get(kind, ())]
        for value in VALUES:
            if not any(value is one for one in right):
                yield name, value, words if value == "nonsense" else ()


def refused(function: Callable[..., Any], arguments: Mapping[str, Any], name: str, value: Any) -> str:
    """What a call with one wrong argument says; it is refused before anything is done."""
    with pytest.raises(ConverterError) as caught:
        function(**{**arguments, name: value})
    said = str(caught.value)
    assert name in said.split(";")[0], said
    return said
