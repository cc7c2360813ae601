"""Gradient checkpointing by ``keras.RematScope``: a layer runs again in the backward pass, with the same dropout.

Keras hands every argument and result to the backend, which takes tensors only, and lets a second run draw new random
numbers, whose gradients would belong to another forward pass.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

Tensor = Any
STEP = 1_000_003  # between the seeds that follow from one; the second number of a seed counts those drawn


class Seeds(keras.random.SeedGenerator):
    """Seeds for dropout; inside ``following`` they follow from one that is given, and the state does not move."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._first: Tensor = None
        self._drawn = 0

    def next(self, ordered: bool = True) -> Tensor:
        """The next seed ``(2,)``."""
        if self._first is None:
            return super().next(ordered)
        self._drawn += 1
        return self._first + ops.convert_to_tensor([self._drawn * STEP, 0], dtype=self._first.dtype)

    @contextlib.contextmanager
    def following(self, first: Tensor) -> Iterator[None]:
        """Lets ``next`` count from ``first``."""
        self._first, self._drawn = first, 0
        try:
            yield
        finally:
            self._first = None


def rematerialized(
    call: Callable[..., Any], remat: Callable[[Callable[..., Any]], Callable[..., Any]], seeds: Seeds | None
) -> Callable[..., Any]:
    """``call`` in the form that ``remat`` can run again.

    Args:
        call: of a layer, with tensors and settings as arguments and a tensor or a tuple of tensors and None as result.
        remat: Keras', which gives a function of tensors to tensors back, or another such function.
        seeds: the layer's random seeds; None if it draws nothing.

    Returns:
        A function with the arguments and results of ``call``.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(call).bind(*args, **kwargs).arguments
        tensors = {name: value for name, value in given.items() if ops.is_tensor(value)}
        rest = {name: value for name, value in given.items() if name not in tensors}
        first = [] if seeds is None or not given.get("training") else [seeds.next()]
        is_there: list[bool] = []
        single: list[bool] = []

        def of_tensors(*values: Tensor) -> tuple[Tensor, ...]:
            with contextlib.ExitStack() as stack:
                if seeds is not None and first:
                    stack.enter_context(seeds.following(values[-1]))
                found = call(**dict(zip(tensors, values, strict=False)), **rest)
            single[:] = [not isinstance(found, tuple)]
            results = (found,) if single[0] else found
            is_there[:] = [result is not None for result in results]
            return tuple(result for result in results if result is not None)

        results = iter(remat(of_tensors)(*tensors.values(), *first))
        whole = tuple(next(results) if there else None for there in is_there)
        return whole[0] if single[0] else whole

    return run
