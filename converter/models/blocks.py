"""The encoder block, written once: multi-head attention and MLP, with the norm before (ViT) or after (BERT) each.

"Attention Is All You Need" (https://arxiv.org/abs/1706.03762) after-norm; "An Image is Worth 16x16 Words"
(https://arxiv.org/abs/2010.11929) before-norm. A tower says which by a ``BlockSpec`` and gives its names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from keras import ops

from converter.models.activations import activation
from converter.models.gated_mlp import GATES, gated_mlp
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Part, Raw, in_float32

Tensor = Any
QKV = ("query", "key", "value")


@dataclass(frozen=True)
class Spread:
    """Standard deviations of new kernels in a block."""

    query: float
    out: float
    up: float
    down: float

    @classmethod
    def even(cls, std: float) -> Spread:
        """The same for all, as BERT and ViT have it."""
        return cls(std, std, std, std)


@dataclass(frozen=True)
class BlockSpec:
    """The shape of a block; the fields are those of the configs.

    Args:
        width: of the hidden states.
        heads: number of attention heads.
        inner: width between the two dense layers of the MLP.
        act: name of the activation.
        eps: of the norms.
        norm_first: the norm comes before attention and MLP instead of after the residual.
        names: path of each role, in the order of creation, see ``block_names``.
        spread: standard deviations of new kernels.
        head_width: width of a head; ``width // heads`` when None.
        unbiased: roles of the dense layers that have no bias.
        attention_dropout: on the attention weights.
        hidden_dropout: on the output of attention and, where ``mlp_dropout`` does not say otherwise, of the MLP.
        mlp_dropout: on the output of the MLP.
        drop_path: stochastic depth of either branch.
        layer_scale: initial value of the layer scales, each of which exists where ``names`` has it.
        table: shape of a table of relative positions, which exists where ``names`` has it.
    """

    width: int
    heads: int
    inner: int
    act: str
    eps: float
    norm_first: bool
    names: Mapping[str, str]
    spread: Spread
    head_width: int | None = None
    unbiased: Collection[str] = ()
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    mlp_dropout: float | None = None
    drop_path: float = 0.0
    layer_scale: float = 1.0
    table: tuple[int, int] | None = None


def block_names(**paths: str) -> Mapping[str, str]:
    """The path of each role of a block: query, key, value, out, norm1, up, down, norm2, maybe scale1, scale2, table.

    Where the MLP is gated there is a ``gate`` too, or a ``gate_and_up`` instead of ``up``.
    """
    return MappingProxyType(paths)


def lacking(biases: Mapping[str, bool]) -> list[str]:
    """The roles that have no bias, of those of which a config says whether they have one."""
    return [role for role, there in biases.items() if not there]


class Block(CompositeLayer):
    """One encoder layer; ``call`` returns the new hidden states and, on request, the attention weights.

    In mixed precision the hidden states stay in float32 from block to block, as under PyTorch's autocast, and only
    products are taken in half. A subclass gives the parts of roles that only it has as ``own``.
    """

    # The part that ends each branch, by the kind of layer output that it gives; see ``converter.parity``.
    ends: ClassVar[Mapping[str, str]] = MappingProxyType({"attention_output": "out", "mlp_output": "down"})

    def __init__(
        self, spec: BlockSpec, seeds: Any = None, own: Mapping[str, Part] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.spec = spec
        head = spec.head_width or spec.width // spec.heads
        inside = head * spec.heads
        std = spec.spread
        dense = {
            "query": (spec.width, inside, std.query),
            "key": (spec.width, inside, std.query),
            "value": (spec.width, inside, std.query),
            "out": (inside, spec.width, std.out),
            "up": (spec.width, spec.inner, std.up),
            "gate": (spec.width, spec.inner, std.up),
            "gate_and_up": (spec.width, 2 * spec.inner, std.up),
            "down": (spec.inner, spec.width, std.down),
        }
        parts = {
            **{r: Dense(i, o, bias=r not in spec.unbiased, std=spread) for r, (i, o, spread) in dense.items()},
            "norm1": Norm(spec.width, spec.eps),
            "norm2": Norm(spec.width, spec.eps),
            "scale1": Raw((spec.width,), value=spec.layer_scale),
            "scale2": Raw((spec.width,), value=spec.layer_scale),
            "table": Raw(spec.table or ()),
            **own,
        }
        for role, path in spec.names.items():
            setattr(self, role, self.part(path, parts[role]))
        self.scaled = {role for role in ("scale1", "scale2") if role in spec.names}
        self.gated = any(role in spec.names for role in GATES)
        self.act = partial(in_float32, activation(spec.act))
        self.drop_attention = Dropout(spec.attention_dropout, seeds)
        self.drop_hidden = Dropout(spec.hidden_dropout, seeds)
        self.drop_mlp = Dropout(spec.hidden_dropout if spec.mlp_dropout is None else spec.mlp_dropout, seeds)
        self.drop_path = Dropout(spec.drop_path, seeds, per_sample=True)

    def call(
        self, x: Tensor, bias: Tensor | None = None, output_attentions: bool = False, training: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attention, then MLP, each with its residual.

        Args:
            x: hidden states ``(batch, length, width)``.
            bias: what is added to the attention scores, broadcastable to ``(batch, heads, length, length)``.
            output_attentions: whether to return the attention weights.
            training: whether dropout is on.

        Returns:
            Hidden states of the same shape, and attention weights ``(batch, heads, length, length)`` or None.
        """
        first = self.spec.norm_first
        y, weights = self.attend(self.norm1(x) if first else x, bias, training)
        y = self.drop_hidden(y, training)
        y = self.drop_path(ops.multiply(y, self.scale1.value) if "scale1" in self.scaled else y, training)
        x = ops.add(x, y) if first else self.norm1(x, y)
        y = self.drop_mlp(self.mlp(self.norm2(x) if first else x), training)
        y = self.drop_path(ops.multiply(y, self.scale2.value) if "scale2" in self.scaled else y, training)
        x = ops.add(x, y) if first else self.norm2(x, y)
        return x, (weights if output_attentions else None)

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself; returns its output and the weights."""
        return attention(self, x, x, bias, self.spec.heads, self.drop_attention, training)

    def mlp(self, x: Tensor) -> Tensor:
        """Two dense layers with the activation between them, or with a gate."""
        if self.gated:
            return gated_mlp(self, x)
        # TensorFlow joins a product, its bias and GELU to one kernel of oneDNN, but of matrices only.
        inner = self.act(self.up(ops.reshape(x, (-1, self.spec.width))))
        return self.down(ops.reshape(inner, (*ops.shape(x)[:-1], self.spec.inner)))


def attention(
    parts: Any,
    x: Tensor,
    memory: Tensor,
    bias: Tensor | None,
    heads: int,
    drop: Dropout,
    training: bool = False,
    turn: Callable[[Tensor], Tensor] | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention over heads: ``softmax(q k / sqrt(d) + bias) v``, then the dense ``out``.

    Args:
        parts: an object with the dense parts ``query``, ``key``, ``value`` and ``out``.
        x: what asks, ``(batch, queries, width)``.
        memory: what answers, ``(batch, keys, width)``.
        bias: added to the scores, broadcastable to ``(batch, heads, queries, keys)``.
        heads: number of heads.
        drop: dropout of the weights.
        training: whether dropout is on.
        turn: what is done to query and key ``(batch, length, heads, head)`` before they meet, such as rotation by place.
        scale: what their products are multiplied by, broadcastable to the scores; ``head ** -0.5`` when None.

    Returns:
        The output ``(batch, queries, width)`` and the weights after dropout ``(batch, heads, queries, keys)``.
    """
    rows = ops.reshape(x, (-1, x.shape[-1]))
    known = rows if memory is x else ops.reshape(memory, (-1, memory.shape[-1]))
    query, key, value = parts.query(rows), parts.key(known), parts.value(known)
    inside = query.shape[-1]
    head = inside // heads
    queries, keys = ops.shape(x)[1], ops.shape(memory)[1]
    query, key = ops.reshape(query, (-1, queries, heads, head)), ops.reshape(key, (-1, keys, heads, head))
    if turn is not None:
        query, key = turn(query), turn(key)
    query, key = ops.transpose(query, (0, 2, 1, 3)), ops.transpose(key, (0, 2, 3, 1))
    value = ops.transpose(ops.reshape(value, (-1, keys, heads, head)), (0, 2, 1, 3))
    scores = ops.matmul(query, key)
    factor = head**-0.5 if scale is None else scale
    weights = drop(in_float32(lambda x: biased_softmax(x * factor, bias), scores), training)
    mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    return parts.out(ops.reshape(mixed, (-1, queries, inside))), weights


def by_head(x: Tensor, heads: int) -> Tensor:
    """``(batch, length, width)`` to ``(batch, heads, length, width / heads)``."""
    return ops.transpose(ops.reshape(x, (-1, ops.shape(x)[1], heads, x.shape[-1] // heads)), (0, 2, 1, 3))


def all_heads(x: Tensor) -> Tensor:
    """``(batch, heads, length, head)`` to ``(batch, length, heads * head)``: undoes ``by_head``."""
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, ops.shape(x)[2], x.shape[1] * x.shape[3]))


def biased_softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Weights of scores ``(batch, heads, queries, keys)``, to which ``bias`` is added first."""
    if bias is not None:
        scores = scores + ops.cast(bias, scores.dtype)
    # Keras warns of a softmax over a single score.
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
