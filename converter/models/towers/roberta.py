"""RoBERTa (https://arxiv.org/abs/1907.11692): BERT whose positions count from ``pad_token_id + 1`` and skip padding."""

from __future__ import annotations

from typing import Any

from converter.errors import UnsupportedOption
from converter.models.embeddings import TextSpec
from converter.models.towers.bert import POSITIONS_FIRST, BertTower, bert_embeddings


class RobertaTower(BertTower):
    """``roberta``, ``xlm-roberta``, ``camembert`` and ``data2vec-text``, which differ in their tokenizers only."""

    main_layer = "roberta"
    counts_after_padding = True

    def assemble(self, config: Any) -> None:
        """BERT's parts, the encoder first; ``pad_token_id`` must be known, since positions are counted from it."""
        check_pad(config)
        self.assemble_encoder(config)
        self.assemble_embeddings(config)

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the position of padding untrained too."""
        return bert_embeddings(config, position_padding=config.pad_token_id)


class RobertaInOrder(RobertaTower):
    """RoBERTa's parts in PyTorch's order, embeddings first: for towers that were never there in TensorFlow."""

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, pooler."""
        check_pad(config)
        self.assemble_embeddings(config)
        self.assemble_encoder(config)

    def words(self, config: Any) -> TextSpec:
        """RoBERTa's, positions before types."""
        return bert_embeddings(config, names=POSITIONS_FIRST, position_padding=config.pad_token_id)


def check_pad(config: Any) -> None:
    """Refuses a config without the ``pad_token_id`` that positions are counted from.

    Raises:
        UnsupportedOption: it is not an integer.
    """
    if not isinstance(config.pad_token_id, int):
        raise UnsupportedOption(
            f"{config.model_type} config: pad_token_id is {config.pad_token_id}; positions are counted from it, "
            "so it must be an integer. Set pad_token_id to the tokenizer's."
        )
