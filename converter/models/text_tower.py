"""What all text towers share: how they are called, how they count and mask, and what they refuse."""

from __future__ import annotations

from typing import Any, ClassVar

from converter.errors import ModelError
from converter.models.embeddings import after_padding, consecutive
from converter.models.inputs import as_ids, check_range, seen
from converter.models.masks import mask_bias
from converter.models.tower import Tower

Tensor = Any


class TextTower(Tower):
    """A tower of texts; ``embeddings`` takes ids."""

    side = "text"
    input_fields = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
    counts_after_padding: bool = False
    type_table: ClassVar[bool] = True

    def call(
        self,
        input_ids: Tensor = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Encodes texts.

        Args:
            input_ids: ``(batch, length)``.
            attention_mask: ``(batch, length)``, 1 where a token is, 0 where padding is; None: all are tokens.
            position_ids: ``(batch, length)``; None: counted as the tower counts.
            token_type_ids: ``(batch, length)``; None: all 0.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return hidden states; None: as the config says.
            return_dict: whether to return a ``TowerOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            last_hidden_state ``(batch, length, width)``, pooler_output ``(batch, width)`` and what was requested.

        Raises:
            ModelError: the ids do not fit the config.
        """
        if position_ids is None:
            position_ids = self.count(input_ids)
        x = self.embed(input_ids, position_ids, token_type_ids, attention_mask, training)
        bias = self.beside(input_ids, attention_mask, position_ids, x.dtype)
        x, taps = self.encode(self.before(x), bias, output_attentions, output_hidden_states, training)
        last, pooled = self.finish(x, input_ids, attention_mask)
        return self.answer(last, pooled, taps, return_dict)

    def embed(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        training: bool,
    ) -> Tensor:
        """What the embeddings make of ids."""
        del attention_mask
        return self.embeddings(input_ids, position_ids, token_type_ids, training=training)

    @property
    def pad(self) -> int:
        """The token that positions are counted without, and the position it has."""
        return int(self.config.pad_token_id)

    def count(self, input_ids: Tensor) -> Tensor:
        """Position ids of tokens that came without."""
        if self.counts_after_padding:
            return after_padding(input_ids, self.pad)
        return consecutive(input_ids)

    def beside(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, dtype: Any) -> Any:
        """What every block is given beside the hidden states."""
        del position_ids
        return self.bias(input_ids, attention_mask, dtype)

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor | None:
        """The term added to the attention scores: the lowest number of the dtype where the mask is 0."""
        del input_ids
        return None if attention_mask is None else mask_bias(attention_mask, dtype)

    def before(self, x: Tensor) -> Tensor:
        """What comes between embeddings and the first block."""
        return x

    def finish(self, x: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Last hidden state and pooled output of the last block's output, padding included."""
        del attention_mask
        return self.after(x, input_ids)

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden state and pooled output of the last block's output."""
        del input_ids
        return x, (self.pooler(x) if self.pooler is not None else None)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Ids as int32, of one shape, inside the tables if the values are known."""
        if "input_ids" not in inputs:
            raise ModelError("input_ids is missing. Pass the token ids as (batch, length).")
        ids = {field: as_ids(value, field) for field, value in inputs.items()}
        for field, value in ids.items():
            for axis, (found, wanted) in enumerate(zip(value.shape, ids["input_ids"].shape, strict=True)):
                one_row = field == "position_ids" and axis == 0 and found == 1
                if found is not None and wanted is not None and found != wanted and not one_row:
                    raise ModelError(
                        f"{field} has shape {tuple(value.shape)}; input_ids has {tuple(ids['input_ids'].shape)}. "
                        "Give both the same shape."
                    )
        config = self.config
        self.check_words(ids["input_ids"])
        if "token_type_ids" in ids and self.type_table:
            check_range(ids["token_type_ids"], config.type_vocab_size, "token_type_ids", "type_vocab_size")
        if "position_ids" in ids:
            check_range(ids["position_ids"], config.max_position_embeddings, "position_ids", "max_position_embeddings")
        else:
            self.check_length(ids["input_ids"])
        return ids

    def check_words(self, input_ids: Tensor) -> None:
        """Refuses ids that are no words."""
        check_range(input_ids, self.config.vocab_size, "input_ids", "vocab_size")

    def check_length(self, input_ids: Tensor) -> None:
        """Refuses a text that is longer than the positions reach."""
        length, limit = input_ids.shape[1], self.config.max_position_embeddings
        if self.counts_after_padding:
            limit -= self.pad + 1
            visible = seen(input_ids)
            if visible is not None and visible.size:
                length = int((visible != self.pad).sum(axis=1).max())
        if length is not None and length > limit:
            raise ModelError(
                f"input_ids has {length} tokens in a row; this text tower has positions for {limit} "
                f"(max_position_embeddings = {self.config.max_position_embeddings}). Truncate when tokenizing."
            )
