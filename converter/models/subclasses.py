"""Lets somebody's own subclass override ``call`` as in transformers 4: with ``*args, **kwargs``, or with one dictionary."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any


def adapt_call(cls: type[Any], fields: tuple[str, ...]) -> None:
    """Gives a subclass's ``call`` the signature of the class it overrides, which Keras binds the inputs to.

    Args:
        cls: the subclass; nothing happens if it does not define ``call``.
        fields: names of the inputs.
    """
    own = cls.__dict__.get("call")
    above = getattr(super(cls, cls), "call", None)
    if own is None or above is None:
        return
    expected = signature(above)
    parameters = signature(own).parameters
    takes_all = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())

    @functools.wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = expected.bind(self, *args, **kwargs).arguments
        given = {name: value for name, value in list(bound.items())[1:] if value is not None}
        if takes_all:
            return own(self, **given)
        return _called(own, parameters, self, given, fields)

    call.__signature__ = expected  # type: ignore[attr-defined]
    cls.call = call


def _called(
    own: Callable[..., Any], parameters: Any, model: Any, given: dict[str, Any], fields: tuple[str, ...]
) -> Any:
    """Calls what takes some of the inputs by name, or all of them as one dictionary."""
    known = {name: value for name, value in given.items() if name in parameters or value is not False}
    if fields[0] in parameters:
        return own(model, **known)
    inputs = {name: value for name, value in known.items() if name in fields}
    rest = {name: value for name, value in known.items() if name in parameters}
    return own(model, inputs, **rest)
