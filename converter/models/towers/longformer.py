"""Longformer (https://arxiv.org/abs/2004.05150): RoBERTa for long texts, whose tokens see their neighbours only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.errors import ModelError, UnsupportedOption
from converter.models.blocks import Block, BlockSpec, block_names
from converter.models.inputs import seen
from converter.models.parts import Dense, Part
from converter.models.sliding import sliding_attention
from converter.models.towers.bert import BLOCK, bert_block
from converter.models.towers.roberta import RobertaTower, check_pad

Tensor = Any

GLOBAL = {f"{role}_global": f"attention/self/{role}_global" for role in ("query", "key", "value")}


@dataclass(frozen=True, kw_only=True)
class SlidingSpec(BlockSpec):
    """A block whose tokens see those at most ``reach`` away."""

    reach: int


class LongformerBlock(Block):
    """BERT's block with a window, whose ``bias`` is the mask; keeps the dense layers of global tokens, which none is."""

    spec: SlidingSpec

    def __init__(self, spec: SlidingSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {role: Dense(spec.width, spec.width, std=spec.spread.query) for role in GLOBAL}
        super().__init__(spec, seeds, own, **kwargs)

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Attention of each token to those around it."""
        return sliding_attention(self, x, bias, self.spec.reach, self.spec.heads, self.drop_attention, training)


class LongformerTower(RobertaTower):
    """``longformer``; no token is global, as in PyTorch's dual encoder, which takes no ``global_attention_mask``."""

    main_layer = "longformer"

    def assemble(self, config: Any) -> None:
        """RoBERTa's parts, the embeddings first."""
        check_pad(config)
        self.assemble_embeddings(config)
        self.assemble_encoder(config)

    def assemble_blocks(self, config: Any) -> None:
        """Blocks, each with its window."""
        plain = vars(self.block(config))
        self.blocks = [
            self.layer(
                f"longformer/encoder/layer_._{i}", LongformerBlock, SlidingSpec(**plain, reach=window // 2), self.seeds
            )
            for i, window in enumerate(windows(config))
        ]

    def block(self, config: Any) -> BlockSpec:
        """BERT's, with the dense layers of global tokens behind query, key and value."""
        first = ("query", "key", "value")
        paths = {role: BLOCK[role] for role in first} | GLOBAL
        names = block_names(**paths, **{role: path for role, path in BLOCK.items() if role not in first})
        return bert_block(config, names=names)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Refuses a mask that makes tokens global, as PyTorch reads every number above 1."""
        ids = super().checked(inputs)
        mask = seen(ids["attention_mask"]) if "attention_mask" in ids else None
        if mask is not None and mask.size and mask.max() > 1:
            raise ModelError(
                f"attention_mask holds {mask.max()}; numbers above 1 make tokens of Longformer global, which is not "
                "supported. Pass 1 where a token is and 0 where padding is."
            )
        return ids

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor:
        """The mask; blocks know their windows."""
        del dtype
        return ops.ones_like(input_ids) if attention_mask is None else attention_mask


def windows(config: Any) -> list[int]:
    """The window of every block: even numbers from 4 on, one for each, since PyTorch fails with a window of 2.

    Raises:
        UnsupportedOption: they are not that.
    """
    given, count = config.attention_window, config.num_hidden_layers
    found = [given] * count if isinstance(given, int) else list(given)
    if len(found) != count or any(not isinstance(window, int) or window < 4 or window % 2 for window in found):
        raise UnsupportedOption(
            f"text_config.attention_window is {given}, supported is an even number from 4 on, or one for each of "
            f"the {count} layers, as in PyTorch. Correct the config."
        )
    return found
