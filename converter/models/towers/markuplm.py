"""MarkupLM (https://arxiv.org/abs/2110.08518): RoBERTa that reads the place of a word in a document's tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense, Embedding, Part
from converter.models.towers.bert import bert_embeddings
from converter.models.towers.roberta import RobertaInOrder

Tensor = Any

PATHS = {"unused": "xpath_unitseq2_embeddings", "inner": "xpath_unitseq2_inner", "outer": "inner2emb"}
STEPS = {"tag": "xpath_tag_sub_embeddings", "sub": "xpath_subs_sub_embeddings"}


@dataclass(frozen=True, kw_only=True)
class PathSpec(TextSpec):
    """Embeddings with paths: their number of steps, the width of one, rows and padding of the two tables of a step."""

    depth: int
    narrow: int
    rows: dict[str, int]
    pads: dict[str, int]


class PathEmbeddings(TextEmbeddings):
    """BERT's, with the path of a word added; each step of it is padding."""

    spec: PathSpec

    def __init__(self, spec: PathSpec, seeds: Any = None, **kwargs: Any) -> None:
        given, inner = spec.depth * spec.narrow, 4 * spec.width
        steps: dict[str, Part] = {
            f"{role}_{step}": Embedding(spec.rows[role], spec.narrow, std=spec.std)
            for role in STEPS
            for step in range(spec.depth)
        }
        maps = {"unused": (given, spec.width), "inner": (given, inner), "outer": (inner, spec.width)}
        dense: dict[str, Part] = {role: Dense(*shape, std=spec.std) for role, shape in maps.items()}
        super().__init__(spec, seeds, {**dense, **steps}, **kwargs)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        x = self.words(input_ids) + self.positions(position_ids)
        x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        return self.drop(self.norm(x + ops.cast(self.path(ops.shape(input_ids), training), x.dtype)), training)

    def path(self, shape: Any, training: bool) -> Tensor:
        """The embedding of a path of padding; in training, where values are dropped, one for each word."""
        tags, subs = (
            ops.concatenate(
                [getattr(self, f"{role}_{step}").table[self.spec.pads[role]] for step in range(self.spec.depth)],
                axis=-1,
            )
            for role in STEPS
        )
        inner = ops.relu(self.inner((tags + subs)[None, None]))
        if training:
            inner = ops.broadcast_to(inner, (*shape, inner.shape[-1]))
        return self.outer(self.drop(inner, training))


class MarkupLMTower(RobertaInOrder):
    """``markuplm``; paths cannot be given, as in PyTorch's dual encoder, which takes no ``xpath_tags_seq``."""

    main_layer = "markuplm"
    embedded = PathEmbeddings

    def words(self, config: Any) -> TextSpec:
        """RoBERTa's, with the tables of paths between positions and types."""
        names = {"words": "word_embeddings", "positions": "position_embeddings"}
        names |= {role: f"xpath_embeddings/{path}" for role, path in PATHS.items()}
        for role, path in STEPS.items():
            names |= {f"{role}_{step}": f"xpath_embeddings/{path}_._{step}" for step in range(config.max_depth)}
        names |= {"types": "token_type_embeddings", "norm": "LayerNorm"}
        return PathSpec(
            **vars(bert_embeddings(config, names=names, position_padding=config.pad_token_id)),
            depth=config.max_depth,
            narrow=config.xpath_unit_hidden_size,
            rows={"tag": config.max_xpath_tag_unit_embeddings, "sub": config.max_xpath_subs_unit_embeddings},
            pads={"tag": config.tag_pad_id, "sub": config.subs_pad_id},
        )
