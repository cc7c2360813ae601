"""Sapiens 2: DINOv3 with RMS norms, of query and key too, and with fewer keys than queries in the middle layers.

Fewer keys: https://arxiv.org/abs/2305.13245. Norms of query and key: https://arxiv.org/abs/2010.04245.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from keras import ops

from converter.models.blocks import BlockSpec, attention, block_names, lacking
from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.parts import Dense
from converter.models.rms_norm import RMSBlock, RMSNorm
from converter.models.rotary import turned
from converter.models.towers.dinov3_vit import DINOv3ViTTower
from converter.models.towers.vit import vit_block, vit_images

Tensor = Any

NORMS = {"query_norm": "attn/q_norm", "key_norm": "attn/k_norm"}


class GroupedBlock(RMSBlock):
    """A block in which several heads of queries share a head of keys and values, each turned by its place."""

    def __init__(self, spec: BlockSpec, groups: int, seeds: Any = None, **kwargs: Any) -> None:
        head, std = spec.width // spec.heads, spec.spread.query
        self.head, self.groups = head, groups
        shared = {
            role: Dense(spec.width, head * groups, bias=role not in spec.unbiased, std=std) for role in ("key", "value")
        }
        super().__init__(spec, seeds, {**shared, **{role: RMSNorm(head, spec.eps) for role in NORMS}}, **kwargs)

    def attend(self, x: Tensor, bias: Any, training: bool) -> tuple[Tensor, Tensor]:
        """Attention of ``x`` to itself; ``bias`` is the turn, and nothing is added to scores."""
        parts = SimpleNamespace(
            query=lambda rows: self.normed(self.query(rows), "query_norm"),
            key=lambda rows: self.shared(self.normed(self.key(rows), "key_norm")),
            value=lambda rows: self.shared(self.value(rows)),
            out=self.out,
        )
        drop, heads = self.drop_attention, self.spec.heads
        return attention(parts, x, x, None, heads, drop, training, turn=lambda each: turned(each, bias))

    def normed(self, x: Tensor, role: str) -> Tensor:
        """``(rows, heads * head)`` with each head normed, where the tower does that."""
        if role not in self.spec.names:
            return x
        return ops.reshape(getattr(self, role)(ops.reshape(x, (-1, x.shape[-1] // self.head, self.head))), ops.shape(x))

    def shared(self, x: Tensor) -> Tensor:
        """``(rows, groups * head)`` to ``(rows, heads * head)``: each group once for every head that asks it."""
        times = self.spec.heads // self.groups
        if times == 1:
            return x
        return ops.reshape(
            ops.repeat(ops.reshape(x, (-1, self.groups, self.head)), times, axis=1), (-1, self.spec.width)
        )


def names_of(config: Any) -> Any:
    """The block's names, with the norms that the config says it has."""
    return block_names(
        norm1="ln1",
        query="attn/wq",
        out="attn/proj",
        key="attn/wk",
        value="attn/wv",
        **(NORMS if config.use_qk_norm else {}),
        scale1="attn/gamma/weight",
        norm2="ln2",
        gate_and_up="ffn/w12",
        down="ffn/w3",
    )


class Sapiens2Tower(DINOv3ViTTower):
    """``sapiens2``; pooled at the class token after the norm."""

    main_layer = "sapiens2"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        mask = {"mask_token": "embeddings/mask_token"} if config.use_mask_token else {}
        names = {"token": "cls_token", "registers": "storage_tokens", "patches": "patch_embed/projection", **mask}
        images = vit_images(config, names=names, mask_rank=3, registers=config.num_register_tokens)
        biases = {
            "query": config.query_bias,
            "key": config.key_bias,
            "value": config.value_bias,
            "out": config.proj_bias,
            **dict.fromkeys(("gate_and_up", "down"), config.mlp_bias),
        }
        block = vit_block(
            config,
            eps=config.rms_norm_eps,
            names=names_of(config),
            unbiased=lacking(biases),
            attention_dropout=config.attention_dropout,
            drop_path=config.drop_path_rate,
            layer_scale=config.layerscale_value,
        )
        self.embeddings = self.flat_layer("sapiens2", ResizedImageEmbeddings, images, self.seeds)
        self.blocks = [
            self.layer(f"sapiens2/blocks_._{i}", GroupedBlock, block, groups, self.seeds)
            for i, groups in enumerate(config.num_key_value_heads_per_layer)
        ]
        self.norm = self.part("sapiens2/ln1", RMSNorm(config.hidden_size, config.rms_norm_eps))
