"""Knows quantised weights by the names beside them and by what config.json says, and names the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from converter.errors import PlanError, printable
from converter.folder.sidecars import QUANTISING
from converter.names.rule_files import SIDES
from converter.specs import Checkpoint

# Quantisers of transformers 4.57.6 that have a dequantize(); load_in_4bit and load_in_8bit also mean the first.
UNDONE = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "higgs")
QUANTISED = "the weights are quantised; dequantise them and save again"
_QUANTISED_NAME = re.compile(
    r"\.(SCB|absmax|quant_map|nested_absmax|quant_state\..*|qweight|qzeros|scales|g_idx|weight_format|weight_scale(_inv)?"
    r"|input_scale|_packed_params.*|zero_point)$"
)


def is_quantised(names: Iterable[str]) -> bool:
    """Whether some names are those that quantisers store beside the weights."""
    return any(_QUANTISED_NAME.search(name) for name in names)


def quantised(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> PlanError | None:
    """The error of weights that their config, or a section of it, says to be quantised; None where none does."""
    sections = {"": raw, **{f"{side}_config.": raw.get(f"{side}_config") for side in SIDES}}
    held = {name: config.get(QUANTISING) for name, config in sections.items() if isinstance(config, Mapping)}
    section, said = next(((name, value) for name, value in held.items() if value), ("", None))
    if said is None:
        return None
    where = checkpoint.files[0] if checkpoint.files else checkpoint.container
    method = said.get("quant_method") if isinstance(said, dict) else None
    way = "load the model, torch.save(model.dequantize().state_dict(), FILE), and convert FILE with --config of this config.json"
    if section:
        tower = f"model.{section.removesuffix('_config.')}_model"
        way = (
            f"where it was made, call {tower}.dequantize(), torch.save(model.state_dict(), FILE), and convert FILE with "
            "--config of this config.json"
        )
    if method is not None and method not in UNDONE:
        way = f"transformers 4.57.6 cannot dequantise {printable(repr(method), 40)}; convert the checkpoint from before it"
    return PlanError(
        f"{where}: the weights are quantised ({section}{QUANTISING} in config.json) and have other names and shapes; {way}"
    )
