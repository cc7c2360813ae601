"""Real texts and pictures as inputs: which ones, and what a processor may make of them for both sides."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import OptionError, ParityError, printable
from converter.parity.batches import OF_PATCHES, Batch
from converter.parity.inputs import read_vocabulary, wanted_instead
from converter.parity.taps import Array

SHIPPED = Path(__file__).parent / "samples"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_TEXT_BYTES = 2**20
MAX_PICTURE_BYTES = 64 * 2**20
# Every hidden state of every picture and text is kept and compared: this many of a base-sized tower take a gigabyte.
MAX_SAMPLES = 64
_THROUGH = "through the processor"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Samples:
    """Texts and pictures.

    Attributes:
        texts: at least one.
        pictures: files, at least one.
        given: whether a person named some of them; what ships with this package is left out where a processor lacks.
    """

    texts: tuple[str, ...]
    pictures: tuple[Path, ...]
    given: bool = False

    @property
    def title(self) -> str:
        """Of their batch."""
        return f"{'given' if self.given else 'shipped'} texts and pictures {_THROUGH}"


def is_of_samples(title: str) -> bool:
    """Whether a batch of this title was made from texts and pictures."""
    return title.endswith(_THROUGH)


def find_samples(texts: Path | None = None, pictures: Sequence[Path] = (), *, choose: bool = False) -> Samples:
    """Finds texts and pictures; the defaults ship with this package.

    Args:
        texts: a UTF-8 file with one text per line; empty lines are left out.
        pictures: picture files, and folders of them.
        choose: of more than ``MAX_SAMPLES``, take that many, evenly spaced, instead of refusing them.

    Raises:
        OptionError: a file cannot be read, holds nothing, or too much.
    """
    found = _read_texts(texts or SHIPPED / "texts.txt")
    files = [file for path in pictures or (SHIPPED,) for file in _picture_files(path)]
    if choose:
        found, files = tuple(_evenly(found)), _evenly(files)
    for kind, count in (("texts", len(found)), ("pictures", len(files))):
        if count > MAX_SAMPLES:
            raise OptionError(f"{count:,} {kind}, expected at most {MAX_SAMPLES}; name fewer")
    return Samples(found, tuple(files), texts is not None or bool(pictures))


def _evenly(found: Sequence[_Item]) -> list[_Item]:
    """At most ``MAX_SAMPLES`` of them, from the first to the last."""
    return [found[k * len(found) // MAX_SAMPLES] for k in range(MAX_SAMPLES)] if len(found) > MAX_SAMPLES else [*found]


def _read_texts(path: Path) -> tuple[str, ...]:
    _check_file(path, MAX_TEXT_BYTES)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{printable(str(path))}: not UTF-8 text: {error}; give one text per line") from None
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise OptionError(f"{printable(str(path))}: holds no text; give one text per line")
    return texts


def _picture_files(path: Path) -> list[Path]:
    try:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES) if path.is_dir() else [path]
    except OSError as error:
        raise OptionError(f"{printable(str(path))}: cannot be read: {error.strerror}; name another folder") from None
    if not files:
        raise OptionError(f"{printable(str(path))}: holds no picture; supported are {', '.join(PICTURES)}")
    for file in files:
        _check_file(file, MAX_PICTURE_BYTES)
    return [file.absolute() for file in files]


def _check_file(path: Path, limit: int) -> None:
    shown = printable(str(path))
    try:
        found = path.stat()
    except OSError as error:
        raise OptionError(f"{shown}: cannot be read: {error.strerror}; name another file") from None
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        raise OptionError(f"{shown}: {found.st_size:,} bytes, expected a file of at most {limit:,}; name another file")


def sample_batch(title: str, made: Mapping[str, Array], config: Mapping[str, Any]) -> Batch:
    """A processor's output for texts and pictures, if the model of a config takes it.

    Args:
        title: of the batch.
        made: ``pixel_values`` as ``Batch`` has them, ``input_ids`` ``(texts, sequence)`` and other outputs of the
            processor.
        config: a dual encoder's config.json.

    Raises:
        ParityError: the model has no embedding for an id, or takes pictures of another size.
    """
    text, ids = read_vocabulary(config), made["input_ids"]
    if ids.size and ids.max() >= text.size:
        raise ParityError(
            f"the tokenizer makes the id {ids.max()} and the model has {text.size} embeddings; use the tokenizer of this model"
        )
    images = {name: made[name] for name in ("pixel_values", *OF_PATCHES) if name in made}
    if (wanted := wanted_instead(images, config)) is not None:
        raise ParityError(
            f"the image processor makes pictures of {made['pixel_values'].shape[1:]}, the model takes {wanted}; "
            "use the image processor of this model"
        )
    inputs = {**images, "input_ids": ids}
    if "attention_mask" in made:
        inputs["attention_mask"] = made["attention_mask"]
    if text.types and "token_type_ids" in made:
        inputs["token_type_ids"] = made["token_type_ids"]
    return Batch(title, inputs)
