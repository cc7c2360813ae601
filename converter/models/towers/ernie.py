"""ERNIE (https://arxiv.org/abs/2107.12137): BERT, whose embeddings may have a table of tasks besides."""

from __future__ import annotations

from typing import Any

from converter.models.embeddings import TextSpec
from converter.models.towers.bert import BertTower, bert_embeddings


class ErnieTower(BertTower):
    """``ernie``; every text is of task 0, as in PyTorch's dual encoder, which takes no ``task_type_ids``."""

    main_layer = "ernie"

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the table of tasks before the norm where the config has one."""
        spec = bert_embeddings(config)
        if not config.use_task_id:
            return spec
        norm = spec.names["norm"]
        names = {role: path for role, path in spec.names.items() if role != "norm"}
        names |= {"tasks": "task_type_embeddings", "norm": norm}
        return bert_embeddings(config, names=names, tasks=config.task_type_vocab_size)
