"""The building blocks of every tower: parts with weights (dense, norm, embedding ...) and layers that know them by name.

The path under which a layer holds a part is that part's place in a checkpoint. It is given once, when the part is made.
It serves both as the Keras path of a newly built variable and for ``converter.models.names``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from converter.models.inner_layers import NOT_HERE, found_inside
from converter.models.part_layers import PartLayer
from converter.models.portable import is_portable
from converter.models.remat import rematerialized
from converter.tensors.layouts import untouched

Tensor = Any
Make = Callable[..., Any]


def in_float32(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``; of a half-precision ``x`` computed in float32 and rounded once, as PyTorch's kernels do it."""
    wide = widened(x)
    return function(x) if wide is x else ops.cast(function(wide), x.dtype)


def widened(x: Tensor) -> Tensor:
    """A half-precision tensor as float32; any other unchanged."""
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x


def as_dtype(x: Tensor, dtype: str) -> Tensor:
    """A tensor or variable in a dtype; unchanged if it already has that, which ``ops.cast`` takes 5 to 30 µs to see."""
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)


def unit(x: Tensor) -> Tensor:
    """``(n, width)`` with each row scaled to length 1."""
    return in_float32(lambda x: x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), x)


def rows_of(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of ``(rows, width)``: ids of any shape to ``(..., width)``."""
    if keras.backend.backend() != "tensorflow":
        return ops.take(table, ids, axis=0)
    import tensorflow as tf

    # ``ops.take`` would count a negative id from the end, so that a server or a device gave numbers for it.
    return tf.gather(ops.convert_to_tensor(table), ids)


def empty(shape: Sequence[int], dtype: str) -> Tensor:
    """A tensor of any values, whose memory the backend need not touch: on a CPU it takes none before it is used."""
    backend = keras.backend.backend()
    if backend == "jax" and dtype == "float32" and math.prod(shape) and is_jax_on_cpu():
        # Pages that nobody wrote to; JAX's own zeros would be there a while beside the weights that replace them.
        return taken_over_by_jax(untouched(tuple(shape), dtype))
    if backend != "tensorflow":
        return ops.zeros(shape, dtype)
    import tensorflow as tf

    return tf.raw_ops.Empty(shape=tuple(shape), dtype=dtype, init=False)


def is_jax_on_cpu() -> bool:
    """Whether JAX, which is the backend, computes where NumPy's arrays are."""
    import jax

    return str(jax.default_backend()) == "cpu"


def taken_over_by_jax(array: Any) -> Tensor:
    """An aligned array that nothing else holds, as JAX's: the same memory, where ``jax.numpy.asarray`` copies."""
    import jax

    return jax.numpy.from_dlpack(array)


class Part:
    """Some weights and what they do; made by ``build``, which a layer calls inside the right name scope.

    ``compute_dtype`` is that of the layer; a product casts to it itself, since a layer may keep its input in float32.
    """

    compute_dtype: str = "float32"

    def __init__(self) -> None:
        self.weights: dict[str, Any] = {}

    def build(self, make: Make) -> None:
        """Creates the weights by ``make(name, shape, kind, value)`` and keeps them in ``weights`` by name."""
        raise NotImplementedError


class Dense(Part):
    """``x @ kernel + bias``; kernel ``(in, out)``, where PyTorch keeps ``(out, in)``."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        self.inputs, self.outputs, self.has_bias, self.std = inputs, outputs, bias, std
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``kernel (in, out)`` and, if there is one, ``bias (out,)``."""
        self.kernel = self.weights["kernel"] = make("kernel", (self.inputs, self.outputs), "normal", self.std)
        if self.has_bias:
            self.bias = self.weights["bias"] = make("bias", (self.outputs,), "constant", 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        half = self.compute_dtype
        # As matrices: TensorFlow's products of anything more take a dozen small operations around the one that counts.
        rows = x if len(x.shape) == 2 else ops.reshape(x, (-1, self.inputs))
        y = ops.matmul(as_dtype(rows, half), as_dtype(self.kernel, half))
        if self.bias is not None:
            y = ops.add(y, as_dtype(self.bias, half))
        return y if rows is x else ops.reshape(y, (*ops.shape(x)[:-1], self.outputs))


class Norm(Part):
    """Layer normalisation over the last axis, biased variance, epsilon inside the root as in PyTorch."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, make: Make) -> None:
        """Creates ``gamma (width,)`` and ``beta (width,)``, which mixed precision does not cast."""
        self.gamma = self.weights["gamma"] = make("gamma", (self.width,), "constant", 1.0, autocast=False)
        self.beta = self.weights["beta"] = make("beta", (self.width,), "constant", 0.0, autocast=False)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """``x``, or its sum with ``residual``, normalised; half precision in float32 and rounded once, as in PyTorch."""
        if residual is None:
            return in_float32(self._normed, x)
        return in_float32(lambda x: self._normed(x + ops.cast(residual, x.dtype)), x)

    def _normed(self, x: Tensor) -> Tensor:
        dtype = keras.backend.standardize_dtype(x.dtype)
        gamma, beta = (as_dtype(part, dtype) for part in (self.gamma, self.beta))
        # Not ops.mean, which on JAX averages float64 in float32.
        centred = x - ops.sum(x, axis=-1, keepdims=True) / self.width
        scale = ops.rsqrt(ops.sum(ops.square(centred), axis=-1, keepdims=True) / self.width + self.eps)
        return centred * scale * gamma + beta


class Embedding(Part):
    """A table of rows; ``leaf`` is ``embeddings`` in most places and ``weight`` for words.

    The row ``padding`` is used but not trained, as with PyTorch's ``padding_idx``.
    """

    def __init__(
        self, rows: int, width: int, *, leaf: str = "embeddings", std: float = 0.02, padding: int | None = None
    ) -> None:
        super().__init__()
        self.rows, self.width, self.leaf, self.std, self.padding = rows, width, leaf, std, padding
        self.table: Any = None

    def build(self, make: Make) -> None:
        """Creates the table ``(rows, width)``, which mixed precision does not cast as a whole for a few rows."""
        shape = (self.rows, self.width)
        self.table = self.weights[self.leaf] = make(self.leaf, shape, "normal", self.std, autocast=False)

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids of any shape to ``(..., width)``."""
        rows = rows_of(self.table, ids)
        if self.padding is None or is_portable():
            return rows
        return ops.where(ops.expand_dims(ops.equal(ids, self.padding), -1), ops.stop_gradient(rows), rows)


class Raw(Part):
    """One bare tensor without a layer around it: a class token, a position table, a scale."""

    def __init__(self, shape: Sequence[int], *, std: float = 0.0, value: float = 0.0) -> None:
        super().__init__()
        self.shape, self.std, self.constant = tuple(shape), std, value
        self.value: Any = None

    def build(self, make: Make) -> None:
        """Creates the tensor; its name is the last component of the path it is held under."""
        kind, number = ("normal", self.std) if self.std else ("constant", self.constant)
        self.value = self.weights[""] = make("", self.shape, kind, number)


class Composite:
    """Mixin for layers and models: holds parts and further layers by their place in a checkpoint.

    ``initial`` is ``"random"`` (as transformers initialises), ``"zeros"``, or ``"empty"``: any values, to be filled
    before use. Layers take it over from the one that builds them.
    """

    initial: str = "random"
    name: str
    built: bool
    trainable: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held: dict[str, Any] = {}
        self.variables_held: list[Any] = []
        # A model's own parts, which have no layer around them, for `layers`, a list that only models have.
        self.faces: list[PartLayer] = []

    def __getattr__(self, name: str) -> Any:
        found = found_inside(self, name) if not name.startswith("_") and "held" in vars(self) else NOT_HERE
        if found is not NOT_HERE:
            return found
        above = getattr(super(), "__getattr__", None)
        if above is not None:
            return above(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _track_variables(self) -> None:
        """Keras on PyTorch names parameters by their paths, in which PyTorch takes no dot."""
        import torch

        named = {variable.path.replace(".", "_"): variable.value for variable in self.variables}
        self._torch_params = torch.nn.ParameterDict(named)

    def part(self, path: str, part: Any) -> Any:
        """Holds a part, or a layer made elsewhere, under a path; returns it."""
        self.held[path] = part
        if isinstance(part, Part) and isinstance(self, keras.Model):
            self.faces.append(PartLayer(part, name=path.rpartition("/")[2], dtype=self.dtype_policy))
        return part

    def face(self, part: Part) -> PartLayer:
        """The layer that one of this model's own parts is to others."""
        return next(face for face in self.faces if face.part is part)

    def layer(self, path: str, kind: Callable[..., Any], *args: Any) -> Any:
        """Makes a layer of ``kind``, named after the last component of the path, and holds it; returns it."""
        return self.part(path, kind(*args, name=path.rpartition("/")[2], dtype=self.dtype_policy))

    def stack(self, path: str, count: int, kind: Callable[..., Any], *args: Any) -> list[Any]:
        """Makes ``count`` layers alike under a path, as checkpoints number them; returns them."""
        return [self.layer(f"{path}_._{i}", kind, *args) for i in range(count)]

    def flat_layer(self, path: str, kind: Callable[..., Any], *args: Any) -> Any:
        """Makes a layer of ``kind`` for which checkpoints have no level: holds its parts under the path itself; returns it."""
        made = kind(*args, dtype=self.dtype_policy)
        for inner, part in made.held.items():
            self.part(f"{path}/{inner}", part)
        made.held = {}
        return made

    def build(self, input_shape: Any = None) -> None:
        """Creates all variables, in the order in which the parts were given; does nothing when that is done."""
        del input_shape
        if self.built:
            return
        for path, held in self.held.items():
            *scopes, last = self.scopes(path)
            if isinstance(held, Composite):
                held.initial = self.initial
                with _scopes(scopes):
                    held.build()
            else:
                held.compute_dtype = self.compute_dtype
                with _scopes(scopes if isinstance(held, Raw) else [*scopes, last]):
                    held.build(self._maker(last))
        self.built = True
        for face in self.faces:
            face.build()
        if not self.trainable:  # Locked before there were variables: Keras would train those made since.
            for variable in self.variables_held:
                variable.trainable = False

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """What ``tf.train.Checkpoint`` follows: all weights of a model, which Keras keeps in lists that it does not follow."""
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)  # type: ignore[misc]
        if save_type == "checkpoint" and isinstance(self, keras.Model):
            self.build()
            children = children | self._by_path()
        return children

    def _by_path(self) -> dict[str, Any]:
        # The root is the model's own name, which may differ.
        weights: list[Any] = self.weights
        return {weight.path.partition("/")[2]: weight.value for weight in weights}

    def _lookup_dependency(self, name: str, cached_dependencies: Any = None) -> Any:
        found = super()._lookup_dependency(name, cached_dependencies)  # type: ignore[misc]
        # Asked before there are weights, too, and while they are made: for every layer that a model is given.
        is_asked = found is None and self.built and isinstance(self, keras.Model)
        return self._by_path().get(name) if is_asked else found

    def named(self, path: str, name: str) -> str:
        """The checkpoint name of a variable named ``name`` in the part under a path; ``""`` is a bare one."""
        return f"{path}/{name}" if name else path

    def scopes(self, path: str) -> list[str]:
        """The levels of Keras' paths of variables under a path."""
        return path.split("/")

    def _maker(self, last: str) -> Make:
        def make(
            name: str, shape: tuple[int, ...], kind: str, number: float, autocast: bool = True, trainable: bool = True
        ) -> Any:
            if self.initial == "zeros":
                initializer: Any = "zeros"
            elif self.initial == "empty":
                initializer = empty
            elif kind == "normal":
                initializer = keras.initializers.RandomNormal(stddev=number)
            else:
                initializer = keras.initializers.Constant(number)
            # add_weight would leave the scopes between this layer and the part, and with them the name.
            dtype = self.variable_dtype
            variable = keras.Variable(
                initializer, shape=shape, dtype=dtype, trainable=trainable, autocast=autocast, name=name or last
            )
            self.variables_held.append(variable)
            return variable

        return make


class CompositeLayer(Composite, keras.layers.Layer):
    """A Keras layer that knows its parts."""

    def rematerialized_call(self, layer_call: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """``layer_call`` as Keras calls it inside a ``keras.RematScope``."""
        drops = [part for part in vars(self).values() if isinstance(part, Dropout)]
        seeds = next((drop.seeds for drop in drops if drop.seeds is not None), None)
        remat = super().rematerialized_call
        return rematerialized(layer_call, lambda of_tensors: remat(of_tensors, *args, **kwargs), seeds)


@contextlib.contextmanager
def _scopes(names: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(keras.name_scope(name))
        yield


class Dropout:
    """Drops values in training only; shares one seed generator per tower.

    With ``per_sample`` it drops a whole sample's branch at a time: stochastic depth (https://arxiv.org/abs/1603.09382).
    """

    def __init__(self, rate: float, seeds: Any, *, per_sample: bool = False) -> None:
        self.rate, self.seeds, self.per_sample = rate, seeds, per_sample

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        """``x``, or in training ``x`` with a part set to zero and the rest scaled up."""
        if not training or not self.rate:
            return x
        noise = (ops.shape(x)[0], *(1,) * (len(x.shape) - 1)) if self.per_sample else None
        return keras.random.dropout(x, self.rate, noise_shape=noise, seed=self.seeds)
