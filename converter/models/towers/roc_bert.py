"""RoCBert (https://aclanthology.org/2022.acl-long.65): BERT that reads the shape and the sound of a character, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense, Embedding, Part
from converter.models.towers.bert import BertTower, bert_embeddings

Tensor = Any

EMBEDDINGS = {
    "words": "word_embeddings",
    "pronunciation": "pronunciation_embed",
    "shape": "shape_embed",
    "positions": "position_embeddings",
    "types": "token_type_embeddings",
    "map": "map_inputs_layer",
    "norm": "LayerNorm",
}


@dataclass(frozen=True, kw_only=True)
class SenseSpec(TextSpec):
    """Embeddings with further tables: by role rows and width, and which of them are read, in order."""

    tables: dict[str, tuple[int, int]]
    read: tuple[str, ...]


class SenseEmbeddings(TextEmbeddings):
    """Word, shape and sound side by side, mapped to the width; shapes and sounds are those of id 0."""

    spec: SenseSpec

    def __init__(self, spec: SenseSpec, seeds: Any = None, **kwargs: Any) -> None:
        tables: dict[str, Part] = {
            role: Embedding(rows, width, std=spec.std, padding=spec.padding)
            for role, (rows, width) in spec.tables.items()
        }
        given = spec.width + sum(spec.tables[role][1] for role in spec.read)
        super().__init__(spec, seeds, {**tables, "map": Dense(given, spec.width, std=spec.std)}, **kwargs)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        x = self.words(input_ids)
        if "map" in self.spec.names:
            first = ops.zeros_like(input_ids)
            told = ops.concatenate([x, *(getattr(self, role)(first) for role in self.spec.read)], axis=-1)
            x = ops.cast(self.map(told), x.dtype)
        x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        return self.drop(self.norm(x + self.positions(position_ids)), training)


class RoCBertTower(BertTower):
    """``roc_bert``; shapes and sounds cannot be given, as in PyTorch's dual encoder, which takes none of their ids."""

    main_layer = "roc_bert"
    embedded = SenseEmbeddings

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the tables of shapes and sounds."""
        names = {role: path for role, path in EMBEDDINGS.items() if role != "map" or config.concat_input}
        tables = {
            role: (getattr(config, f"{role}_vocab_size"), getattr(config, f"{role}_embed_dim"))
            for role in ("pronunciation", "shape")
        }
        read = tuple(role for role in ("shape", "pronunciation") if getattr(config, f"enable_{role}"))
        return SenseSpec(**vars(bert_embeddings(config, names=names)), tables=tables, read=read)
