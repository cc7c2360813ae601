"""SqueezeBERT (https://arxiv.org/abs/2006.11316): BERT whose dense layers come in groups of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import QKV, Block, BlockSpec, all_heads, biased_softmax, block_names, by_head
from converter.models.grouped import GroupedDense
from converter.models.parts import Part, in_float32
from converter.models.portable import is_portable
from converter.models.towers.bert import POSITIONS_FIRST, BertTower, bert_block, bert_embeddings

Tensor = Any

NAMES = block_names(
    **{role: f"attention/{role}" for role in QKV},
    out="post_attention/conv1d",
    norm1="post_attention/layernorm",
    up="intermediate/conv1d",
    down="output/conv1d",
    norm2="output/layernorm",
)
# The config field that says in how many groups each layer is.
GROUPS = {
    "query": "q_groups",
    "key": "k_groups",
    "value": "v_groups",
    "out": "post_attention_groups",
    "up": "intermediate_groups",
    "down": "output_groups",
}
EPS = 1e-12  # PyTorch's blocks do not look at layer_norm_eps
LOWEST = -3.4028234663852886e38  # of float32, which PyTorch adds where a token is padding


@dataclass(frozen=True, kw_only=True)
class GroupedSpec(BlockSpec):
    """A block whose dense layers come in groups: by role, in how many."""

    groups: tuple[tuple[str, int], ...]


class GroupedBlock(Block):
    """BERT's; what it gives for attention weights are the scores, as PyTorch's does."""

    spec: GroupedSpec

    def __init__(self, spec: GroupedSpec, seeds: Any = None, **kwargs: Any) -> None:
        sizes = dict.fromkeys(GROUPS, (spec.width, spec.width))
        sizes |= {"up": (spec.width, spec.inner), "down": (spec.inner, spec.width)}
        std = spec.spread.query
        own: dict[str, Part] = {r: GroupedDense(*sizes[r], groups, std=std) for r, groups in spec.groups}
        super().__init__(spec, seeds, own, **kwargs)

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself; returns its output and the scores, the mask added."""
        query, key, value = (by_head(getattr(self, role)(x), self.spec.heads) for role in QKV)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * query.shape[-1] ** -0.5
        weights = self.drop_attention(in_float32(lambda x: biased_softmax(x, bias), scores), training)
        seen = scores if bias is None else scores + ops.cast(bias, scores.dtype)
        return self.out(all_heads(ops.matmul(weights, value))), seen


class SqueezeBertTower(BertTower):
    """``squeezebert``."""

    main_layer = "squeezebert"
    listed = "encoder/layers"
    encoder_block = GroupedBlock

    def assemble_blocks(self, config: Any) -> None:
        """The blocks.

        Raises:
            UnsupportedOption: the embeddings are of another width, or a layer's channels cannot be grouped.
        """
        if config.embedding_size != config.hidden_size:
            raise UnsupportedOption(
                f"text_config.embedding_size is {config.embedding_size}, supported is {config.hidden_size}: PyTorch has no map "
                "from one width to the other. Set it to hidden_size."
            )
        for role, field in GROUPS.items():
            groups, sizes = getattr(config, field), {config.hidden_size}
            sizes |= {config.intermediate_size} if role in ("up", "down") else set()
            if groups < 1 or any(size % groups for size in sizes):
                raise UnsupportedOption(
                    f"text_config.{field} is {groups}, which has to divide {' and '.join(map(str, sorted(sizes)))}, the "
                    "channels of the layer. Correct the config."
                )
        super().assemble_blocks(config)

    def words(self, config: Any) -> Any:
        """BERT's, positions before types."""
        return bert_embeddings(config, names=POSITIONS_FIRST)

    def block(self, config: Any) -> GroupedSpec:
        """BERT's, in groups."""
        groups = tuple((role, getattr(config, field)) for role, field in GROUPS.items())
        return GroupedSpec(**vars(bert_block(config, names=NAMES, eps=EPS)), groups=groups)

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor | None:
        """The lowest number of the dtype where the mask is 0, in float32 PyTorch's own, since it is part of what is given."""
        bias = super().bias(input_ids, attention_mask, dtype)
        if bias is None or is_portable() or keras.backend.standardize_dtype(dtype) != "float32":
            return bias
        return ops.where(bias < 0, LOWEST, bias)
