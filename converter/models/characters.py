"""Texts as characters: hashed embeddings, fewer molecules made of them, and back (CANINE, https://arxiv.org/abs/2103.06874)."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.activations import activation
from converter.models.parts import CompositeLayer, Dropout, Embedding, Make, Norm, Part, as_dtype, in_float32

Tensor = Any

# One for each hash function (section 3.2.1), as PyTorch has them.
PRIMES = (31, 43, 59, 61, 73, 97, 103, 113, 137, 149, 157, 173, 181, 193, 211, 223)
# Of buckets: their number times any prime still is one of 32 bits.
MOST_BUCKETS = 2**31 // max(PRIMES)


def check_hashes(config: Any) -> None:
    """Refuses hashes that PyTorch cannot make, and positions without a row.

    Raises:
        UnsupportedOption: says which field, and what is supported.
    """
    functions, buckets, width = config.num_hash_functions, config.num_hash_buckets, config.hidden_size
    if not 1 <= functions <= len(PRIMES) or width % functions:
        raise UnsupportedOption(
            f"text_config.num_hash_functions is {functions}, supported are 1 to {len(PRIMES)} that divide hidden_size, {width}: "
            "PyTorch has no others. Correct the config."
        )
    if not config.max_position_embeddings <= buckets <= MOST_BUCKETS:
        raise UnsupportedOption(
            f"text_config.num_hash_buckets is {buckets}, supported are {config.max_position_embeddings} (as many as "
            f"max_position_embeddings) to {MOST_BUCKETS}. Correct the config."
        )


class HashedEmbeddings(CompositeLayer):
    """Several hashes of a character, each with a table of its own and side by side, plus position and type, normalised."""

    def __init__(self, config: Any, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std, self.buckets = config.hidden_size, config.initializer_range, config.num_hash_buckets
        self.tables = [
            self.part(
                f"HashBucketCodepointEmbedder_{i}", Embedding(self.buckets, width // config.num_hash_functions, std=std)
            )
            for i in range(config.num_hash_functions)
        ]
        self.positions = self.part("char_position_embeddings", Embedding(self.buckets, width, std=std))
        self.types = self.part("token_type_embeddings", Embedding(config.type_vocab_size, width, std=std))
        self.norm = self.part("LayerNorm", Norm(width, config.layer_norm_eps))
        self.drop = Dropout(config.hidden_dropout_prob, seeds)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)``, of any size, to ``(batch, length, width)``."""
        # Of the remainder, so that no product leaves 32 bits.
        place = ops.mod(input_ids, self.buckets) + 1
        hashed = (ops.mod(place * prime, self.buckets) for prime in PRIMES)
        x = ops.concatenate([table(ids) for table, ids in zip(self.tables, hashed, strict=False)], axis=-1)
        x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        return self.drop(self.norm(x + self.positions(position_ids)), training)


class Convolution(Part):
    """A convolution over the places of a text. Kernel ``(length, in, out)``, where PyTorch keeps ``(out, in, length)``."""

    def __init__(self, inputs: int, outputs: int, length: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.inputs, self.outputs, self.length, self.std = inputs, outputs, length, std
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``kernel (length, in, out)`` and ``bias (out,)``."""
        shape = (self.length, self.inputs, self.outputs)
        self.kernel = self.weights["kernel"] = make("kernel", shape, "normal", self.std)
        self.bias = self.weights["bias"] = make("bias", (self.outputs,), "constant", 0.0)

    def of_windows(self, x: Tensor) -> Tensor:
        """``(batch, places, in)`` to ``(batch, places // length, out)``, a window after another; the rest is cut off."""
        windows = ops.shape(x)[1] // self.length
        rows = ops.reshape(x[:, : windows * self.length], (-1, self.length * self.inputs))
        y = self.product(rows, ops.reshape(self.kernel, (-1, self.outputs)))
        return ops.reshape(self.biased(y), (-1, windows, self.outputs))

    def of_each(self, x: Tensor) -> Tensor:
        """``(batch, places, in)`` to ``(batch, places, out)``: of each place and those around it, 0 beyond either end."""
        places, before = ops.shape(x)[1], (self.length - 1) // 2
        padded = ops.pad(x, ((0, 0), (before, self.length - 1 - before), (0, 0)))
        y = sum(
            self.product(ops.reshape(padded[:, i : i + places], (-1, self.inputs)), self.kernel[i])
            for i in range(self.length)
        )
        return ops.reshape(self.biased(y), (-1, places, self.outputs))

    def product(self, rows: Tensor, kernel: Tensor) -> Tensor:
        """``(rows, a)`` times ``(a, out)``."""
        return ops.matmul(as_dtype(rows, self.compute_dtype), as_dtype(kernel, self.compute_dtype))

    def biased(self, rows: Tensor) -> Tensor:
        """``(rows, out)`` with the bias."""
        return ops.add(rows, as_dtype(self.bias, self.compute_dtype))


class Convolved(CompositeLayer):
    """A convolution of ``length`` over what is ``times`` as wide as the tower, its activation and norm.

    Hidden states stay in their dtype, as in blocks.
    """

    def __init__(self, config: Any, times: int, length: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        width = config.hidden_size
        self.conv = self.part("conv", Convolution(times * width, width, length, std=config.initializer_range))
        self.norm = self.part("LayerNorm", Norm(width, config.layer_norm_eps))
        self.activated = activation(config.hidden_act)


class ToMolecules(Convolved):
    """Each window of characters to one molecule; the first character takes the place of the last molecule, in front."""

    def call(self, x: Tensor) -> Tensor:
        """``(batch, characters, width)`` to ``(batch, molecules, width)``."""
        made = in_float32(self.activated, self.conv.of_windows(x))
        return self.norm(ops.concatenate([x[:, :1], ops.cast(made[:, :-1], x.dtype)], axis=1))


class ToCharacters(Convolved):
    """Characters and the molecules that they are part of, side by side, to characters."""

    def call(self, x: Tensor) -> Tensor:
        """``(batch, characters, 2 width)`` to ``(batch, characters, width)``."""
        return self.norm(ops.cast(in_float32(self.activated, self.conv.of_each(x)), x.dtype))


def spread_out(molecules: Tensor, places: Any, rate: int) -> Tensor:
    """Molecules ``(batch, molecules, width)`` repeated to as many places as a text has, the last as often as is left.

    The first stands for the whole text, and is repeated only where there is no other.
    """
    index = ops.minimum(ops.arange(places, dtype="int32") // rate + 1, ops.shape(molecules)[1] - 1)
    return ops.take(molecules, index, axis=1)


def any_of_windows(mask: Tensor, rate: int) -> Tensor:
    """A mask ``(batch, places)`` to ``(batch, places // rate)``: 1 where any place of a window is."""
    windows = ops.shape(mask)[1] // rate
    return ops.max(ops.reshape(mask[:, : windows * rate], (-1, windows, rate)), axis=2)


def local_bias(places: Any, stride: int, dtype: str) -> Tensor:
    """What is added to scores so that places see those of their own stretch of ``stride`` alone.

    Lower than any mask, because of a stretch that is padding as a whole each place counts the same.

    Returns:
        ``(1, 1, places, places)``.
    """
    stretch = ops.arange(places, dtype="int32") // stride
    same = ops.equal(ops.expand_dims(stretch, 1), ops.expand_dims(stretch, 0))
    zero = ops.zeros((), dtype)
    return ops.expand_dims(ops.where(same, zero, ops.full((), -float("inf"), dtype)), (0, 1))
