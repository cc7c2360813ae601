"""jina-embeddings-v3 (https://arxiv.org/abs/2409.10173): XLM-RoBERTa whose positions are rotary, without its adapters."""

from __future__ import annotations

from typing import Any

from converter.errors import UnsupportedOption, printable
from converter.models.blocks import BlockSpec, attention, block_names
from converter.models.embeddings import TextSpec
from converter.models.joint import JointBlock, in_thirds
from converter.models.parts import Dropout, Norm
from converter.models.rotary import text_turn, turned
from converter.models.towers.bert import BertTower, bert_block, bert_embeddings

Tensor = Any

NAMES = block_names(qkv="mixer/Wqkv", out="mixer/out_proj", norm1="norm1", up="mlp/fc1", down="mlp/fc2", norm2="norm2")


class JointRotaryBlock(JointBlock):
    """BERT's, with joint weights and each token turned; what it is given as ``bias`` are the turn and the mask's bias."""

    def attend(self, x: Tensor, bias: Any, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself; returns its output and the weights."""
        turn, mask = bias
        heads, parts = self.spec.heads, in_thirds(self, x)
        return attention(parts, x, x, mask, heads, self.drop_attention, training, turn=lambda x: turned(x, turn))


class JinaEmbeddingsV3Tower(BertTower):
    """``jina_embeddings_v3``."""

    main_layer = "jina_embeddings_v3"
    listed = "encoder/layers"
    encoder_block = JointRotaryBlock

    def assemble(self, config: Any) -> None:
        """Embeddings, their norm, blocks, pooler.

        Raises:
            UnsupportedOption: positions turn in another way than the plain one, or heads cannot be turned.
        """
        said, head = config.rope_parameters, config.hidden_size // config.num_attention_heads
        if said["rope_type"] != "default" or head % 2:
            raise UnsupportedOption(
                f"text_config.rope_parameters has rope_type {printable(repr(said['rope_type']), 40)}, and heads are {head} "
                "wide; supported are 'default' and an even width. Correct the config, or keep this model in PyTorch."
            )
        self.assemble_embeddings(config)
        self.norm = self.part(f"{self.main_layer}/emb_ln", Norm(config.hidden_size, config.layer_norm_eps))
        self.drop = Dropout(config.hidden_dropout_prob, self.seeds)
        self.assemble_encoder(config)

    def words(self, config: Any) -> TextSpec:
        """BERT's words and types; what follows is no part of them."""
        names = {"words": "word_embeddings", "types": "token_type_embeddings"}
        return bert_embeddings(config, names=names, dropout=0.0)

    def block(self, config: Any) -> BlockSpec:
        """BERT's."""
        return bert_block(config, names=NAMES)

    def embed(self, input_ids: Tensor, position_ids: Tensor, *beside: Any) -> Tensor:
        """Words and types, normalised."""
        return self.drop(self.norm(super().embed(input_ids, position_ids, *beside)), beside[-1])

    def beside(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, dtype: Any) -> Any:
        """By how much each token is turned, and the mask's bias."""
        config = self.config
        head, base = config.hidden_size // config.num_attention_heads, config.rope_parameters["rope_theta"]
        return text_turn(position_ids, config.max_position_embeddings, head, base), self.bias(
            input_ids, attention_mask, dtype
        )
