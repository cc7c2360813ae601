"""BigBird (https://arxiv.org/abs/2007.14062): BERT for long texts; short ones see all of themselves, as in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converter.errors import ModelError, UnsupportedOption
from converter.models.activations import tanh
from converter.models.blocks import QKV, BlockSpec
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense
from converter.models.towers.bert import POSITIONS_FIRST, BertTower, bert_block, bert_embeddings

Tensor = Any

KINDS = ("block_sparse", "original_full")


@dataclass(frozen=True, kw_only=True)
class ScaledSpec(TextSpec):
    """Embeddings whose words are multiplied by a number."""

    scale: float


class BigBirdEmbeddings(TextEmbeddings):
    """BERT's, normalised after dropout."""

    spec: ScaledSpec

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        x = self.words(input_ids) * self.spec.scale
        x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        return self.norm(self.drop(x + self.positions(position_ids), training))


class BigBirdTower(BertTower):
    """``big_bird``."""

    main_layer = "big_bird"
    embedded = BigBirdEmbeddings

    def assemble(self, config: Any) -> None:
        """BERT's parts; PyTorch has no third kind of attention."""
        if config.attention_type not in KINDS:
            raise UnsupportedOption(
                f"text_config.attention_type is {config.attention_type!r}, supported is {' or '.join(map(repr, KINDS))}."
            )
        super().assemble(config)

    def words(self, config: Any) -> TextSpec:
        """BERT's, positions before types."""
        scale = config.hidden_size**0.5 if config.rescale_embeddings else 1.0
        return ScaledSpec(**vars(bert_embeddings(config, names=POSITIONS_FIRST)), scale=scale)

    def block(self, config: Any) -> BlockSpec:
        """BERT's, maybe without biases of query, key and value."""
        return bert_block(config, unbiased=() if config.use_bias else QKV)

    def assemble_pooler(self, config: Any) -> None:
        """One dense layer."""
        width = config.hidden_size
        self.pooler = self.part("big_bird/pooler", Dense(width, width, std=config.initializer_range))

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states; the first token through the pooler."""
        del input_ids
        return x, (tanh(self.pooler(x[:, 0])) if self.pooler is not None else None)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Refuses texts of which PyTorch's attention sees only some blocks, chosen at random in training."""
        ids = super().checked(inputs)
        config, length = self.config, ids["input_ids"].shape[1]
        limit = (5 + 2 * config.num_random_blocks) * config.block_size
        reach = config.max_position_embeddings if length is None else length
        if config.attention_type == "block_sparse" and reach > limit:
            found = f"{length} tokens in a row" if length is not None else f"any length up to {reach} in this graph"
            raise ModelError(
                f"input_ids has {found}; beyond {limit} BigBird's attention_type 'block_sparse' sees some blocks only, "
                "which is not supported. Truncate when tokenizing, fix the length of a graph, or set attention_type "
                "to 'original_full' on both sides."
            )
        return ids
