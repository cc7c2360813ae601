"""safetensors files that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.checkpoints.safetensors import MAX_HEADER_BYTES, _shown, read_header
from converter.errors import ConverterError, CorruptCheckpoint
from tests.hostile.conftest import Refused
from tests.tiny import FIXTURE, safetensors_bytes

GOOD: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EIGHT = b"\0" * 8


def entry(**changes: Any) -> bytes:
    return safetensors_bytes({"a": GOOD | changes}, EIGHT)


def two(**changes: Any) -> bytes:
    return safetensors_bytes({"a": GOOD, "b": GOOD | changes}, EIGHT * 2)


def nested(depth: int, opening: str, closing: str) -> bytes:
    return safetensors_bytes(f'{{"a": {opening * depth}{closing * depth}}}'.encode())


CASES: dict[str, tuple[bytes, str]] = {
    "seven bytes": (b"\x02\0\0\0\0\0\0", "its header claims 2 bytes of a file of 7"),
    "header length 0": (struct.pack("<Q", 0) + b"{}", "its header claims 0 bytes of a file of 10"),
    "header length 1": (struct.pack("<Q", 1) + b"{}", "its header claims 1 bytes of a file of 10"),
    "header length 2 ** 63": (
        struct.pack("<Q", 2**63) + b"{}",
        "its header claims 9,223,372,036,854,775,808 bytes of a file of 10",
    ),
    "header length past the end": (struct.pack("<Q", 3) + b"{}", "its header claims 3 bytes of a file of 10"),
    "not JSON": (safetensors_bytes(b"{nonsense"), "its header is not JSON: Expecting property name"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "its header is not JSON: 'utf-8' codec can't decode byte 0xff"),
    "UTF-16": (safetensors_bytes('{"a": 1}'.encode("utf-16")), "its header is not JSON: 'utf-8' codec can't decode"),
    "a list": (safetensors_bytes([1]), "its header is a list, expected an object"),
    "a number": (safetensors_bytes(17), "its header is a int, expected an object"),
    "NaN": (safetensors_bytes(b'{"a": NaN}'), "tensor a is not described by dtype, shape and data_offsets"),
    "a number of 5000 digits": (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "its header is not JSON: Exceeds"),
    "the same name twice": (
        safetensors_bytes(b'{"a": 1, "a": 2}'),
        "its header is not JSON: it holds a name twice",
    ),
    "metadata that is a list": (
        safetensors_bytes({"__metadata__": []}),
        "its __metadata__ is not an object of strings",
    ),
    "metadata of numbers": (
        safetensors_bytes({"__metadata__": {"format": 1}}),
        "its __metadata__ is not an object of strings",
    ),
    "an entry that is null": (
        safetensors_bytes({"a": None}),
        "tensor a is not described by dtype, shape and data_offsets",
    ),
    "an entry with more": (entry(code="x"), "tensor a is not described by dtype, shape and data_offsets"),
    "unknown dtype": (entry(dtype="F31"), "tensor a has dtype 'F31'; known are F64, F32, F16, BF16"),
    "dtype that is a list": (entry(dtype=["F32"]), "tensor a has dtype ['F32']; known are F64"),
    "negative shape": (entry(shape=[-2]), "tensor a has shape [-2]"),
    "two negatives": (entry(shape=[-1, -2]), "tensor a has shape [-1, -2]"),
    "shape of floats": (entry(shape=[2.0]), "tensor a has shape [2.0]"),
    "shape of booleans": (entry(shape=[True, 2]), "tensor a has shape [True, 2]"),
    "shape that is text": (entry(shape="2"), "tensor a has shape '2'"),
    "shape of lists": (entry(shape=[[2]]), "tensor a has shape a nested list"),
    "huge shape": (entry(shape=[2**60]), "tensor a has shape [1152921504606846976]"),
    "too many axes": (entry(shape=[1] * 17), "tensor a has shape [1, 1, 1, 1, 1"),
    "shape x dtype overflows 64 bits": (
        entry(shape=[2**40, 2**40]),
        "tensor a has 8 bytes, its shape and dtype ask for",
    ),
    "shape x dtype is 0 modulo 2 ** 64": (
        entry(shape=[2**32, 2**30], data_offsets=[0, 0]),
        "tensor a has 0 bytes, its shape and dtype ask for 18,446,744,073,709,551,616",
    ),
    "offsets too short": (entry(data_offsets=[0, 7]), "tensor a has 7 bytes, its shape and dtype ask for 8"),
    "unaligned, no whole number of values": (
        two(data_offsets=[8, 15]),
        "tensor b has 7 bytes, its shape and dtype ask for 8",
    ),
    "unaligned, into the tensor before": (
        two(data_offsets=[7, 15]),
        "tensor b begins at byte 7 of the data, expected 8",
    ),
    "offsets reversed": (entry(data_offsets=[8, 0]), "tensor a has -8 bytes, its shape and dtype ask for 8"),
    "negative offsets": (entry(data_offsets=[-8, 0]), "tensor a has data_offsets [-8, 0]"),
    "three offsets": (entry(data_offsets=[0, 8, 8]), "tensor a has data_offsets [0, 8, 8]"),
    "offsets past the end": (
        entry(data_offsets=[8, 16]),
        "tensor a begins at byte 8 of the data, expected 0",
    ),
    "overlapping": (two(data_offsets=[4, 12]), "tensor b begins at byte 4 of the data, expected 8"),
    "far out of range": (
        entry(data_offsets=[2**40, 2**40 + 8]),
        "tensor a begins at byte 1,099,511,627,776 of the data",
    ),
    "the same bytes twice": (two(data_offsets=[0, 8]), "tensor b begins at byte 0 of the data, expected 8"),
    "a gap": (
        safetensors_bytes({"a": GOOD, "b": GOOD | {"data_offsets": [12, 20]}}, b"\0" * 20),
        "tensor b begins at byte 12 of the data, expected 8",
    ),
    "truncated": (
        entry()[:-1],
        "it is truncated: the header describes 8 bytes of data, the file holds 7",
    ),
    "bytes behind": (
        entry() + b"x",
        "it is longer than its header says: the header describes 8 bytes of data, the file holds 9",
    ),
    "a name of a megabyte": (
        safetensors_bytes({"a" * 2**20: GOOD}, EIGHT),
        f"tensor {'a' * 100}...{'a' * 100} has a name of 1,048,576 characters",
    ),
    "a name with escapes": (
        safetensors_bytes({"\x1b[2J\n\x07\u202e": GOOD | {"dtype": 7}}, EIGHT),
        r"tensor \x1b[2J\n\x07\u202e has dtype 7; known are",
    ),
    "half a surrogate pair": (
        safetensors_bytes(b'{"\\ud800": 1}'),
        r"tensor \ud800 has a name that is not Unicode",
    ),
}


def test_an_odd_beginning_is_no_fault(tmp_path: Path) -> None:
    """Extents follow one another, so that a tensor may begin anywhere: the format allows it, and it is read by bytes."""
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header, b"\1\2\3" + struct.pack("<2f", 1.5, -2.0)))
    extent = read_header(path).tensors["b"].extent
    assert extent is not None
    assert struct.unpack("<2f", path.read_bytes()[extent.offset : extent.offset + extent.nbytes]) == (1.5, -2.0)


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes((FIXTURE / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_refused(tmp_path: Path, refused: Refused, case: str) -> None:
    content, message = CASES[case]
    folder = write(tmp_path / "src", content)
    found = refused(folder, CorruptCheckpoint)
    assert found.startswith(f"{folder}/model.safetensors: not a valid safetensors file: {message}")
    assert found.endswith("; download or save it again")


def test_the_cases_are_wrong_by_what_they_say(tmp_path: Path) -> None:
    """Without its fault each would be read: these are."""
    for number, content in enumerate((entry(), two(data_offsets=[8, 16]), safetensors_bytes({}))):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        assert read_header(path).framework == "pt"


@pytest.mark.parametrize("depth", [3, 500, 900, *range(940, 1000, 6), 1100, 5000, 1_000_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":'])
def test_nested(tmp_path: Path, refused: Refused, depth: int, brackets: str) -> None:
    opening, closing = ("[", "]") if brackets == "[]" else (brackets, "}")
    content = nested(depth, opening, closing) if brackets == "[]" else nested(depth, opening, "1}"[1:])
    refused(write(tmp_path / "src", content), CorruptCheckpoint)


@pytest.mark.parametrize("depth", [3, 900, *range(940, 1000, 4)])
@pytest.mark.parametrize("field", ["shape", "dtype", "data_offsets"])
def test_nested_where_a_message_shows_it(tmp_path: Path, refused: Refused, depth: int, field: str) -> None:
    held = json.dumps(GOOD | {field: "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    refused(write(tmp_path / "src", safetensors_bytes(f'{{"a": {held}}}'.encode(), EIGHT)), CorruptCheckpoint)


def test_what_cannot_be_shown_is_not_shown() -> None:
    """Which depth a parser takes and ``repr`` does not, is another in every version of Python."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert _shown(deep) == "a nested list"
    assert _shown(1.5) == "1.5"


