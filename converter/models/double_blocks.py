"""Two blocks side by side that attend with one another's scores (LiLT, https://arxiv.org/abs/2202.13669, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.models.blocks import QKV, Block, BlockSpec, all_heads, biased_softmax, by_head
from converter.models.parts import Dense, Norm, Part, in_float32

Tensor = Any

LAYOUT_QKV = {f"layout_{role}": f"attention/self/layout_{role}" for role in QKV}
LAYOUT_OUT = {"layout_out": "attention/layout_output/dense", "layout_norm1": "attention/layout_output/LayerNorm"}
LAYOUT_MLP = {
    "layout_up": "layout_intermediate/dense",
    "layout_down": "layout_output/dense",
    "layout_norm2": "layout_output/LayerNorm",
}


@dataclass(frozen=True, kw_only=True)
class DoubleSpec(BlockSpec):
    """A block with a second one beside it: its width, and that inside its MLP."""

    narrow: int
    narrow_inner: int


class DoubleBlock(Block):
    """Two of BERT's blocks, ``width`` and ``narrow`` wide, whose hidden states come in one tensor, side by side.

    Both attend with the sum of their scores (section 3.2 of the paper), each to its own values.
    """

    spec: DoubleSpec

    def __init__(self, spec: DoubleSpec, seeds: Any = None, **kwargs: Any) -> None:
        width, inner, std = spec.narrow, spec.narrow_inner, spec.spread.query
        own: dict[str, Part] = {role: Dense(width, width, std=std) for role in (*LAYOUT_QKV, "layout_out")}
        own |= {"layout_up": Dense(width, inner, std=std), "layout_down": Dense(inner, width, std=std)}
        own |= {role: Norm(width, spec.eps) for role in ("layout_norm1", "layout_norm2")}
        super().__init__(spec, seeds, own, **kwargs)

    def call(
        self, x: Tensor, bias: Tensor | None = None, output_attentions: bool = False, training: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``(batch, length, width + narrow)`` to such; weights on request."""
        words, places = x[:, :, : self.spec.width], x[:, :, self.spec.width :]
        scores: Any = 0.0
        for each, roles in ((words, ("query", "key")), (places, ("layout_query", "layout_key"))):
            query, key = (by_head(getattr(self, role)(each), self.spec.heads) for role in roles)
            scores = scores + ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * query.shape[-1] ** -0.5
        weights = in_float32(lambda x: biased_softmax(x, bias), scores)
        seen = self.drop_attention(weights, training)
        y = self.out(all_heads(ops.matmul(seen, by_head(self.value(words), self.spec.heads))))
        words = self.norm1(words, self.drop_hidden(y, training))
        words = self.norm2(words, self.drop_mlp(self.mlp(words), training))
        values = by_head(self.layout_value(places), self.spec.heads)
        y = self.layout_out(all_heads(ops.matmul(self.drop_attention(weights, training), values)))
        places = self.layout_norm1(places, self.drop_hidden(y, training))
        y = self.layout_down(self.act(self.layout_up(places)))
        places = self.layout_norm2(places, self.drop_mlp(y, training))
        return ops.concatenate([words, places], axis=-1), (seen if output_attentions else None)
