"""TAPAS (https://arxiv.org/abs/2004.02349): BERT for tables, with seven kinds of token types."""

from __future__ import annotations

from typing import Any

from converter.errors import ModelError
from converter.models.embeddings import TextSpec
from converter.models.towers.bert import EMBEDDINGS, BertTower, bert_embeddings, with_firsts


class TapasTower(BertTower):
    """``tapas``, for texts that are no tables: each token is of type 0 in every kind."""

    main_layer = "tapas"
    type_table = False

    def words(self, config: Any) -> TextSpec:
        """BERT's, with a table for each kind of type before the norm."""
        kinds = {f"types_{kind}": (rows, 1) for kind, rows in enumerate(config.type_vocab_sizes)}
        names = {role: path for role, path in EMBEDDINGS.items() if role != "types"}
        names = with_firsts(names, **{role: f"token_type_embeddings_{i}" for i, role in enumerate(kinds)})
        return bert_embeddings(config, names=names, types=None, firsts=kinds)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Ids without token types, which PyTorch takes by the seven here."""
        if "token_type_ids" in inputs:
            raise ModelError(
                "token_type_ids of TAPAS say where in a table a token stands, by seven ids each; this text tower takes "
                "plain texts. Tokenize without a table, and leave token_type_ids out."
            )
        return super().checked(inputs)
