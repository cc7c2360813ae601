"""I-BERT (https://arxiv.org/abs/2101.01321) before it is quantised: RoBERTa with what quantisation keeps beside each weight."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import Block, BlockSpec, block_names
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Part
from converter.models.quantisable import QuantisableDense, QuantisableEmbedding, QuantisableNorm, Range
from converter.models.towers.bert import BLOCK, bert_block, bert_embeddings
from converter.models.towers.roberta import RobertaInOrder

# Where the range of the values is kept, by its prefix.
IN_ATTENTION = ("query_activation", "key_activation", "value_activation", "output_activation", "softmax/act")
IN_EMBEDDINGS = ("embeddings_act1", "embeddings_act2")


def ranges(before: str, *paths: str) -> dict[str, str]:
    """Paths of ranges by their roles, which are the same."""
    return {f"{before}{path}": f"{before}{path}" for path in paths}


def ended(branch: str, dense: str, norm: str) -> dict[str, str]:
    """The dense layer and the norm that end a branch of a block, with their ranges."""
    return {
        dense: f"{branch}/dense",
        **ranges(f"{branch}/", "ln_input_act"),
        norm: f"{branch}/LayerNorm",
        **ranges(f"{branch}/", "LayerNorm/activation", "output_activation"),
    }


EMBEDDINGS = {
    "words": "word_embeddings",
    "types": "token_type_embeddings",
    "positions": "position_embeddings",
    **ranges("", *IN_EMBEDDINGS),
    "norm": "LayerNorm",
    **ranges("", "LayerNorm/activation", "output_activation"),
}
NAMES = {
    **{role: BLOCK[role] for role in ("query", "key", "value")},
    **ranges("attention/self/", *IN_ATTENTION),
    **ended("attention/output", "out", "norm1"),
    "up": "intermediate/dense",
    **ranges("intermediate/", "output_activation"),
    **ended("output", "down", "norm2"),
    **ranges("", "pre_intermediate_act", "pre_output_act"),
}


class IBertEmbeddings(TextEmbeddings):
    """BERT's, each part with what quantisation keeps beside it."""

    def __init__(self, spec: TextSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {role: Range() for role, path in spec.names.items() if role == path}
        tables = {
            "words": (spec.vocabulary, "weight", spec.padding),
            "types": (spec.types or 0, "embeddings", None),
            "positions": (spec.positions, "embeddings", spec.position_padding),
        }
        for role, (rows, leaf, padding) in tables.items():
            own[role] = QuantisableEmbedding(rows, spec.width, leaf=leaf, std=spec.std, padding=padding)
        own["norm"] = QuantisableNorm(spec.width, spec.eps or 0.0)
        super().__init__(spec, seeds, own, **kwargs)


class IBertBlock(Block):
    """BERT's, each part with what quantisation keeps beside it."""

    def __init__(self, spec: BlockSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {role: Range() for role, path in spec.names.items() if role == path}
        sizes = dict.fromkeys(("query", "key", "value", "out"), (spec.width, spec.width))
        sizes |= {"up": (spec.width, spec.inner), "down": (spec.inner, spec.width)}
        own |= {role: QuantisableDense(*size, std=spec.spread.query) for role, size in sizes.items()}
        own |= {role: QuantisableNorm(spec.width, spec.eps) for role in ("norm1", "norm2")}
        super().__init__(spec, seeds, own, **kwargs)


class IBertTower(RobertaInOrder):
    """``ibert`` with ``quant_mode`` off."""

    main_layer = "ibert"
    embedded = IBertEmbeddings
    encoder_block = IBertBlock

    def words(self, config: Any) -> TextSpec:
        """RoBERTa's."""
        return bert_embeddings(config, names=EMBEDDINGS, position_padding=config.pad_token_id)

    def block(self, config: Any) -> BlockSpec:
        """BERT's."""
        return bert_block(config, names=block_names(**NAMES))
