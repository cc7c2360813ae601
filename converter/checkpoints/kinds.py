"""Says what a folder or a file is that holds no weights to read: every kind by its marks, each with a way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from converter.errors import SourceError, UnsupportedContainer, listed, printable, quoted

# What trainers write beside the weights: never the weights themselves.
_STATES = re.compile(
    r"(optimizer|scheduler|rng_state|random_states|scaler|sampler|training_args|trainer_state|dl_state_dict"
    r"|custom_checkpoint)[\w.-]*|[\w.-]*optim_states\.pt"
)
_RANK = re.compile(r".*_rank_?\d+\.(bin|pt|pth)")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
MAX_FOLDERS = 1000
_LEVELS = 3  # a cache of the Hub holds models--ORG--NAME/snapshots/COMMIT
OF_KERAS = (
    "a whole Keras 3 model (.keras); import TFVisionTextDualEncoderModel from where it was made, load it with "
    "keras.saving.load_model and write it with save_pretrained, then convert the tf_model.h5"
)
OF_TF = (
    "not a TensorFlow 2 checkpoint, which is a valid .index file with .data files beside it; "
    "load it where it was made and write it with save_pretrained"
)
OF_CKPT = (
    "torch.save did not write this .ckpt, as it does Lightning's; if it belongs to a TensorFlow checkpoint, name the .index "
    "file beside it"
)
SAVED_MODEL = "a TensorFlow SavedModel without its folder `variables`, which holds the weights; copy it whole"
_ADAPTER = (
    "a PEFT adapter, not a model; merge it: PeftModel.from_pretrained(model, FOLDER)"
    ".merge_and_unload().save_pretrained(OTHER), then convert OTHER"
)
_DEEPSPEED = (
    "a DeepSpeed checkpoint, whose weights are split; run `python zero_to_fp32.py . .` in {folder} and convert what it "
    "writes"
)
# DeepSpeed has put both into the folder that holds one folder per step.
_OF_DEEPSPEED = ("zero_to_fp32.py", "latest")
_DISTRIBUTED = (
    "a distributed checkpoint (.distcp), whose weights are split; merge them with `accelerate merge-weights "
    "{folder} OTHER`, or torch.distributed.checkpoint.format_utils.dcp_to_torch_save, and convert OTHER"
)
_MEGATRON = (
    "a Megatron checkpoint, whose weights are split and have names of their own; convert it to transformers' format with the "
    "tools of the code that trained it"
)
_RANKS = (
    "the parts of an FSDP run, one of each process; save the whole model there, as accelerate does with "
    "fsdp_state_dict_type: FULL_STATE_DICT"
)
_OPEN_CLIP = (
    "an OpenCLIP model of which a file is missing; put open_clip_config.json and open_clip_model.safetensors or "
    "open_clip_pytorch_model.bin into one folder"
)


def is_state(name: str) -> bool:
    """Whether a file's name is that of a trainer's file beside the weights."""
    return _STATES.fullmatch(name) is not None


def refuse_state(path: Path) -> None:
    """Refuses a file that was named and can hold no weights, before its content is judged.

    Raises:
        UnsupportedContainer: an adapter, or what a trainer keeps for going on.
    """
    if path.name.startswith(("adapter_model.", "adapter_config.")):
        raise UnsupportedContainer(f"{path}: {_ADAPTER}")
    if path.name.endswith("optim_states.pt"):
        raise UnsupportedContainer(f"{path}: {_deepspeed(path.parent)}")
    if path.name == "model_optim_rng.pt":
        raise UnsupportedContainer(f"{path}: {_MEGATRON}")
    if _RANK.fullmatch(path.name):
        raise UnsupportedContainer(f"{path}: {_RANKS}")
    if path.name.endswith(".distcp"):
        raise UnsupportedContainer(f"{path}: {_DISTRIBUTED.format(folder=quoted(path.parent))}")
    if is_state(path.name):
        raise UnsupportedContainer(
            f"{path}: the state of a training run, not weights; name the folder, or the weights file beside it"
        )


def recognised(folder: Path, levels: int = _LEVELS) -> UnsupportedContainer | None:
    """The kind of a folder without weights, if its files identify it.

    Args:
        folder: the folder.
        levels: of folders in it that count as well: trainers make one per step, and one in that.
    """
    present = {path.name for path in folder.iterdir()}
    what = _by_marks(folder, present)
    if what is not None:
        return UnsupportedContainer(f"{folder}: {what}")
    for inner in (path for level in _levels(folder, levels) for path in level):
        if (what := _by_marks(inner, {path.name for path in inner.iterdir()})) is not None:
            return UnsupportedContainer(f"{inner}: {what}")
    return None


def _deepspeed(folder: Path) -> str:
    """The message about a DeepSpeed checkpoint; the step that it names runs where DeepSpeed has put its script."""
    inner = not any((folder / name).exists() for name in _OF_DEEPSPEED)
    outer = inner and any((folder.parent / name).exists() for name in _OF_DEEPSPEED)
    return _DEEPSPEED.format(folder=quoted(folder.parent if outer else folder))


def _by_marks(folder: Path, present: Collection[str]) -> str | None:
    if "adapter_config.json" in present:
        return _ADAPTER
    if "zero_to_fp32.py" in present or any(name.endswith(("_model_states.pt", "optim_states.pt")) for name in present):
        return _deepspeed(folder)
    if "latest_checkpointed_iteration.txt" in present or "model_optim_rng.pt" in present:
        return _MEGATRON
    if any(_RANK.fullmatch(name) for name in present):
        return _RANKS
    if any(name.endswith(".distcp") for name in present):
        return _DISTRIBUTED.format(folder=quoted(folder))
    if any(name in present for name in ("saved_model.pb", "keras_metadata.pb")):
        return SAVED_MODEL
    if any(name.endswith(".index") for name in present):
        return OF_TF
    weights = [name for name in present if name.endswith((".pt", ".pth", ".safetensors")) and not is_state(name)]
    if "open_clip_config.json" in present and not weights:
        return _OPEN_CLIP
    return None


def with_weights(folder: Path, holds: Callable[[Path], bool]) -> SourceError | None:
    """The error of a folder whose folders, or theirs, hold the weights, that of the last training step named first."""
    held = ([path for path in level if holds(path)] for level in _levels(folder, _LEVELS))
    if not (inner := next(filter(None, held), [])):
        return None
    inner.sort(key=lambda path: [int(part) if part.isdigit() else -1 for part in re.split(r"(\d+)", path.name)])
    names = [quoted(path) for path in reversed(inner)]
    others = f" (others: {listed(names[1:], 3)})" if names[1:] else ""
    return SourceError(f"{folder}: holds no weights, but its subfolders do; name one of them: {names[0]}{others}")


def by_another_name(folder: Path, found: Mapping[str, str | None]) -> SourceError:
    """The error for a folder whose weights file has an unusual name.

    Args:
        folder: the folder.
        found: by name of every file that can be read, the command that converts it; None where any command will do.
    """
    name, command = next(iter(found.items()))
    what = (
        f"{printable(name)} is one by another name" if len(found) == 1 else f"{listed(list(found), 3)} have other names"
    )
    file = quoted(folder / name)
    step = f"name that file, {file}" if command is None else f"convert {command} {file} OUT"
    return SourceError(f"{folder}: holds no weights by a usual name; {what}: {step}")


def lone_shards(folder: Path, present: Collection[str]) -> SourceError | None:
    """The error of shards without their index."""
    shards = [found for name in sorted(present) if is_shard(name) and (found := _SHARD.fullmatch(name))]
    if not shards:
        return None
    return SourceError(
        f"{folder}: holds shards ({listed([shard[0] for shard in shards], 3)}) without their index; put "
        f"{printable(_index_of(shards[0]))} beside them, which was saved with them"
    )


def _index_of(shard: re.Match[str]) -> str:
    """The name of a shard index; transformers appends a variant: model.safetensors.index.fp16.json."""
    stem, _, variant = shard[1].partition(".")
    return f"{stem}{shard[2]}.index.{variant}{'.' if variant else ''}json"


def refuse_shard(path: Path) -> None:
    """Refuses a file that was named and is one of several.

    Raises:
        SourceError: it is.
    """
    if is_shard(path.name) and (found := _SHARD.fullmatch(path.name)):
        raise SourceError(
            f"{path}: one of several shards; name their index, {quoted(path.with_name(_index_of(found)))}, which reads all"
        )


def is_shard(name: str, indexed: bool = False) -> bool:
    """Whether a file is one of several, by its name; one of one is complete, but has an index as well.

    Args:
        name: of the file.
        indexed: whether there is an index beside it.
    """
    return _SHARD.fullmatch(name) is not None and (indexed or "-00001-of-00001." not in name)


def page_or_text(head: bytes) -> str | None:
    """The kind of a file that holds text instead of weights, or None."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "a web page, not the file; download the file itself (its address has /resolve/ where the page's has /blob/)"
        )
    if head.startswith(b"../"):  # a copied link, on systems without links
        return "the text of a link, not the file that it points to; copy the folder with `cp -rL`, or download it again"
    if len(head) >= 8 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        shown = head.decode("ascii").strip().splitlines()
        return f"text ({(shown or [''])[0]!r} ...), not weights; download or copy the file itself"
    return None


def _levels(folder: Path, count: int) -> Iterator[list[Path]]:
    """The folders in a folder, those in them and so on; ``MAX_FOLDERS`` in all."""
    level, left = [folder], MAX_FOLDERS
    for _ in range(count):
        level = [path for outer in level for path in _folders(outer)][:left]
        left -= len(level)
        yield level


def _folders(folder: Path) -> list[Path]:
    inner = (path for path in folder.iterdir() if not is_state(path.name))
    found = [path for path in inner if path.is_dir() and not path.is_symlink()]
    return sorted(found)[:MAX_FOLDERS]
