"""Converts vision-text dual encoders between PyTorch, TensorFlow and Flax checkpoints.

    from converter import convert, pt2tf, tf2pt, inspect, ConverterError

Importing this package imports no framework; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from converter.models import ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from converter.conversion.anywhere import convert
    from converter.conversion.combining import combine
    from converter.conversion.engine import pt2tf, tf2pt
    from converter.conversion.inspection import CheckpointInfo, inspect
    from converter.conversion.result import Conversion
    from converter.errors import ConverterError
    from converter.exporting.export import export
    from converter.exporting.results import Export, ExportVerification
    from converter.exporting.verifying import verify_export
    from converter.fleets.driving import fleet
    from converter.fleets.results import Fleet, FleetTask
    from converter.fleets.running import FleetProgress
    from converter.fleets.status import fleet_status
    from converter.models.auto import AutoTwoTower
    from converter.models.families.altclip import TFAltCLIPModel
    from converter.models.families.chinese_clip import TFChineseCLIPModel
    from converter.models.families.clip import TFCLIPModel
    from converter.models.families.metaclip_2 import TFMetaClip2Model
    from converter.models.families.siglip import TFSiglipModel
    from converter.models.families.siglip2 import TFSiglip2Model
    from converter.models.families.vision_text_dual_encoder import TFVisionTextDualEncoderModel
    from converter.names.listing import Supported, SupportedFamily, SupportedFormat, SupportedTower, towers
    from converter.names.scopes import tf_to_pt_weight_rename
    from converter.parity.options import VerifyOptions
    from converter.parity.verify import Verification, record_reference, verify
    from converter.publishing.publication import Publication
    from converter.publishing.pushing import push

_HOMES = {
    "AutoTwoTower": "converter.models",
    "CheckpointInfo": "converter.conversion.inspection",
    "Conversion": "converter.conversion.result",
    "ConverterError": "converter.errors",
    "Export": "converter.exporting.results",
    "ExportVerification": "converter.exporting.results",
    "Fleet": "converter.fleets.results",
    "FleetProgress": "converter.fleets.running",
    "FleetTask": "converter.fleets.results",
    "Publication": "converter.publishing.publication",
    "Supported": "converter.names.listing",
    "SupportedFamily": "converter.names.listing",
    "SupportedFormat": "converter.names.listing",
    "SupportedTower": "converter.names.listing",
    "TFAltCLIPModel": "converter.models",
    "TFCLIPModel": "converter.models",
    "TFChineseCLIPModel": "converter.models",
    "TFMetaClip2Model": "converter.models",
    "TFSiglip2Model": "converter.models",
    "TFSiglipModel": "converter.models",
    "TFVisionTextDualEncoderModel": "converter.models",
    "Verification": "converter.parity.verify",
    "VerifyOptions": "converter.parity.options",
    "combine": "converter.conversion.combining",
    "convert": "converter.conversion.anywhere",
    "export": "converter.exporting.export",
    "fleet": "converter.fleets.driving",
    "fleet_status": "converter.fleets.status",
    "inspect": "converter.conversion.inspection",
    "pt2tf": "converter.conversion.engine",
    "push": "converter.publishing.pushing",
    "record_reference": "converter.parity.verify",
    "tf2pt": "converter.conversion.engine",
    "verify": "converter.parity.verify",
    "verify_export": "converter.exporting.verifying",
    "tf_to_pt_weight_rename": "converter.names.scopes",
    "towers": "converter.names.listing",
}

__all__ = [
    "AutoTwoTower",
    "CheckpointInfo",
    "Conversion",
    "ConverterError",
    "Export",
    "ExportVerification",
    "Fleet",
    "FleetProgress",
    "FleetTask",
    "Publication",
    "Supported",
    "SupportedFamily",
    "SupportedFormat",
    "SupportedTower",
    "TFAltCLIPModel",
    "TFCLIPModel",
    "TFChineseCLIPModel",
    "TFMetaClip2Model",
    "TFSiglip2Model",
    "TFSiglipModel",
    "TFVisionTextDualEncoderModel",
    "Verification",
    "VerifyOptions",
    "combine",
    "convert",
    "export",
    "fleet",
    "fleet_status",
    "inspect",
    "pt2tf",
    "push",
    "record_reference",
    "tf2pt",
    "tf_to_pt_weight_rename",
    "towers",
    "verify",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# The new places of modules of version 0.1; their old names work for one more version.
_MOVED = {
    f"converter.{old}": f"converter.{wing}.{old}"
    for wing, names in {
        "checkpoints": "memory",
        "conversion": "combining engine inspection plan streams tower_plan writing",
        "folder": "manifest proof sidecars",
        "names": "buffers configs dialects expressions rules scopes",
        "tensors": "casts check layouts moves",
    }.items()
    for old in names.split()
} | {
    "converter.folders": "converter.folder.staging",
    "converter.verification": "converter.parity.files_and_weights",
    "converter.models.dual_encoder": "converter.models.families.vision_text_dual_encoder",
}


class _Moved:
    """Finds modules by their old names, and says the new ones. importlib.abc, which takes 10 ms to import, is not needed."""

    _own_spec: ModuleSpec | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec of the module at its new place; None for everything that did not move."""
        del path, target
        if fullname not in _MOVED:
            return None
        from importlib.util import spec_from_loader

        loader: Loader = self  # type: ignore[assignment]
        return spec_from_loader(fullname, loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, which exists once, under any of its names."""
        new = _MOVED[spec.name]
        warnings.warn(
            f"{spec.name} is called {new} now; the old name goes with the next version", DeprecationWarning, 2
        )
        module = importlib.import_module(new)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do, but to let the module be what it was before it was found by its old name."""
        module.__spec__ = self._own_spec


def _export(model: Any, path: Any, format: str) -> None:
    from converter.exporting.of_models import export_model

    export_model(model, path, format)


def _push(folder: Any, repository: str, **options: Any) -> Publication:
    from converter.publishing.pushing import push as publish

    return publish(folder, repository, **options)


sys.meta_path.append(_Moved())
ports.provide("export", _export)
ports.provide("push", _push)
ports.register_with_keras()
