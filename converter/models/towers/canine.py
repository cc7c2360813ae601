"""CANINE (https://arxiv.org/abs/2103.06874): BERT of characters; most blocks see molecules of several characters."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.errors import ModelError
from converter.models.blocks import Block
from converter.models.characters import (
    HashedEmbeddings,
    ToCharacters,
    ToMolecules,
    any_of_windows,
    check_hashes,
    local_bias,
    spread_out,
)
from converter.models.masks import mask_bias
from converter.models.parts import Dropout
from converter.models.tower import asked
from converter.models.towers.bert import BertTower

Tensor = Any


class CanineTower(BertTower):
    """``canine``; the pooled output is that of molecules, so that what follows them is not trained with it."""

    main_layer = "canine"

    def assemble(self, config: Any) -> None:
        """Embeddings, a block of characters, molecules, their blocks, characters again, a block of these, pooler.

        Raises:
            UnsupportedOption: PyTorch could not run with such a config.
        """
        check_hashes(config)
        layer, seeds = self.layer, self.seeds
        self.embeddings = layer("canine/char_embeddings", HashedEmbeddings, config, seeds)
        self.first = layer("canine/initial_char_encoder/layer_._0", Block, self.block(config), seeds)
        self.down = layer("canine/chars_to_molecules", ToMolecules, config, 1, config.downsampling_rate)
        self.assemble_blocks(config)
        self.up = layer("canine/projection", ToCharacters, config, 2, config.upsampling_kernel_size)
        self.drop = Dropout(config.hidden_dropout_prob, seeds)
        self.last = layer("canine/final_char_encoder/layer_._0", Block, self.block(config), seeds)
        if self.add_pooling_layer:
            self.assemble_pooler(config)

    def check_words(self, input_ids: Tensor) -> None:
        """Nothing: every number has a hash."""
        del input_ids

    def check_length(self, input_ids: Tensor) -> None:
        """Refuses a text too long for the positions, and one too short for a molecule."""
        super().check_length(input_ids)
        length, least = input_ids.shape[1], self.config.downsampling_rate
        if length is not None and length < least:
            raise ModelError(
                f"input_ids has {length} characters in a row; this text tower makes one molecule of {least} "
                f"(downsampling_rate = {least}). Pad to that length."
            )

    def beside(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, dtype: Any) -> Any:
        """What is added to the scores of the first block, of molecules, and of the last block."""
        del position_ids
        mask, molecules = self.bias(input_ids, attention_mask, dtype), None
        if attention_mask is not None:
            molecules = mask_bias(any_of_windows(attention_mask, self.config.downsampling_rate), dtype)
        local = local_bias(ops.shape(input_ids)[1], self.config.local_transformer_stride, dtype)
        return (local if mask is None else mask + local), molecules, mask

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The blocks of characters and of molecules.

        Returns:
            Characters and molecules, and the requested states and maps; of the first block's attention only that of the
            first stretch, as in PyTorch.
        """
        config, (local, between, whole) = self.config, bias
        attentions = asked(output_attentions, config, "output_attentions")
        hidden = asked(output_hidden_states, config, "output_hidden_states")
        how = (attentions, hidden, training)
        x, states, maps = self.through([self.first], x, local, *how)
        molecules, deep, seen = self.through(self.blocks, self.down(x), between, *how)
        repeated = spread_out(molecules, ops.shape(x)[1], config.downsampling_rate)
        y = self.drop(self.up(ops.concatenate([x, repeated], axis=-1)), training)
        y, last, at_last = self.through([self.last], y, whole, *how)
        stride = config.local_transformer_stride
        maps = [each[:, :, :stride, :stride] for each in maps]
        return (y, molecules), {
            "hidden_states": (*states, *deep, *last) if hidden else None,
            "attentions": (*maps, *seen, *at_last) if attentions else None,
        }

    def finish(self, x: Any, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Characters, and the first molecule pooled."""
        del input_ids, attention_mask
        characters, molecules = x
        return characters, (self.pooler(molecules) if self.pooler is not None else None)
