"""Converts vision-text dual encoders between PyTorch and TensorFlow checkpoints.

    from converter import pt2tf, tf2pt, inspect, ConverterError

Importing this package imports no framework; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.combining import combine
    from converter.engine import Conversion, pt2tf, tf2pt
    from converter.errors import ConverterError
    from converter.inspection import CheckpointInfo, inspect
    from converter.models.dual_encoder import TFVisionTextDualEncoderModel
    from converter.parity.outputs import VerifyOptions
    from converter.parity.verify import Verification, record_reference, verify
    from converter.publishing.pushing import Publication, push
    from converter.scopes import tf_to_pt_weight_rename

_HOMES = {
    "CheckpointInfo": "converter.inspection",
    "Conversion": "converter.engine",
    "ConverterError": "converter.errors",
    "Publication": "converter.publishing.pushing",
    "TFVisionTextDualEncoderModel": "converter.models",
    "Verification": "converter.parity.verify",
    "VerifyOptions": "converter.parity.outputs",
    "combine": "converter.combining",
    "inspect": "converter.inspection",
    "pt2tf": "converter.engine",
    "push": "converter.publishing.pushing",
    "record_reference": "converter.parity.verify",
    "tf2pt": "converter.engine",
    "verify": "converter.parity.verify",
    "tf_to_pt_weight_rename": "converter.scopes",
}

__all__ = [
    "CheckpointInfo",
    "Conversion",
    "ConverterError",
    "Publication",
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
