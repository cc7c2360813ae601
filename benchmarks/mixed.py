"""Makes a folder of many small checkpoints, of all families and frameworks, ten of which are broken in ten ways."""

from __future__ import annotations

import itertools
import pickle
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from converter import ConverterError, convert
from tests.tiny import MODELS, config_of, tensors_of, write_checkpoint

FRAMEWORKS = ("pt", "tf", "flax")
# A server gives nothing of this one, see fleet_of_300.py.
HANGING = "broken-hangs"


def make(home: Path, count: int) -> Counter[str]:
    """Makes a number of checkpoints, the broken ones among them.

    Args:
        home: a folder that does not exist.
        count: how many; more than ten.

    Returns:
        How many there are of each framework, and of the broken ones.
    """
    kinds: Counter[str] = Counter()
    for number, config in zip(range(count - len(BROKEN)), _configs(), strict=False):
        kinds[_sound(home / f"m{number:03}", config, FRAMEWORKS[number % 3], number)] += 1
    for name, (break_it, _) in BROKEN.items():
        config = config_of()
        tensors = tensors_of(config)
        break_it(write_checkpoint(home / f"broken-{name}", config, tensors), dict(tensors))
        kinds["broken"] += 1
    return kinds


def _configs() -> Iterator[Mapping[str, Any]]:
    """One of each family first, for there are few; then pairs of towers, at equal distances."""
    names = list(MODELS)
    whole, pairs = [name for name in names if "+" not in name], [name for name in names if "+" in name]
    step = next(step for step in itertools.count(7) if len(pairs) % step)
    for name in itertools.chain(whole, (pairs[number * step % len(pairs)] for number in itertools.count())):
        yield MODELS[name]


def _sound(folder: Path, config: Mapping[str, Any], framework: str, seed: int) -> str:
    """Writes one for a framework, or for PyTorch where that one has no such model; without our manifest, as a stranger's."""
    write_checkpoint(folder, config, tensors_of(config, seed=seed))
    other = folder.with_name("converted")
    if framework == "pt":
        return framework
    try:
        convert(folder, other, framework)
    except ConverterError:
        return "pt"
    shutil.rmtree(folder)
    (other / "conversion.json").unlink()
    other.rename(folder)
    return framework


def _truncated(folder: Path, _: dict[str, Any]) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5_000)


def _without_config(folder: Path, _: dict[str, Any]) -> None:
    (folder / "config.json").unlink()


def _not_json(folder: Path, _: dict[str, Any]) -> None:
    (folder / "config.json").write_text("{")


def _another_model(folder: Path, _: dict[str, Any]) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')


def _header(folder: Path, _: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**60) + file.read_bytes()[8:])


def _missing(folder: Path, tensors: dict[str, Any]) -> None:
    del tensors[sorted(tensors)[3]]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _shape(folder: Path, tensors: dict[str, Any]) -> None:
    name = next(name for name in sorted(tensors) if tensors[name].ndim == 2)
    tensors[name] = tensors[name][:, :-1].copy()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle was executed",)


def _pickle(folder: Path, _: dict[str, Any]) -> None:
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Hostile(), 2))
        file.writestr("archive/version", "3\n")


def _bomb(folder: Path, _: dict[str, Any]) -> None:
    (folder / "config.json").write_text("[" + "[]," * 2_700_000 + "[]]")  # 8 MB that take some 250 to read


def _hangs(folder: Path, _: dict[str, Any]) -> None:
    assert folder.name == HANGING


# How each is broken, and a word of the reason that is expected.
BROKEN: dict[str, tuple[Callable[[Path, dict[str, Any]], None], str]] = {
    "truncated": (_truncated, "download or save it again"),
    "no-config": (_without_config, "config.json"),
    "no-json": (_not_json, "not JSON"),
    "gpt2": (_another_model, "gpt2"),
    "header": (_header, "header"),
    "missing": (_missing, "missing"),
    "shape": (_shape, "shape"),
    "pickle": (_pickle, "pickle"),
    "bomb": (_bomb, "bytes of memory, so it was stopped; raise --memory"),
    "hangs": (_hangs, "so it was stopped; raise --deadline"),
}
