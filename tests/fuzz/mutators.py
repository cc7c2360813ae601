"""Changes to files that leave most of their structure alone, so that a reader's inner checks are met and not its first.

Every change is drawn from a ``random.Random``, which hypothesis and the fuzzer both can give.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import pickle
import pickletools
import random
import zipfile
from collections.abc import Callable
from typing import Any

from converter.checkpoints.sorted_table import entries
from converter.checkpoints.wire import UnsoundMessage
from tests.bundles import table

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 17, 255, 256, 1000, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32, 2**40, 2**48, 2**63)
VALUES: tuple[Any, ...] = (
    None, True, False, *NUMBERS, -1, -(2**63), 2**64, 10**40, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf,
    "", " ", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "nul\0", "\x1b[31m", "two\nlines", "\ud800", "é" * 300,
    "x" * 1001, ":0", "F32", "BF16", "float32", "float16", "h5", "gelu", "relative_key", "none", "0" * 64, "z" * 64,
    [], [0], [1, 2], [2, 2], [0, 0, 0, 0], [[]], {}, {"a": 1}, {"model_type": "bert"}, [[[[[[[[[[]]]]]]]]]], ["a", 1, None],
)  # fmt: skip


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Changes a few bytes: flips, numbers in the file's place for numbers, pieces removed, doubled or moved."""
    held = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(held))
        match draw.randrange(7):
            case 0:
                held[at] ^= 1 << draw.randrange(8)
            case 1:
                held[at] = draw.randrange(256)
            case 2 | 3:
                width = draw.choice((1, 2, 4, 8))
                at -= at % width
                number = draw.choice((*NUMBERS, len(held), at, 2**64 - 1, draw.randrange(len(held))))
                held[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, draw.choice(("little", "big")))
            case 4:
                del held[at : at + draw.choice((1, 2, 8, 64, len(held)))]
            case 5:
                held[at:at] = held[at : at + draw.choice((1, 4, 16, 64))]
            case _:
                other = draw.randrange(len(held))
                held[at : at + 8] = held[other : other + 8]
        if not held:
            return b""
    return bytes(held)


def mutate_table(data: bytes, draw: random.Random) -> bytes:
    """Changes one entry of a sorted table, whose blocks' sums stay right, or the file as it is."""
    try:
        items = list(entries(data))
    except UnsoundMessage:
        items = []
    if not items or not draw.randrange(4):
        return mutate_bytes(data, draw)
    at = draw.randrange(len(items))
    key, value = items[at]
    match draw.randrange(4):
        case 0:
            items[at] = (mutate_bytes(key, draw), value)
        case 1:
            items.insert(at, items[draw.randrange(len(items))])
        case 2:
            del items[at]
        case _:
            items[at] = (key, mutate_bytes(value, draw))
    return table(sorted(items) if draw.randrange(4) else items, draw.choice((1, 2, 20)))


def mutate_value(value: Any, draw: random.Random) -> Any:
    """Changes one place of a JSON value: replaced, removed, added, doubled, or exchanged with another place."""
    root = [copy.deepcopy(value)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(root))
        holder, key = draw.choice(places)
        match draw.randrange(8):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(draw.choice(VALUES))
            case 3:
                holder[key] = _nudged(holder[key], draw)
            case 4 if holder is not root:
                del holder[key]
            case 5 if isinstance(holder, dict):
                holder[draw.choice((str(draw.choice(VALUES)), f"{key}.", *holder))] = copy.deepcopy(holder[key])
            case 5:
                holder.insert(key, copy.deepcopy(holder[key]))
            case _:
                other, place = draw.choice(places)
                holder[key] = copy.deepcopy(other[place])
        if len(root) != 1:
            root = [root[0]] if root else [None]
    return root[0]


def _places(holder: Any) -> Any:
    for key in holder if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _nudged(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool | None):
        return not value
    if isinstance(value, int | float):
        return draw.choice((value + 1, value - 1, value * 2, -value, str(value), float(min(value, 1e308))))
    if isinstance(value, str):
        at = draw.randrange(len(value) + 1)
        return draw.choice((value[:at], value[at:], value + value, value[:at] + "\0" + value[at:], value.upper()))
    return [value]


def mutate_json(data: bytes, draw: random.Random) -> bytes:
    """Changes a JSON file: mostly its values, sometimes its bytes."""
    if draw.randrange(12) == 0:
        return mutate_bytes(data, draw)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, draw)
    return json.dumps(mutate_value(value, draw)).encode()


WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}


def mutate_safetensors(data: bytes, draw: random.Random) -> bytes:
    """Changes a safetensors file: its header's values, and the tensors' places after them where that is meant."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        assert isinstance(header, dict)
    except (ValueError, RecursionError, AssertionError):
        return mutate_bytes(data, draw)
    if draw.randrange(8) == 0:
        return mutate_bytes(data, draw)
    body = data[8 + length :]
    header = mutate_value(header, draw)
    if draw.randrange(3) and isinstance(header, dict):
        body = _packed(header, body)
    text = json.dumps(header).encode()
    if draw.randrange(4) == 0:
        body = mutate_bytes(body, draw)
    return len(text).to_bytes(8, "little") + text + body


def _packed(header: dict[str, Any], body: bytes) -> bytes:
    """Moves every tensor behind the one before it, by its shape and dtype, and gives bytes for all of them."""
    at = 0
    for entry in header.values():
        if not isinstance(entry, dict):
            continue
        shape, width = entry.get("shape"), WIDTHS.get(str(entry.get("dtype")), 1)
        if isinstance(shape, list) and all(type(size) is int and 0 <= size < 1000 for size in shape):
            nbytes = math.prod(shape) * width
            if nbytes < 10_000:
                entry["data_offsets"] = [at, at + nbytes]
                at += nbytes
    return body[:at] + b"\0" * (at - len(body))


def mutate_archive(data: bytes, draw: random.Random) -> bytes:
    """Changes what torch.save wrote: the pickle's opcodes, the entries, or the bytes of the archive."""
    if draw.randrange(5) == 0:
        return mutate_bytes(data, draw)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # whatever zipfile meets in an archive that is damaged already
        return mutate_bytes(data, draw)
    if not entries:
        return mutate_bytes(data, draw)
    at = next((index for index, (name, _) in enumerate(entries) if name.endswith("data.pkl")), 0)
    if draw.randrange(8):
        entries[at] = (entries[at][0], mutate_pickle(entries[at][1], draw))
    else:
        at = draw.randrange(len(entries))
        name, content = entries[at]
        changed = (mutate_bytes(name.encode(), draw).decode("latin-1"), content), (name, mutate_bytes(content, draw))
        entries[at : at + 1] = draw.choice((changed[:1], changed[1:], (), ((name, content), changed[0])))
    return write_entries(entries)


def write_entries(entries: list[tuple[str, bytes]]) -> bytes:
    """An archive of stored entries, in order, in memory."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name.split("\0")[0][:500] or "x")
            archive.NameToInfo.clear()  # doubled names are wanted, the warning is not
            archive.writestr(info, content)
    return out.getvalue()


_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
_NAMES = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nFloatStorage\n", b"ctorch.storage\nUntypedStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"ctorch\nbfloat16\n", b"ctorch\nload\n",
)  # fmt: skip


def mutate_pickle(data: bytes, draw: random.Random) -> bytes:
    """Changes a pickle opcode by opcode: removed, doubled, moved, replaced, or with another argument."""
    parts = _opcodes(data)
    if len(parts) < 2 or draw.randrange(8) == 0:
        return mutate_bytes(data, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(parts))
        match draw.randrange(9):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[at])
            case 2:
                other = draw.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                stop = at + draw.randrange(1, 30)
                parts[at:at] = parts[at:stop]
            case 4:
                parts[at] = draw.choice(_NAMES)
            case 5:
                parts.insert(at, draw.choice(_OPCODES) + draw.randbytes(draw.choice((0, 0, 1, 4))))
            case 6 | 7:
                parts[at] = pickle.dumps(
                    draw.choice((*NUMBERS, -1, 0.5, "x", "cpu", "0", (), (2, 3), [], {}, None)), 2
                )[2:-1]
            case _:
                parts[at] = mutate_bytes(parts[at], draw)
        if not parts:
            return b"."
    return b"".join(parts)


def _opcodes(data: bytes) -> list[bytes]:
    """The pieces of a pickle, one opcode each; what cannot be read any more is the last."""
    starts: list[int] = []
    with contextlib.suppress(Exception):
        for _, _, place in pickletools.genops(data):
            starts.append(place or 0)
    starts = starts or [0]
    return [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]
