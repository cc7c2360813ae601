"""TensorFlow checkpoints whose index lies, leads elsewhere or exhausts what it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter import tf2pt
from converter.checkpoints import bundle_index, object_graph, sorted_table
from converter.checkpoints.wire import UnsoundMessage
from converter.errors import ConverterError
from tests.bundles import (
    BEHIND,
    block,
    closed,
    ended,
    entry,
    graph_of,
    header,
    laid_out,
    numbered,
    plain_graph,
    table,
    table_of_blocks,
    text_entry,
    varint,
    wrapped,
)
from tests.hostile.refusing import refusal
from tests.tiny import config_of

Items = dict[bytes, bytes]
Damage = Callable[[Items, bytes], bytes]
KEY = f"v/0{BEHIND}"
GRAPH = object_graph.KEY.encode()
WEIGHTS = {KEY: np.arange(6, dtype="f4").reshape(2, 3)}
ITEMS, DATA = laid_out(WEIGHTS, plain_graph({KEY: "root/a/kernel"}))


def whole(text: bytes) -> Damage:
    return lambda _, __: text


def changed(key: bytes, value: bytes) -> Damage:
    return lambda items, _: table(sorted((items | {key: value}).items()))


def with_entry(*said: int, more: bytes = b"", shape: tuple[int, ...] = (2, 3)) -> Damage:
    dtype, shard, offset, nbytes = said
    return changed(KEY.encode(), entry(dtype, shape, shard, offset, nbytes, 0, more))


def with_byte(at: int, value: int) -> Damage:
    def damage(items: Items, _: bytes) -> bytes:
        held = bytearray(table(items.items()))
        held[at] = value
        return bytes(held)

    return damage


def with_block(contents: bytes) -> Damage:
    return whole(table_of_blocks([(b"z", contents)]))


def overlapping(items: Items, _: bytes) -> bytes:
    """One block, named twice."""
    held = block(items.items())
    return ended(held, [(key, varint(0) + varint(len(held) - 5)) for key in (b"y", b"z")])


def unsorted(items: Items, _: bytes) -> bytes:
    return table_of_blocks([(b"z", block(list(items.items())[::-1]))])


OUTSIDE = "has a block beyond its end"
DAMAGED: dict[str, tuple[Damage, str]] = {
    "a block beyond the end": (whole(ended(b"", [(b"z", varint(2**40) + varint(10))])), OUTSIDE),
    "a block of no size": (whole(ended(bytes(9), [(b"z", varint(0) + varint(0))])), OUTSIDE),
    "another sum": (with_byte(3, 99), "has a block with another CRC-32C than is written behind it"),
    "compressed": (
        lambda items, _: table(items.items(), kind=1),
        "is compressed, which TensorFlow never does",
    ),
    "more restarts than fit": (with_block(closed(bytes(8) + b"\xff" * 4)), "has a block shorter than what it lists"),
    "more shared than there is": (
        with_block(closed(varint(9) + varint(0) + varint(0) + bytes(4) + b"\1\0\0\0")),
        "has an entry that does not fit in its block",
    ),
    "a value past its block": (
        with_block(closed(varint(0) + varint(1) + varint(99) + b"k" + bytes(4) + b"\1\0\0\0")),
        "has an entry that does not fit in its block",
    ),
    "a key of 3,000 bytes": (changed(b"k" * 3000, b""), "has an entry that does not fit in its block"),
    "blocks that overlap": (overlapping, "has blocks that overlap"),
    "keys that are not sorted": (unsorted, "has keys that are not sorted"),
    "a number that does not end": (with_block(closed(b"\xff" * 9 + bytes(4) + b"\1\0\0\0")), "ends within a number"),
    "a number of 70 bits": (
        with_block(closed(b"\xff" * 9 + b"\x7f" + bytes(4) + b"\1\0\0\0")),
        "has a number of more than 64 bits",
    ),
    "a key that is not UTF-8": (changed(b"\xff\xfe", b""), "has text that is not UTF-8"),
    "no files of data": (changed(b"", header(0)), "names 0 files of data"),
    "a million files of data": (changed(b"", header(10**6)), "names 1,000,000 files of data"),
    "text in place of a number": (changed(b"", wrapped(1, b"x")), "has bytes where a number belongs"),
    "a number in place of text": (changed(KEY.encode(), numbered(2, 3)), "has a number where bytes belong"),
    "a group": (changed(KEY.encode(), varint(1 << 3 | 3)), "has a field of kind 3"),
    "a field past its message": (changed(KEY.encode(), varint(1 << 3 | 2) + varint(9)), "ends 9 bytes too early"),
    "a file that is not named": (with_entry(1, 1, 0, 24), "names data file 1 of 1"),
    "a tensor beyond the end": (
        with_entry(1, 0, 2**62, 24),
        f"says that {KEY} lies beyond the end of w.data-00000-of-00001: it is truncated",
    ),
    "fewer bytes than its shape asks for": (with_entry(1, 0, 0, 20), f"gives {KEY} 20 bytes, its shape asks for 24"),
    "a negative size": (
        with_entry(1, 0, 0, 24, shape=(2**64 - 2, 3)),
        "has a tensor of 2 axes, the largest of size 18,446,744,073,709,551,614",
    ),
    "a hundred axes": (with_entry(1, 0, 0, 24, shape=(1,) * 100), "has a tensor of 100 axes, the largest of size 1"),
    "two tensors at one place": (
        changed(b"x", entry(1, (1,), 0, 4, 4, 0)),
        "has two tensors at byte 4 of w.data-00000-of-00001",
    ),
    "a graph that is no text": (
        changed(GRAPH, entry(3, (4,), 0, 24, 16, 0)),
        "has an object graph of 16 bytes, and 1 axes",
    ),
    "a graph that ends elsewhere": (
        changed(GRAPH, entry(7, (), 0, 24, len(DATA) - 25, 0)),
        f"has an object graph of {len(DATA) - 29} bytes that lies in {len(DATA) - 25}",
    ),
    "a graph with another sum": (
        changed(GRAPH, entry(7, (), 0, 24, len(DATA) - 24, 5)),
        "has an object graph with another CRC-32C than it says",
    ),
    "a graph that names what is not there": (
        lambda items, _: table((key, value) for key, value in items.items() if b"v/0" not in key),
        f"has an object graph that names {KEY}, which does not exist",
    ),
    "a dtype that no weight has": (with_entry(24, 0, 0, 24), f"has {KEY} with dtype 24, which no weight has"),
}
GRAPHS: dict[str, tuple[bytes, str]] = {
    "an object that is not there": (graph_of([([("x", 7)], [])]), "names object 7 of 1"),
    "a name that is not UTF-8": (wrapped(1, wrapped(1, wrapped(2, b"\xff"))), "has text that is not UTF-8"),
    "a number in place of an object": (numbered(1, 3), "has a number where bytes belong"),
    "a variable without a name": (plain_graph({KEY: ""}), f"has {KEY} with a name of 0 characters"),
    "a name of 2,000 characters": (plain_graph({KEY: "x" * 2000}), f"has {KEY} with a name of 2,000 characters"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    held = tmp_path / "src"
    held.mkdir()
    (held / "config.json").write_text(json.dumps(config_of()))
    (held / "w.data-00000-of-00001").write_bytes(DATA)
    return held


def test_the_sound_one_is_read(folder: Path) -> None:
    (folder / "w.index").write_bytes(table(ITEMS.items()))
    with pytest.raises(ConverterError, match=r"not the tensors that config\.json describes"):
        tf2pt(folder, folder.parent / "out")


@pytest.mark.parametrize("name", DAMAGED)
def test_refused(name: str, folder: Path) -> None:
    damage, said = DAMAGED[name]
    (folder / "w.index").write_bytes(damage(dict(ITEMS), DATA))
    message = refusal(folder, folder.parent / "out", "tf2pt")
    where = f"{folder / 'w.index'}: not a valid TensorFlow checkpoint: it"
    assert message == f"{where} {said}; download or save it again"


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_are_refused(name: str, folder: Path) -> None:
    graph, said = GRAPHS[name]
    items, data = laid_out(WEIGHTS, graph)
    (folder / "w.index").write_bytes(table(items.items()))
    (folder / "w.data-00000-of-00001").write_bytes(data)
    message = refusal(folder, folder.parent / "out", "tf2pt")
    assert message.endswith(f": not a valid TensorFlow checkpoint: it {said}; download or save it again")


def test_objects_in_a_circle_are_read_once(folder: Path) -> None:
    graph = graph_of([([("x", 1), ("self", 0)], []), ([("back", 0)], [("root/a", KEY)])])
    assert object_graph.variables(graph) == ({KEY: "root/a"}, {})


def test_slices_and_big_endian_are_refused_by_name(folder: Path) -> None:
    index = folder / "w.index"
    index.write_bytes(with_entry(1, 0, 0, 0, more=wrapped(7, b""))(dict(ITEMS), DATA))
    assert "root/a/kernel is cut into slices, as parameter servers store it; " in refusal(
        folder, folder.parent / "o", "tf2pt"
    )
    index.write_bytes(changed(b"", header(1, 1))(dict(ITEMS), DATA))
    assert refusal(folder, folder.parent / "o", "tf2pt").endswith(
        "w.index: written on a big-endian machine; load and save it on another one"
    )


def test_links_out_of_the_folder(folder: Path) -> None:
    (folder / "w.index").write_bytes(table(ITEMS.items()))
    data = folder / "w.data-00000-of-00001"
    data.rename(folder.parent / "elsewhere")
    data.symlink_to("../elsewhere")
    assert f"{data}: a link out of its folder" in refusal(folder, folder.parent / "o", "tf2pt")
    (folder / "w.index").rename(folder.parent / "index")
    (folder / "w.index").symlink_to("../index")
    assert f"{folder / 'w.index'}: a link out of its folder" in refusal(folder, folder.parent / "o", "tf2pt")


def test_the_state_leads_nowhere_else(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.index").write_bytes(table(ITEMS.items()))
    for said in ("../../etc/passwd", "..", "a\0b", "/"):
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{said}"\n')
        assert "and no file `checkpoint` that says which is the last" in refusal(folder, folder.parent / "o", "tf2pt")


def test_too_much(folder: Path) -> None:
    index, out = folder / "w.index", folder.parent / "o"
    with index.open("wb") as file:
        file.truncate(2**33)
        file.seek(2**33)
        file.write(table(ITEMS.items())[-48:])
    assert "it has more than 16,777,216 bytes" in refusal(folder, out, "tf2pt", alone=True)
    many = [(f"{number:07}".encode(), b"") for number in range(sorted_table.MAX_ENTRIES + 1)]
    index.write_bytes(table(many, in_a_block=1000))
    assert "it has more than 200,000 entries" in refusal(folder, out, "tf2pt", alone=True)
    with (folder / "w.data-00000-of-00001").open("r+b") as file:
        file.truncate(2**33)
    index.write_bytes(changed(GRAPH, entry(7, (), 0, 24, bundle_index.MAX_TEXT_BYTES + 1, 0))(dict(ITEMS), DATA))
    assert "has an object graph of 16,777,217 bytes" in refusal(folder, out, "tf2pt", alone=True)
    objects = b"\x0a\0" * (object_graph.MAX_NODES + 1)
    text, said = text_entry(objects, len(DATA))
    (folder / "w.data-00000-of-00001").write_bytes(DATA + text)
    index.write_bytes(changed(GRAPH, said)(dict(ITEMS), DATA))
    assert "it has 500,001 objects" in refusal(folder, out, "tf2pt", alone=True)


def test_a_short_index_is_none(folder: Path) -> None:
    with pytest.raises(UnsoundMessage, match="does not end as a table does: it is truncated, or something else"):
        list(sorted_table.entries(table(ITEMS.items())[:-1]))
    (folder / "w.index").write_bytes(b"x" * 47)
    with pytest.raises(ConverterError, match="not a TensorFlow 2 checkpoint"):
        tf2pt(folder, folder.parent / "out")
