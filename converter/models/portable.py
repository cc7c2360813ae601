"""Whether a graph is being made for small runtimes (LiteRT, GPUs and NPUs behind it), which have fewer operators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_portable: ContextVar[bool] = ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Within it, a model computes the same with operators that all runtimes have, even if that is slower elsewhere.

    Masks stay in the range of float16, because such a runtime may compute in it for any file. The lowest float32 would
    be minus infinity there, and that times 0 is NaN. Texts with only padding then differ from PyTorch, where each of
    their positions counts the same. Nothing is kept from training, since nothing is trained.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether this is within ``portable``."""
    return _portable.get()
