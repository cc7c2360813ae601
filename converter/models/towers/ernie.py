"""ERNIE (https://arxiv.org/abs/2107.12137): BERT, whose embeddings may have a table of tasks besides."""

from __future__ import annotations

from typing import Any

from converter.models.embeddings import TextSpec
from converter.models.towers.bert import EMBEDDINGS, BertTower, bert_embeddings, with_firsts


class ErnieTower(BertTower):
    """``ernie``; every text is of task 0, as in PyTorch's dual encoder, which takes no ``task_type_ids``."""

    main_layer = "ernie"

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the table of tasks before the norm where the config has one."""
        if not config.use_task_id:
            return bert_embeddings(config)
        names = with_firsts(EMBEDDINGS, tasks="task_type_embeddings")
        return bert_embeddings(config, names=names, firsts={"tasks": (config.task_type_vocab_size, 1)})
