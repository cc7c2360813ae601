"""X-MOD (https://arxiv.org/abs/2205.06266): RoBERTa whose blocks end in an adapter of the text's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.errors import UnsupportedOption, listed, printable
from converter.models.blocks import Block, BlockSpec, block_names
from converter.models.parts import Dense, Norm, Part
from converter.models.towers.bert import BLOCK, bert_block
from converter.models.towers.roberta import RobertaInOrder

Tensor = Any


@dataclass(frozen=True, kw_only=True)
class AdaptedSpec(BlockSpec):
    """A block with adapters.

    Args:
        languages: which there are adapters for.
        language: whose adapter runs.
        narrow: width inside an adapter.
        reuses_norm: whether an adapter without its own norm uses that of the MLP.
        adds_normed: an adapter adds to what its norm gave, not to what came before that.
    """

    languages: tuple[str, ...]
    language: str
    narrow: int
    reuses_norm: bool
    adds_normed: bool


class AdaptedBlock(Block):
    """BERT's block with an adapter between the residual of the MLP and the norm."""

    spec: AdaptedSpec

    def __init__(self, spec: AdaptedSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {"adapter_norm": Norm(spec.width, spec.eps)}
        for language in spec.languages:
            own[f"narrow {language}"] = Dense(spec.width, spec.narrow, std=spec.spread.up)
            own[f"widen {language}"] = Dense(spec.narrow, spec.width, std=spec.spread.down)
        super().__init__(spec, seeds, own, **kwargs)
        self.narrow: Any = own[f"narrow {spec.language}"]
        self.widen: Any = own[f"widen {spec.language}"]

    def call(
        self, x: Tensor, bias: Tensor | None = None, output_attentions: bool = False, training: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attention, MLP, adapter; arguments and results are those of ``Block``."""
        first = self.spec.norm_first
        y, weights = self.attend(self.norm1(x) if first else x, bias, training)
        y = self.drop_hidden(y, training)
        x = ops.add(x, y) if first else self.norm1(x, y)
        y = self.drop_mlp(self.mlp(self.norm2(x) if first else x), training)
        x = self.adapt(ops.add(x, y), training)
        return (x if first else self.norm2(x)), (weights if output_attentions else None)

    def adapt(self, x: Tensor, training: bool) -> Tensor:
        """The language adapter's output for ``(batch, length, width)``, with its residual."""
        residual = x
        if "adapter_norm" in self.spec.names:
            x = self.adapter_norm(x)
        elif self.spec.reuses_norm:
            x = self.norm2(x)
        y = self.drop_hidden(self.widen(self.act(self.narrow(x))), training)
        return ops.add(x if self.spec.adds_normed else residual, y)


class XmodTower(RobertaInOrder):
    """``xmod``; all texts are of ``default_language``, since PyTorch's dual encoder takes no ``lang_ids``."""

    main_layer = "xmod"
    encoder_block = AdaptedBlock
    ties_last = True

    def assemble_blocks(self, config: Any) -> None:
        """The blocks; if they have their norms first, one more norm."""
        super().assemble_blocks(config)
        norm = Norm(config.hidden_size, config.layer_norm_eps)
        self.norm = self.part("xmod/encoder/LayerNorm", norm) if config.pre_norm else None

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states, normalised if there is a last norm, and the pooler's view of them."""
        return super().after(x if self.norm is None else self.norm(x), input_ids)

    def block(self, config: Any) -> BlockSpec:
        """BERT's with adapters."""
        languages, language = tuple(config.languages), config.default_language
        if language not in languages:
            raise UnsupportedOption(
                f"xmod config: default_language is {printable(repr(language), 60)}; a dual encoder passes no lang_ids, so "
                f"that it must be one of {listed(languages)}. Set default_language."
            )
        names = {**BLOCK, **({"adapter_norm": "output/adapter_layer_norm"} if config.adapter_layer_norm else {})}
        for place in languages:
            for role, leaf in (("narrow", "dense1"), ("widen", "dense2")):
                names[f"{role} {place}"] = f"output/adapter_modules/{place}/{leaf}"
        return AdaptedSpec(
            **vars(bert_block(config, names=block_names(**names), norm_first=config.pre_norm)),
            languages=languages,
            language=language,
            narrow=config.hidden_size // config.adapter_reduction_factor,
            reuses_norm=config.adapter_reuse_layer_norm,
            adds_normed=config.ln_before_adapter,
        )
