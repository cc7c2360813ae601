"""Batch normalisation (https://arxiv.org/abs/1502.03167) as ``torch.nn.BatchNorm2d`` has it, its statistics among the weights.

In training it normalises by the mean and the variance of the batch, padding included, and moves the running ones towards them
by a tenth. PyTorch's variance there is that of a sample, Keras' own layer's is not. A layer that is not trainable runs as in
evaluation, as Keras has it; PyTorch goes on counting unless ``eval`` is called. Of a single value PyTorch refuses to take the
variance; here it is 0. Under ``tf.distribute`` each replica has statistics of its own, and those of the first are saved.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from converter.models.parts import CompositeLayer, Make, Part, as_dtype, in_float32

Tensor = Any

EPS = 1e-5
MOMENTUM = 0.1


class BatchNorm(Part):
    """Normalisation of each channel over all other axes; held by a ``CountingLayer``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gamma: Any = None
        self.beta: Any = None
        self.mean: Any = None
        self.variance: Any = None
        self.count: Any = None

    def build(self, make: Make) -> None:
        """Creates ``gamma``, ``beta``, ``moving_mean`` and ``moving_variance (width,)``, and the integer ``(1,)`` of batches."""
        shape, kept = (self.width,), {"autocast": False, "trainable": False}
        self.gamma = self.weights["gamma"] = make("gamma", shape, "constant", 1.0, autocast=False)
        self.beta = self.weights["beta"] = make("beta", shape, "constant", 0.0, autocast=False)
        self.mean = self.weights["moving_mean"] = make("moving_mean", shape, "constant", 0.0, **kept)
        self.variance = self.weights["moving_variance"] = make("moving_variance", shape, "constant", 1.0, **kept)
        name = "num_batches_tracked"
        self.count = self.weights[name] = make(name, (1,), "count", 0, **kept)

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        """``(..., width)``, normalised; half precision in float32 and rounded once."""
        return in_float32(lambda x: self._normed(x, training), x)

    def _normed(self, x: Tensor, training: bool) -> Tensor:
        dtype = keras.backend.standardize_dtype(x.dtype)
        gamma, beta, mean, variance = (as_dtype(v, dtype) for v in (self.gamma, self.beta, self.mean, self.variance))
        if training:
            mean, variance = self._of_batch(x)
        return (x - mean) * (ops.rsqrt(variance + EPS) * gamma) + beta

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch, of which the running ones get their share."""
        axes = tuple(range(len(x.shape) - 1))
        number = ops.cast(math.prod(ops.shape(x)[axis] for axis in axes), x.dtype)
        mean = ops.sum(x, axis=axes) / number  # not ops.mean, which on JAX averages float64 in float32
        variance = ops.sum(ops.square(x - mean), axis=axes) / number
        sample = variance * (number / ops.maximum(number - 1, 1))
        for kept, found in ((self.mean, mean), (self.variance, sample)):
            share = as_dtype(ops.stop_gradient(found), keras.backend.standardize_dtype(kept.dtype))
            kept.assign((1 - MOMENTUM) * ops.convert_to_tensor(kept) + MOMENTUM * share)
        self.count.assign(ops.convert_to_tensor(self.count) + 1)
        return mean, variance


class CountingLayer(CompositeLayer):
    """A layer whose parts may have whole numbers among their tensors."""

    def _maker(self, last: str) -> Make:
        plain = super()._maker(last)

        def make(name: str, shape: tuple[int, ...], kind: str, number: float, **options: bool) -> Any:
            if kind != "count":
                return plain(name, shape, kind, number, **options)
            # JAX has no int64 by default.
            dtype = "int32" if keras.backend.backend() == "jax" else "int64"
            variable = keras.Variable("zeros", shape=shape, dtype=dtype, name=name, **options)
            self.variables_held.append(variable)
            return variable

        return make

    def counts(self, training: bool) -> bool:
        """Whether statistics are those of the batch."""
        return bool(training and self.trainable)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The unchanged call: run twice, it would count twice. PyTorch does not run such layers again either."""
        del args, kwargs
        return layer_call
