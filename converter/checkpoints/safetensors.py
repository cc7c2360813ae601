"""The safetensors container: reads and writes its header, and finds every tensor's bytes.

The format: 8 bytes with the length n of the header, little-endian; n bytes of JSON; the tensors, without gaps.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.names.frameworks import CANONICAL, framework_name, frameworks
from converter.specs import MAX_AXES, MAX_NAME_CHARACTERS, Checkpoint, Extent, Framework, Shape, StoredTensor
from converter.tensors.casts import DTYPES

# 50,000 tensors with long names; a header of more would be built to exhaust memory.
MAX_HEADER_BYTES = 8 * 2**20

_TO_DTYPE = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
# Other dtypes of safetensors: floats of 8 bits and less, and complex numbers.
_NARROW = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4", "C64")
_HALVES = re.compile("[\ud800-\udfff]")
_FROM_DTYPE = {dtype: code for code, dtype in _TO_DTYPE.items()}


def read_header(path: Path) -> Checkpoint:
    """Reads the header of a safetensors file and checks every extent against the file's size.

    Raises:
        UnsupportedContainer: it holds floats of 8 bits or less.
        CorruptCheckpoint: the header is too long, is not JSON, or its extents do not cover the file exactly.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= size - 8:
            raise _corrupt(path, f"its header claims {length:,} bytes of a file of {size:,}")
        if length > MAX_HEADER_BYTES:
            raise _corrupt(path, f"its header has {length:,} bytes, accepted are up to {MAX_HEADER_BYTES:,}")
        header = _parse(path, file.read(length))
    metadata = _check_metadata(path, header.pop("__metadata__", {}))
    extents = [_check_entry(path, name, entry) for name, entry in header.items()]
    _check_cover(path, extents, size - 8 - length)
    framework = _framework(metadata, header)
    tensors = {}
    for name, dtype, shape, begin, end in extents:
        plain = plain_name(name, framework)
        if plain in tensors:
            raise _corrupt(path, f"it holds {printable(plain)} twice")
        tensors[plain] = StoredTensor(plain, dtype, shape, Extent(path, 8 + length + begin, end - begin))
    tensors |= _aliases(path, metadata, tensors)
    return Checkpoint(framework, f"{framework_name(framework)} safetensors", tensors, (path,), metadata)


def write_header(
    path: Path, tensors: Iterable[tuple[str, str, Shape]], framework: Framework
) -> dict[str, StoredTensor]:
    """Creates a safetensors file of its full size, header written, and says where each tensor's bytes go.

    Tensors are laid out as the safetensors library does: wider dtypes first, then by name, so that each is aligned.

    Args:
        path: must not exist.
        tensors: name, dtype and shape of each; TensorFlow names get ``:0``, Flax names dots.
        framework: goes into the metadata as ``format``; transformers refuses a file without.

    Returns:
        By name as given, in file order.
    """
    tensors = tuple(tensors)
    spelled = {name: _spelled(name, framework) for name, _, _ in tensors}
    ordered = sorted(tensors, key=lambda tensor: (-DTYPES[tensor[1]], spelled[tensor[0]]))
    header: dict[str, Any] = {"__metadata__": {"format": framework}}
    offset = 0
    extents = []
    for name, dtype, shape in ordered:
        nbytes = math.prod(shape) * DTYPES[dtype]
        entry = {"dtype": _FROM_DTYPE[dtype], "shape": shape, "data_offsets": [offset, offset + nbytes]}
        header[spelled[name]] = entry
        extents.append((name, dtype, shape, offset, nbytes))
        offset += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    start = 8 + len(text)
    return {
        name: StoredTensor(name, dtype, shape, Extent(path, start + begin, nbytes))
        for name, dtype, shape, begin, nbytes in extents
    }


def plain_name(name: str, framework: Framework) -> str:
    """A name in a safetensors file as the framework itself has it."""
    rules = frameworks()[framework]
    return name.removesuffix(rules.suffix).replace(rules.in_safetensors, rules.separator)


