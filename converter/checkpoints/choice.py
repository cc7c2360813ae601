"""Decides which files of a repository are one set of weights: safetensors before pickles, never ONNX or duplicates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from converter.checkpoints.detect import LIKE_WEIGHTS, WEIGHTS, other_framework, wrong_framework
from converter.errors import SourceError, listed
from converter.names.frameworks import among, framework_names
from converter.specs import Framework, Wanted


def choose_weights(
    what: str,
    names: Mapping[str, int],
    framework: Wanted,
    framework_of: Callable[[str], Framework],
) -> str:
    """Chooses the weights file, or the index of the shards, for a source.

    Args:
        what: the id, for messages.
        names: sizes of the files on the top level of the repository.
        framework: the wanted framework; for several, or None for all, the first available weights.
        framework_of: the framework of a safetensors file or index, from its header; used only if it matters.

    Raises:
        WrongFramework: only the other framework's weights exist.
        SourceError: there are none that can be read; the message lists what there is instead.
    """
    held: list[Framework] = []
    for side in among(framework):
        for name in WEIGHTS[side]:
            if name in names:
                found = framework_of(name) if "safetensors" in name else side
                if found == side:
                    return name
                held.append(found)
    if framework is not None and (other := next(iter(held), None) or other_framework(names, framework)):
        raise wrong_framework(what, framework, other)
    present = sorted(name for name in names if name.endswith((*LIKE_WEIGHTS, ".onnx", ".safetensors", ".gguf")))
    raise SourceError(
        f"{what}: holds no weights of {framework_names(framework)} that can be read (files that look like weights: "
        f"{listed(present)}); name a model that save_pretrained wrote"
    )
