"""Flax files that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.checkpoints import flax
from converter.checkpoints.flax import MAX_ENTRIES, MAX_LEVELS, MAX_NAMES_BYTES, read_header
from converter.errors import ConverterError, CorruptCheckpoint, UnsupportedContainer
from tests.flax_files import CHUNKED, Ext, Pairs, Raw, chunked, described, pack
from tests.hostile.conftest import Refused
from tests.tiny import FIXTURE

TWO = np.asarray([1.5, -2.0], np.float32)
SOUND = {"a": {"kernel": TWO}}


def ext(kind: int = 1, **changes: Any) -> bytes:
    return pack({"a": Ext(kind, described(TWO, **changes))})


def pieces(**changes: Any) -> bytes:
    return pack({"a": chunked(np.arange(4, dtype=np.float32), 8) | changes})


def nested(levels: int) -> bytes:
    return pack({"a": TWO}) if not levels else b"\x81\xa1a" * levels + pack({"a": TWO})


CASES: dict[str, tuple[bytes, str]] = {
    "an empty map": (b"\x80", "it holds no tensors"),
    "no tensor at all": (pack({"a": {"b": None}}), "it holds no tensors"),
    "no map": (pack(TWO), "it holds a ext where a map was expected"),
    "a list": (pack([TWO]), "it holds a list where a map was expected"),
    "a list inside": (pack({"a": [TWO]}), "it holds a list, which flax writes as a map"),
    "a byte that begins nothing": (b"\x81\xa1a\xc1", "byte 3 is 0xc1, which starts no value"),
    "bytes behind": (pack(SOUND) + b"\xc0", "1 bytes follow its end"),
    "truncated": (pack(SOUND)[:-1], "21 bytes should follow byte 14, and only 20 do"),
    "truncated in a key": (b"\x81\xa9kern", "9 bytes should follow byte 2, and only 4 do"),
    "2^32 entries that are not there": (b"\xdf\xff\xff\xff\xff", "1 bytes should follow byte 5, and only 0 do"),
    "a text of 4 GB that is not there": (
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        "4,294,967,295 bytes should follow byte 8, and only 0 do",
    ),
    "the same key twice": (pack(Pairs((("a", TWO), ("a", TWO)))), "a map of it holds a twice"),
    "the same name by two ways": (pack({"a/b": TWO, "a": {"b": TWO}}), "it holds a/b twice"),
    "a number as a key": (pack(Pairs(((0, TWO),))), "a key of it is a number, expected text"),
    "bytes as a key": (pack(Pairs(((b"a", TWO),))), "a key of it is a bytes, expected text"),
    "a key that is no Unicode": (pack(Pairs(((Raw(b"\xa1\xff"), TWO),))), "it has a name that is not Unicode"),
    "half a character in a key": (pack({"\ud800": TWO}), "it has a name that is not Unicode"),
    "a key of a megabyte": (pack({"a" * 2**20: TWO}), "it has a name of 1,048,576 bytes"),
    "a name of 1,500 characters": (
        pack({"a" * 750: {"b" * 749: TWO}}),
        "it has names of 1,500 characters, 1,500 in all",
    ),
    "levels without end": (nested(MAX_LEVELS + 1), f"its maps are nested more than {MAX_LEVELS} deep"),
    "a million levels": (nested(1_000_000), f"its maps are nested more than {MAX_LEVELS} deep"),
    "an extension of type 7": (pack({"a": Ext(7, b"x")}), "it holds an extension of type 7, which flax does not write"),
    "a time": (pack({"a": Ext(-1, b"1234")}), "it holds an extension of type -1, which flax does not write"),
    "a text that is no Unicode": (pack({"a": Raw(b"\xa2\xc3\x28")}), "it has a text that is not Unicode"),
    "a complex number of one part": (
        pack({"a": Ext(2, pack([1.0]))}),
        "it holds a complex number that is not two floats",
    ),
    "an array of two parts": (
        pack({"a": Ext(1, pack([[2], "float32"]))}),
        "an array is not described by up to 16 sizes, a dtype and bytes",
    ),
    "an array of a map": (
        pack({"a": Ext(1, pack({}))}),
        "1 bytes should follow byte 6, and only 0 do",
    ),
    "17 axes": (ext(shape=[1] * 17), "an array is not described by up to 16 sizes, a dtype and bytes"),
    "a shape that is no list": (ext(shape=2), "an array is not described by up to 16 sizes, a dtype and bytes"),
    "a negative size": (ext(shape=[-2]), "an array has a size of -2"),
    "a size that is no whole number": (ext(shape=[2.0]), "an array has a size of None"),
    "a size that is true": (ext(shape=[True, 2]), "an array has a size of other"),
    "(2^60, 0)": (ext(shape=[2**60, 0], data=b""), "an array has a size of 1152921504606846976"),
    "(2^40, 2^40, 0)": (
        ext(shape=[2**40, 2**40, 0], data=b""),
        "an array has shape (1099511627776, 1099511627776, 0), which NumPy cannot make",
    ),
    "sizes that multiply past the file": (
        ext(shape=[2**40, 2**40]),
        "an array has 8 bytes, its shape (1099511627776, 1099511627776) and dtype ask for 4,835,703,278,458,516,698,824,704",
    ),
    "sizes that multiply past the file by one": (
        ext(shape=[3]),
        "an array has 8 bytes, its shape (3,) and dtype ask for 12",
    ),
    "bytes that are a list": (ext(data=[1, 2]), "an array holds a list where its bytes were expected"),
    "bytes longer than the extension": (
        pack({"a": Ext(1, described(TWO)[:-1]), "b": TWO}),
        "8 bytes should follow byte 19, and only 7 do",
    ),
    "bytes behind an array": (
        pack({"a": Ext(1, described(TWO) + b"x")}),
        "1 bytes follow an array inside its extension",
    ),
    "a scalar with an axis": (ext(kind=3), "a scalar has shape (2,)"),
    "pieces that are not all": (
        pieces(shape={"0": 5}),
        "the pieces of an array hold 4 numbers, its shape (5,) asks for 5",
    ),
    "pieces and more": (pieces(x=TWO), f"an array in pieces is described by {CHUNKED}, shape, chunks, x"),
    "pieces that deny it": (pieces(**{CHUNKED: False}), f"an array in pieces is described by {CHUNKED}, shape, chunks"),
    "no pieces": (pieces(chunks={}), "an array in pieces has no shape or no pieces"),
    "pieces that are one array": (pieces(chunks=TWO), "an array in pieces has no shape or no pieces"),
    "a shape in 17 sizes": (
        pieces(shape={str(n): 1 for n in range(17)}),
        "an array in pieces has no shape or no pieces",
    ),
    "pieces in another order": (
        pieces(chunks={"1": TWO, "0": TWO}),
        "the pieces or sizes of an array are not numbered from 0",
    ),
    "a piece that is left out": (
        pieces(chunks={"0": TWO, "2": TWO}),
        "the pieces or sizes of an array are not numbered from 0",
    ),
    "pieces of two dtypes": (
        pieces(chunks={"0": TWO, "1": TWO.astype(np.float16)}),
        "the pieces of an array are not of one axis and one dtype",
    ),
    "pieces of two axes": (
        pieces(chunks={"0": TWO.reshape(1, 2), "1": TWO}),
        "the pieces of an array are not of one axis and one dtype",
    ),
    "pieces that are numbers": (
        pieces(chunks={"0": 1, "1": 2}),
        "the pieces of an array are not of one axis and one dtype",
    ),
    "a size of text": (pieces(shape={"0": "4"}), "a size of an array in pieces is no whole number"),
    "a size of -4": (pieces(shape={"0": -4}), "a size of an array in pieces is no whole number"),
    "a size that is an array": (pieces(shape={"0": TWO}), "a size of an array in pieces is no whole number"),
    "(2^60, 0) in pieces": (
        pieces(shape={"0": 2**60, "1": 0}, chunks={"0": TWO[:0]}),
        "a size of an array in pieces is no whole number",
    ),
    "a file that is one array in pieces": (
        pack(chunked(TWO, 4)),
        "it holds one array, expected a tree of them",
    ),
}


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes((FIXTURE / "config.json").read_bytes())
    (folder / "flax_model.msgpack").write_bytes(content)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_refused(tmp_path: Path, refused: Refused, case: str) -> None:
    content, message = CASES[case]
    folder = write(tmp_path / "src", content)
    found = refused(folder, CorruptCheckpoint)
    assert found.startswith(f"{folder}/flax_model.msgpack: not a valid Flax file: {message}")
    assert found.endswith("; download or save it again")


def test_a_dtype_that_no_weight_has(tmp_path: Path, refused: Refused) -> None:
    for number, dtype in enumerate(("object", "complex64", "float8_e4m3fn", "x" * 100, "")):
        folder = write(tmp_path / str(number), ext(dtype=dtype))
        assert "; known are float64, float32" in refused(folder, UnsupportedContainer)


def test_entries_without_end(tmp_path: Path) -> None:
    """One more than the limit, all of them there."""
    path = tmp_path / "x.msgpack"
    keys = b"".join(pack(f"{number:x}") + b"\xc0" for number in range(MAX_ENTRIES + 1))
    path.write_bytes(b"\xdf" + struct.pack(">I", MAX_ENTRIES + 1) + keys)
    with pytest.raises(CorruptCheckpoint, match=f"it has more than {MAX_ENTRIES:,} entries"):
        read_header(path)


def test_names_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long level above many short ones makes names of gigabytes of a file of a megabyte."""
    assert MAX_NAMES_BYTES < 1000 * MAX_ENTRIES
    monkeypatch.setattr(flax, "MAX_NAMES_BYTES", 10_000)
    path = tmp_path / "x.msgpack"
    path.write_bytes(pack({"a" * 900: {str(number): TWO for number in range(12)}}))
    with pytest.raises(CorruptCheckpoint, match="it has names of 903 characters, 10,"):
        read_header(path)


def test_the_cases_are_wrong_by_what_they_say(tmp_path: Path) -> None:
    """Without its fault each would be read: these are."""
    for number, content in enumerate((pack(SOUND), ext(), pieces(), nested(MAX_LEVELS), ext(data=TWO.tobytes()))):
        path = tmp_path / f"{number}.msgpack"
        path.write_bytes(content)
        assert read_header(path).framework == "flax"


def test_every_truncation_and_every_byte(tmp_path: Path) -> None:
    """Nothing but a refusal, and never an extent outside the file."""
    sound = pack({"a": {"kernel": TWO, "s": np.float32(1)}, "t": chunked(TWO, 4), "n": None})
    path = tmp_path / "x.msgpack"
    for at in range(len(sound)):
        for content in (sound[:at], sound[:at] + bytes([sound[at] ^ 0x41]) + sound[at + 1 :]):
            path.write_bytes(content)
            try:
                found = read_header(path)
            except ConverterError as error:
                assert str(error).isprintable()
                continue
            for tensor in found.tensors.values():
                assert tensor.extent is not None
                runs = list(tensor.extent.runs(0, tensor.extent.nbytes))
                assert all(offset + nbytes <= len(content) for offset, nbytes in runs)