def _spelled(name: str, framework: Framework) -> str:
    rules = frameworks()[framework]
    return name.replace(rules.separator, rules.in_safetensors) + rules.suffix


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("it holds a name twice")
        return found

    def whole(digits: str) -> int:
        # -0 equals 0 for Python, and is no size for the safetensors library.
        if digits == "-0":
            raise ValueError("it holds -0")
        return int(digits)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=whole)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header is not JSON: {printable(str(error))}") from None
    if not isinstance(header, dict):
        raise _corrupt(path, f"its header is a {type(header).__name__}, expected an object")
    return header


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(_is_text(part) for item in metadata.items() for part in item):
        raise _corrupt(path, "its __metadata__ is not an object of strings")
    return metadata


def _check_entry(path: Path, name: str, entry: Any) -> tuple[str, str, Shape, int, int]:
    code = entry.get("dtype") if isinstance(entry, dict) else None
    if code in _NARROW:
        raise UnsupportedContainer(
            f"{path}: tensor {printable(name)} is {code}, which no transformers 4 model computes in; convert such "
            "tensors with .to(torch.float32), multiply them by their scales if any, and save again"
        )
    complaint = _complaint(name, entry)
    if complaint is not None:
        raise _corrupt(path, f"tensor {printable(name)} {complaint}")
    begin, end = entry["data_offsets"]
    return name, _TO_DTYPE[entry["dtype"]], tuple(entry["shape"]), begin, end


def _aliases(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors that share the bytes of others: save_model keeps one of them, and says the other names in the metadata.

    Source: safetensors/torch.py (save_model, _remove_duplicate_names).
    """
    found = {name: kept for name, kept in metadata.items() if kept in tensors and name not in tensors}
    if too_long := [name for name in found if len(name) > MAX_NAME_CHARACTERS]:
        raise _corrupt(path, f"its __metadata__ has a name of {len(too_long[0]):,} characters")
    return {name: replace(tensors[kept], name=name) for name, kept in found.items()}


def _complaint(name: str, entry: Any) -> str | None:
    if len(name) > MAX_NAME_CHARACTERS:
        return f"has a name of {len(name):,} characters"
    if not _is_text(name):
        return "has a name that is not Unicode"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "is not described by dtype, shape and data_offsets"
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _TO_DTYPE:
        return f"has dtype {_shown(code)}; known are {', '.join(_TO_DTYPE)}"
    if not _sizes(shape) or len(shape) > MAX_AXES:
        return f"has shape {_shown(shape)}"
    if not _sizes(offsets) or len(offsets) != 2:
        return f"has data_offsets {_shown(offsets)}"
    expected = math.prod(shape) * DTYPES[_TO_DTYPE[code]]
    if offsets[1] - offsets[0] != expected:
        return f"has {offsets[1] - offsets[0]:,} bytes, its shape and dtype ask for {expected:,}"
    return None


def _is_text(value: Any) -> bool:
    """Whether a value is text that can be written: JSON can spell halves of characters, UTF-8 cannot."""
    return isinstance(value, str) and (value.isascii() or not _HALVES.search(value))


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**48 for number in value)


def _shown(value: Any) -> str:
    """A value for a message; only the type of a nested one, which Python may be unable to show."""
    parts = value if isinstance(value, list) else [value]
    nested = any(isinstance(part, list | dict) for part in parts)
    return f"a nested {type(value).__name__}" if nested else printable(repr(value), 80)


def _check_cover(path: Path, extents: list[tuple[str, str, Shape, int, int]], nbytes: int) -> None:
    """Extents must follow one another without gap or overlap and end where the file ends."""
    position = 0
    for name, _, _, begin, end in sorted(extents, key=lambda extent: extent[3:]):
        if begin != position:
            raise _corrupt(
                path, f"tensor {printable(name)} begins at byte {begin:,} of the data, expected {position:,}"
            )
        position = end
    if position != nbytes:
        what = "truncated" if nbytes < position else "longer than its header says"
        raise _corrupt(
            path, f"it is {what}: the header describes {position:,} bytes of data, the file holds {nbytes:,}"
        )


def _framework(metadata: Mapping[str, str], names: Iterable[str]) -> Framework:
    declared = metadata.get("format")
    if declared in frameworks():
        return str(declared)
    names = tuple(names) if declared is None else ()
    marked = (
        key for key, rules in frameworks().items() if rules.suffix and any(n.endswith(rules.suffix) for n in names)
    )
    return next(marked, CANONICAL)


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid safetensors file: {what}; download or save it again")
