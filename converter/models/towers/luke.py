"""LUKE (https://arxiv.org/abs/2010.01057): RoBERTa with entities, which the texts of a dual encoder do not have."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import Block, BlockSpec, block_names
from converter.models.parts import Dense, Embedding, Norm, Part
from converter.models.towers.bert import BLOCK, bert_block
from converter.models.towers.roberta import RobertaInOrder

AWARE = {f"{role}_query": f"attention/self/{role}_query" for role in ("w2e", "e2w", "e2e")}


class LukeBlock(Block):
    """BERT's block that also keeps the queries between words and entities, which texts here do not need."""

    def __init__(self, spec: BlockSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {role: Dense(spec.width, spec.width, std=spec.spread.query) for role in AWARE}
        super().__init__(spec, seeds, own, **kwargs)


class LukeTower(RobertaInOrder):
    """``luke``; no entities are given, as in PyTorch's dual encoder, which takes no ``entity_ids``."""

    main_layer = "luke"
    encoder_block = LukeBlock

    def assemble_embeddings(self, config: Any) -> None:
        """RoBERTa's, and what is kept for the checkpoint's sake: the embeddings of entities."""
        super().assemble_embeddings(config)
        width, narrow = config.hidden_size, config.entity_emb_size
        parts: dict[str, Part] = {"entity_embeddings": Embedding(config.entity_vocab_size, narrow)}
        if narrow != width:
            parts["entity_embedding_dense"] = Dense(narrow, width, bias=False)
        parts["position_embeddings"] = Embedding(config.max_position_embeddings, width)
        parts["token_type_embeddings"] = Embedding(config.type_vocab_size, width)
        parts["LayerNorm"] = Norm(width, config.layer_norm_eps)
        for path, part in parts.items():
            self.part(f"luke/entity_embeddings/{path}", part)

    def block(self, config: Any) -> BlockSpec:
        """BERT's, with the queries between words and entities behind query, key and value."""
        aware, first = AWARE if config.use_entity_aware_attention else {}, ("query", "key", "value")
        paths = {role: BLOCK[role] for role in first} | aware
        names = block_names(**paths, **{role: path for role, path in BLOCK.items() if role not in first})
        return bert_block(config, names=names)
