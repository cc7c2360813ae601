"""MobileBERT (https://arxiv.org/abs/2004.02984): thin blocks between bottlenecks, words by threes, norms without statistics."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from converter.errors import UnsupportedOption
from converter.models.blocks import Block, BlockSpec, attention
from converter.models.embeddings import TextSpec
from converter.models.no_norm import NoNorm
from converter.models.parts import Dense, Part
from converter.models.towers.bert import BLOCK, EMBEDDINGS, BertTower, bert_block, bert_embeddings
from converter.models.trigrams import TrigramEmbeddings, TrigramSpec

Tensor = Any

WORDS = {role: EMBEDDINGS[role] for role in ("words", "types", "positions")} | {
    "map": "embedding_transformation",
    "norm": EMBEDDINGS["norm"],
}
BOTTLENECKS = {
    "widen": "output/bottleneck/dense",
    "widen_norm": "output/bottleneck/LayerNorm",
    "thin": "bottleneck/input/dense",
    "thin_norm": "bottleneck/input/LayerNorm",
}
ASKING = {"asking": "bottleneck/attention/dense", "asking_norm": "bottleneck/attention/LayerNorm"}
STACKED = {"up": "intermediate/dense", "down": "output/dense", "norm": "output/LayerNorm"}


@dataclass(frozen=True, kw_only=True)
class ThinSpec(BlockSpec):
    """A block between bottlenecks: the width outside, how many MLPs come before the last, whether values are thin too."""

    outside: int
    stacked: int
    thin_values: bool


class ThinBlock(Block):
    """Narrowed, attention, several MLPs, widened again; the residual spans all of it."""

    spec: ThinSpec

    def __init__(self, spec: ThinSpec, seeds: Any = None, **kwargs: Any) -> None:
        width, outside, std = spec.width, spec.outside, spec.spread.up
        own: dict[str, Part] = {role: Dense(outside, width, std=std) for role in ("thin", "asking")}
        own |= {role: NoNorm(width) for role in ("norm1", "norm2", "thin_norm", "asking_norm")}
        own |= {"widen": Dense(width, outside, std=std), "widen_norm": NoNorm(outside)}
        own["value"] = Dense(width if spec.thin_values else outside, width, std=std)
        for i in range(spec.stacked):
            own |= {f"up_{i}": Dense(width, spec.inner, std=std), f"down_{i}": Dense(spec.inner, width, std=std)}
            own[f"norm_{i}"] = NoNorm(width)
        super().__init__(spec, seeds, own, **kwargs)

    def call(
        self, x: Tensor, bias: Tensor | None = None, output_attentions: bool = False, training: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``(batch, length, outside)`` to such; weights on request."""
        thin = self.thin_norm(self.thin(x))
        asking = thin if self.spec.thin_values else self.asking_norm(self.asking(x))
        y, weights = self.attend_to(asking, thin if self.spec.thin_values else x, bias, training)
        y = self.norm1(y, thin)
        for i in range(self.spec.stacked):
            up, down, norm = (getattr(self, f"{role}_{i}") for role in STACKED)
            y = norm(down(self.act(up(y))), y)
        y = self.norm2(self.mlp(y), y)
        return self.widen_norm(self.drop_hidden(self.widen(y), training), x), (weights if output_attentions else None)

    def attend_to(self, asking: Tensor, known: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Attention of ``asking`` to itself, whose values are those of ``known``, maybe of another width."""
        parts = SimpleNamespace(query=self.query, key=self.key, value=lambda _: self.value(known), out=self.out)
        return attention(parts, asking, asking, bias, self.spec.heads, self.drop_attention, training)


class MobileBertTower(BertTower):
    """``mobilebert``."""

    main_layer = "mobilebert"
    embedded = TrigramEmbeddings
    encoder_block = ThinBlock

    def assemble(self, config: Any) -> None:
        """BERT's parts; a block's queries are of the width of the bottleneck.

        Raises:
            UnsupportedOption: they would not be.
        """
        if not (config.key_query_shared_bottleneck or config.use_bottleneck_attention):
            raise UnsupportedOption(
                "text_config.key_query_shared_bottleneck is False, supported is True, or False with "
                "use_bottleneck_attention: PyTorch's queries have no layer of that width. Correct the config."
            )
        super().assemble(config)

    def words(self, config: Any) -> TextSpec:
        """BERT's, narrow and by threes."""
        own = {"narrow": config.embedding_size, "by_threes": config.trigram_input}
        return TrigramSpec(**vars(bert_embeddings(config, names=WORDS)), **own)

    def block(self, config: Any) -> BlockSpec:
        """BERT's, of the bottleneck's width, with the bottlenecks and the MLPs before the last behind it."""
        stacked = config.num_feedforward_networks - 1
        names = {**BLOCK, **BOTTLENECKS, **(ASKING if config.key_query_shared_bottleneck else {})}
        for i in range(stacked):
            names |= {f"{role}_{i}": f"ffn.{i}/{path}" for role, path in STACKED.items()}
        plain = bert_block(config, width=config.intra_bottleneck_size, names=names)
        own = {"outside": config.hidden_size, "stacked": stacked, "thin_values": config.use_bottleneck_attention}
        return ThinSpec(**vars(plain), **own)

    def assemble_pooler(self, config: Any) -> None:
        """BERT's, where the config has one."""
        if config.classifier_activation:
            super().assemble_pooler(config)

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states and the pooler's view of them; the first token itself where the config has no pooler."""
        last, pooled = super().after(x, input_ids)
        return last, (x[:, 0] if self.add_pooling_layer and not self.config.classifier_activation else pooled)
