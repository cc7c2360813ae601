"""A checkpoint large enough to be killed in the middle of, in every container that is read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter import combine, pt2tf, tf2pt
from tests.compat.towers import FAMILIES
from tests.hdf5_files import read_all, write_h5
from tests.tiny import config_of, tensors_of, write_checkpoint

LARGE = {"vocab_size": 100_000, "intermediate_size": 20_000}  # 33 MB, a third of which changes its layout
SHARD = "8MB"


@dataclass(frozen=True)
class Case:
    """A conversion: what it reads, and the command line without sources and OUT."""

    command: str
    source: str
    options: tuple[str, ...]

    @property
    def proved(self) -> bool:
        """Whether ``verify`` can tell from the weights alone that the output is whole; new projections have no source."""
        return self.command != "combine"

    def words(self, folder: Path, out: Path) -> list[str]:
        """The command line, with the sources below a folder."""
        return [self.command, *(str(folder / name) for name in self.source.split()), str(out), *self.options]

    def convert(self, folder: Path, out: Path, **more: Any) -> None:
        """The same in this process."""
        named = {"--format": "format", "--max-shard-size": "max_shard_size", "--to": "target"}
        given = {named[key]: value for key, value in zip(self.options[::2], self.options[1::2], strict=True)}
        if self.command == "combine":
            given |= {"format": "h5" if given["target"] == "tf" else "safetensors"}
        run: Callable[..., object] = {"pt2tf": pt2tf, "tf2pt": tf2pt, "combine": combine}[self.command]
        run(*(folder / name for name in self.source.split()), out, **given | more)


CASES = {
    "safetensors to h5": Case("pt2tf", "pt", ()),
    "bin to safetensors": Case("pt2tf", "pt-bin", ("--format", "safetensors")),
    "shards to h5 shards": Case("pt2tf", "pt-shards", ("--max-shard-size", SHARD)),
    "safetensors to shards": Case("pt2tf", "pt", ("--format", "safetensors", "--max-shard-size", SHARD)),
    "h5 to safetensors": Case("tf2pt", "tf", ()),
    "h5 to bin": Case("tf2pt", "tf", ("--format", "bin")),
    "h5 shards to bin shards": Case("tf2pt", "tf-shards", ("--format", "bin", "--max-shard-size", SHARD)),
    "chunked h5 to safetensors": Case("tf2pt", "tf-chunked", ()),
    "safetensors back to shards": Case("tf2pt", "tf-safetensors", ("--max-shard-size", SHARD)),
    "towers to h5": Case("combine", "tf-safetensors pt", ("--to", "tf")),
    **{f"whole {family} to h5": Case("pt2tf", family, ()) for family in FAMILIES},
}


def write_sources(folder: Path, large: bool = True) -> Path:
    """Writes one checkpoint in every container, ``pt``, ``pt-bin``, ``tf`` and so on, and one of each other family."""
    config = config_of("vit", "bert", text_fields=LARGE if large else {})
    source = write_checkpoint(folder / "pt", config, tensors_of(config))
    (source / "tokenizer_config.json").write_text("{}")
    (source / "vocab.txt").write_text("one\ntwo\n")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    shard = SHARD if large else "40KB"
    pt2tf(source, folder / "tf")
    pt2tf(source, folder / "tf-shards", max_shard_size=shard)
    pt2tf(source, folder / "tf-safetensors", format="safetensors")
    (folder / "tf-chunked").mkdir()
    shutil.copyfile(folder / "tf" / "config.json", folder / "tf-chunked" / "config.json")
    tensors = read_all(folder / "tf" / "tf_model.h5")
    write_h5(folder / "tf-chunked" / "tf_model.h5", tensors, chunks=True, compression="lzf")
    for family in FAMILIES:
        whole = config_of(family=family, text_fields=LARGE if large else {"num_hidden_layers": 1})
        write_checkpoint(folder / family, whole, tensors_of(whole))
    tf2pt(folder / "tf", folder / "pt-bin", format="bin")
    tf2pt(folder / "tf", folder / "pt-shards", max_shard_size=shard)
    return folder


FOREIGN = {".git/HEAD": "ref: main", ".git/objects/pack": "packed", "README.md": "card", "notes/diary": "mine"}


def put_foreign(folder: Path) -> None:
    """Puts files of others into a folder, which no conversion may touch."""
    for name, text in FOREIGN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def foreign(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """What they are: inode, times of change, and what is in them."""
    found = {}
    for path in sorted(path for name in FOREIGN for path in (folder / name, (folder / name).parent) if path != folder):
        held = path.stat()
        text = path.read_text() if path.is_file() else "folder"
        found[str(path.relative_to(folder))] = (held.st_ino, held.st_mtime_ns, held.st_ctime_ns, text)
    return found


def content(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, links and empty folders included by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def listing(folder: Path) -> list[tuple[str, int, int, int, int]]:
    """What a run that only reads cannot change: names, inodes, sizes, times of change of every file and folder."""
    found = []
    for path in [folder, *sorted(folder.rglob("*"))]:
        held = os.lstat(path)
        found.append((str(path), held.st_ino, held.st_size, held.st_mtime_ns, held.st_ctime_ns))
    return found
