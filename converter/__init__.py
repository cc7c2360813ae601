"""Converts vision-text dual encoders between PyTorch and TensorFlow checkpoints.

    from converter import pt2tf, tf2pt, inspect, ConverterError

Importing this package imports no framework; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from converter.models import ports

if TYPE_CHECKING:
    from converter.conversion.combining import combine
    from converter.conversion.engine import Conversion, pt2tf, tf2pt
    from converter.conversion.inspection import CheckpointInfo, inspect
    from converter.errors import ConverterError
    from converter.models.auto import AutoTwoTower
    from converter.models.families.clip import TFCLIPModel
    from converter.models.families.vision_text_dual_encoder import TFVisionTextDualEncoderModel
    from converter.names.scopes import tf_to_pt_weight_rename
    from converter.parity.options import VerifyOptions
    from converter.parity.verify import Verification, record_reference, verify
    from converter.publishing.pushing import Publication, push

_HOMES = {
    "AutoTwoTower": "converter.models",
    "CheckpointInfo": "converter.conversion.inspection",
    "Conversion": "converter.conversion.engine",
    "ConverterError": "converter.errors",
    "Publication": "converter.publishing.pushing",
    "TFCLIPModel": "converter.models",
    "TFVisionTextDualEncoderModel": "converter.models",
    "Verification": "converter.parity.verify",
    "VerifyOptions": "converter.parity.options",
    "combine": "converter.conversion.combining",
    "inspect": "converter.conversion.inspection",
    "pt2tf": "converter.conversion.engine",
    "push": "converter.publishing.pushing",
    "record_reference": "converter.parity.verify",
    "tf2pt": "converter.conversion.engine",
    "verify": "converter.parity.verify",
    "tf_to_pt_weight_rename": "converter.names.scopes",
}

__all__ = [
    "AutoTwoTower",
    "CheckpointInfo",
    "Conversion",
    "ConverterError",
    "Publication",
    "TFCLIPModel",
    "TFVisionTextDualEncoderModel",
    "Verification",
    "VerifyOptions",
    "combine",
    "inspect",
    "pt2tf",
    "push",
    "record_reference",
    "tf2pt",
    "tf_to_pt_weight_rename",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _export(model: Any, path: Any, format: str) -> None:
    from converter.exporting.savedmodel import export_saved_model

    export_saved_model(model, path, format)


ports.provide("export", _export)
ports.register_with_keras()
