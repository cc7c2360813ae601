"""Words by threes ("MobileBERT", https://arxiv.org/abs/2004.02984, section 3.1): narrow embeddings, widened with those beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.no_norm import NoNorm
from converter.models.parts import Dense, Embedding, Part

Tensor = Any


@dataclass(frozen=True, kw_only=True)
class TrigramSpec(TextSpec):
    """Embeddings whose words have a separate width, and whether each comes with its neighbours."""

    narrow: int
    by_threes: bool


class TrigramEmbeddings(TextEmbeddings):
    """Each word between the next and the last one, mapped to the width; unmapped if nothing is widened."""

    spec: TrigramSpec

    def __init__(self, spec: TrigramSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {
            "words": Embedding(spec.vocabulary, spec.narrow, leaf="weight", std=spec.std, padding=spec.padding),
            "map": Dense(spec.narrow * (3 if spec.by_threes else 1), spec.width, std=spec.std),
            "norm": NoNorm(spec.width),
        }
        super().__init__(spec, seeds, own, **kwargs)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        x = self.words(input_ids)
        if self.spec.by_threes:
            none = ops.zeros_like(x[:, :1])
            behind, before = ops.concatenate([x[:, 1:], none], axis=1), ops.concatenate([none, x[:, :-1]], axis=1)
            x = ops.concatenate([behind, x, before], axis=2)
        if self.spec.by_threes or self.spec.narrow != self.spec.width:
            x = ops.cast(self.map(x), x.dtype)
        x = x + self.positions(position_ids)
        x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        return self.drop(self.norm(x), training)