def test_a_header_of_a_hundred_megabytes(tmp_path: Path, refused: Refused) -> None:
    folder = write(tmp_path / "src", b"")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100 * 2**20) + b'{"a": ')
        file.truncate(8 + 100 * 2**20)
    assert refused(folder, CorruptCheckpoint) == (
        f"{folder}/model.safetensors: not a valid safetensors file: its header has 104,857,600 bytes, accepted are up to "
        f"{MAX_HEADER_BYTES:,}; download or save it again"
    )


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConverterError):
        read_header(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.text(max_size=3) | st.sampled_from(["F32", "I8"]),
    lambda inner: st.lists(inner, max_size=3),
)
entries = st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), values)


@given(st.dictionaries(st.text(max_size=3), entries | values, max_size=3), st.binary(max_size=16))
def test_any_header(tmp_path_factory: pytest.TempPathFactory, header: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    path.write_bytes(safetensors_bytes(header, data))
    try:
        read_header(path)
    except CorruptCheckpoint as error:
        assert str(error).isprintable()


@given(st.integers(0, 20_000), st.integers(0, 7))
def test_any_bit_of_a_header_flipped(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    """Refused, or the same tensors under other names: never an extent beyond the file."""
    content = bytearray((FIXTURE / "model.safetensors").read_bytes())
    content[position % 11_512] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "model.safetensors"
    path.write_bytes(content)
    try:
        found = read_header(path)
    except CorruptCheckpoint:
        return
    for tensor in found.tensors.values():
        assert tensor.extent is not None
        assert tensor.extent.offset + tensor.extent.nbytes <= len(content)
