"""HDF5 files that lie, lead elsewhere or exhaust what they can."""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import tf2pt
from converter.checkpoints import hdf5
from converter.checkpoints.detect import read_header
from converter.errors import ConverterError, CorruptCheckpoint, PlanError
from converter.specs import StoredTensor
from tests.hdf5_files import read_all, sound_file, value, write_h5
from tests.hostile.conftest import Refused
from tests.tiny import EXPECTED, FIXTURE


def folder_with(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    shutil.copyfile(FIXTURE / "config.json", folder / "config.json")
    return folder


def external_link(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_link_to_a_file_beside(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = h5py.ExternalLink("other.h5", "/x")


def soft_link(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/y:0"] = np.ones(3, "f4")
    layer["r/x:0"] = h5py.SoftLink("/a/r/y:0")


def soft_link_loop(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = h5py.SoftLink("/a/r/z:0")
    layer["r/z:0"] = h5py.SoftLink("/a/r/x:0")


def soft_link_to_a_group(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.ones(3, "f4")
    file["b"] = h5py.SoftLink("/a")


def external_data(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (20,), "u1", external=[("/etc/passwd", 0, 20)])


def virtual_data(file: h5py.File, layer: h5py.Group) -> None:
    virtual = h5py.VirtualLayout((20,), "u1")
    virtual[:] = h5py.VirtualSource("/etc/passwd", "x", (20,))
    layer.create_group("r").create_virtual_dataset("x:0", virtual)


def unknown_filter(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (20,), "f4", chunks=(20,))
    plist = layer["r/x:0"].id.get_create_plist()
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = layer["r/x:0"].id.get_space()
    del layer["r/x:0"]
    h5py.h5d.create(layer["r"].id, b"x:0", h5py.h5t.IEEE_F32LE, space, plist)


def of_dtype(dtype: Any) -> Callable[[h5py.File, h5py.Group], None]:
    def write(file: h5py.File, layer: h5py.Group) -> None:
        layer.create_dataset("r/x:0", (3,), dtype)

    return write


def empty_dataset(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = h5py.Empty("f4")


def too_many_axes(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (1,) * 20, "f4")


def giant_chunks(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (2**28,), "f4", chunks=(2**28,), compression="gzip")


def large_chunks_by_lzf(file: h5py.File, layer: h5py.Group) -> None:
    layer.create_dataset("r/x:0", (2**20,), "f4", chunks=(2**20,), compression="lzf")


def filters_in_another_order(file: h5py.File, layer: h5py.Group) -> None:
    """The checksum first: what is compressed then is no multiple of anything."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((20,))
    properties.set_fletcher32()
    properties.set_deflate(4)
    space = h5py.h5s.create_simple((20,))
    h5py.h5d.create(layer.create_group("r").id, b"x:0", h5py.h5t.IEEE_F32LE, space, properties)


def listed_twice(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.ones(3, "f4")
    layer.attrs["weight_names"] = [b"r/x:0", b"r/x:0"]


def a_long_name(file: h5py.File, layer: h5py.Group) -> None:
    layer[f"r/{'x' * 1001}:0"] = np.ones(3, "f4")


def listed_but_absent(file: h5py.File, layer: h5py.Group) -> None:
    layer.attrs["weight_names"] = [b"r/x:0"]


def there_but_not_listed(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.ones(3, "f4")
    layer.attrs["weight_names"] = np.zeros(0, "S1")


def a_layer_that_is_not_there(file: h5py.File, layer: h5py.Group) -> None:
    file.attrs["layer_names"] = [b"a", b"b"]


def a_layer_that_is_not_listed(file: h5py.File, layer: h5py.Group) -> None:
    file.create_group("b")


def a_layer_that_is_a_dataset(file: h5py.File, layer: h5py.Group) -> None:
    file["b"] = np.ones(3)
    file.attrs["layer_names"] = [b"a", b"b"]


def no_weight_names(file: h5py.File, layer: h5py.Group) -> None:
    file.create_group("b")
    file.attrs["layer_names"] = [b"a", b"b"]


def dots_in_a_name(file: h5py.File, layer: h5py.Group) -> None:
    layer["r/x:0"] = np.ones(3, "f4")
    layer.attrs["weight_names"] = [b"r/../r/x:0"]


def names_that_are_numbers(file: h5py.File, layer: h5py.Group) -> None:
    layer.attrs["weight_names"] = [1, 2, 3]


def names_that_are_not_utf8(file: h5py.File, layer: h5py.Group) -> None:
    layer.attrs["weight_names"] = np.array([b"r/\xff\xfe:0"])


def names_that_are_nothing(file: h5py.File, layer: h5py.Group) -> None:
    layer.attrs["weight_names"] = h5py.Empty("S3")


def names_with_escapes(file: h5py.File, layer: h5py.Group) -> None:
    layer.attrs["weight_names"] = ["r/\x1b[2J\n\u202e:0"]


CASES: dict[str, tuple[Callable[[h5py.File, h5py.Group], None], str]] = {
    "external link": (external_link, "a/r/x:0 is a link to another place and holds no data"),
    "external link beside": (external_link_to_a_file_beside, "a/r/x:0 is a link to another place and holds no data"),
    "soft link": (soft_link, "a/r/x:0 is a link to another place and holds no data"),
    "soft link loop": (soft_link_loop, "a/r/x:0 is a link to another place and holds no data"),
    "soft link to a group": (soft_link_to_a_group, "b is a link to another place and holds no data"),
    "external data": (external_data, "a/r/x:0 keeps its data in another file"),
    "virtual data": (virtual_data, "a/r/x:0 keeps its data in another file"),
    "unknown filter": (unknown_filter, "a/r/x:0 is compressed by filter 32015, which needs a plugin"),
    "text": (of_dtype("S7"), "a/r/x:0 has dtype |S7, which no weight has"),
    "objects": (of_dtype(h5py.string_dtype()), "a/r/x:0 has dtype object, which no weight has"),
    "references": (of_dtype(h5py.ref_dtype), "a/r/x:0 has dtype object, which no weight has"),
    "compounds": (of_dtype([("a", "f4")]), "a/r/x:0 has dtype [('a', '<f4')], which no weight has"),
    "complex": (of_dtype("c8"), "a/r/x:0 has dtype complex64, which no weight has"),
    "long double": (of_dtype("f16"), "a/r/x:0 has dtype float128, which no weight has"),
    "empty": (empty_dataset, "a/r/x:0 has dtype float32, which no weight has"),
    "too many axes": (too_many_axes, "a/r/x:0 has dtype float32, which no weight has"),
    "giant chunks": (giant_chunks, "a/r/x:0 has chunks of more than 134,217,728 bytes; rewrite it with h5repack"),
    "large chunks by LZF": (
        large_chunks_by_lzf,
        "a/r/x:0 has chunks of more than 2,097,152 bytes; rewrite it with h5repack",
    ),
    "filters in another order": (
        filters_in_another_order,
        "a/r/x:0 applies its filters in an unknown order",
    ),
    "listed twice": (listed_twice, "it lists x twice"),
    "a long name": (a_long_name, f"tensor {'x' * 100}...{'x' * 100} has a name of 1,001 characters"),
    "listed but absent": (listed_but_absent, "weight_names lists a/r/x:0, which is not there"),
    "there but not listed": (there_but_not_listed, "no weight_names lists these datasets: a/r/x:0"),
    "layer not there": (a_layer_that_is_not_there, "layer_names lists b, which is not a group of it"),
    "layer not listed": (a_layer_that_is_not_listed, "layer_names lists a; the file also holds b"),
    "layer that is a dataset": (a_layer_that_is_a_dataset, "layer_names lists b, which is not a group of it"),
    "no weight_names": (no_weight_names, "/b has no attribute weight_names"),
    "dots in a name": (dots_in_a_name, "weight_names lists a/r/../r/x:0, which is not there"),
    "names that are numbers": (names_that_are_numbers, "weight_names lists a/1, which is not there"),
    "names not UTF-8": (names_that_are_not_utf8, "HDF5 cannot read it: 'utf-8' codec can't decode byte 0xff"),
    "names that are nothing": (names_that_are_nothing, "HDF5 cannot read it: "),
    "names with escapes": (names_with_escapes, r"weight_names lists a/r/\x1b[2J\n\u202e:0, which is not there"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(tmp_path: Path, refused: Refused, case: str) -> None:
    damage, message = CASES[case]
    folder = folder_with(tmp_path)
    with sound_file(folder / "tf_model.h5") as (file, layer):
        damage(file, layer)
    found = refused(folder, CorruptCheckpoint)
    assert found.startswith(f"{folder}/tf_model.h5: not a valid tf_model.h5: {message}")
    assert found.endswith("; download or save it again")


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    """The cases above are wrong by what they say: this one, without a fault, is read."""
    with sound_file(tmp_path / "tf_model.h5") as (_, layer):
        layer["r/x:0"] = np.arange(3, dtype="f4")
    assert value(read_header(tmp_path / "tf_model.h5").tensors["x"]).tolist() == [0, 1, 2]


def test_a_circle_of_groups(tmp_path: Path) -> None:
    """A hard link back up: the walk ends, the other way to the data is not a name of it."""
    with sound_file(tmp_path / "tf_model.h5") as (_, layer):
        layer["r/x:0"] = np.ones(3, "f4")
        layer["r/up"] = layer
        layer.attrs["weight_names"] = [b"r/x:0"]
    try:
        assert set(read_header(tmp_path / "tf_model.h5").tensors) == {"x"}
    except CorruptCheckpoint as error:
        assert "no weight_names lists" in str(error)


def test_too_many_links(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_LINKS", 50)
    folder = folder_with(tmp_path)
    with sound_file(folder / "tf_model.h5") as (_, layer):
        for number in range(60):
            layer[f"r/{number}:0"] = np.ones(1, "i1")
    assert "it holds more than 50 links" in refused(folder, CorruptCheckpoint)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 2048, 10_000, 300_000, 589_000])
def test_truncated(tmp_path: Path, refused: Refused, keep: int) -> None:
    folder = folder_with(tmp_path)
    (folder / "tf_model.h5").write_bytes((EXPECTED / "tf_model.h5").read_bytes()[:keep])
    refused(folder)


@pytest.mark.parametrize("seed", range(24))
def test_bits_flipped(tmp_path: Path, seed: int) -> None:
    """Refused, or converted: never a crash, a traceback or a read beyond the file."""
    noise = np.random.default_rng(seed)
    folder = folder_with(tmp_path)
    content = np.fromfile(EXPECTED / "tf_model.h5", np.uint8)
    # Every other time in the first bytes, where superblock and groups are.
    places = noise.integers(0, 8_192 if seed % 2 else len(content), 1 + seed % 5)
    content[places] ^= np.uint8(1) << noise.integers(0, 8, len(places)).astype(np.uint8)
    content.tofile(folder / "tf_model.h5")
    try:
        tf2pt(folder, tmp_path / "out")
    except ConverterError as error:
        assert str(error).isprintable()
        assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_the_shape_of_a_header_is_not_believed(tmp_path: Path, refused: Refused) -> None:
    folder = folder_with(tmp_path)
    tensors = read_all(EXPECTED / "tf_model.h5")
    tensors["text_projection/kernel"] = tensors["text_projection/kernel"].T.copy()
    write_h5(folder / "tf_model.h5", tensors)
    assert refused(folder, PlanError).startswith("tensor shapes that differ from config.json (1): ")


@pytest.mark.parametrize(
    ("address", "size", "message"),
    [
        # HDF5 1.14.2 lets it pass, 1.14.6 does not
        (8, 0, "(HDF5 cannot read it: |a/r/x:0 lies beyond the end of the file: it is truncated)"),
        (2**40, 0, "(HDF5 cannot read it: |a/r/x:0 lies beyond the end of the file: it is truncated)"),
        (0, -4, "a/r/x:0 holds 76 bytes, not 80"),
        (0, 4, "a/r/x:0 holds 84 bytes, not 80"),
    ],
)
def test_extents_that_lie(tmp_path: Path, refused: Refused, address: int, size: int, message: str) -> None:
    """Address and size as they stand in the object's header, which has no checksum."""
    folder = folder_with(tmp_path)
    path = folder / "tf_model.h5"
    with sound_file(path) as (_, layer):
        layer["r/x:0"] = np.arange(20, dtype="f4")
        layer["r/y:0"] = np.arange(20, dtype="f4")
        offset = layer["r/x:0"].id.get_offset()
    content = path.read_bytes()
    stands = struct.pack("<QQ", offset, 80)
    assert content.count(stands) == 1
    moved = len(content) - 80 + address if address else offset
    path.write_bytes(content.replace(stands, struct.pack("<QQ", moved, 80 + size)))
    assert re.search(message, refused(folder, CorruptCheckpoint))


def test_an_extent_beyond_the_end_that_hdf5_lets_pass(tmp_path: Path) -> None:
    """HDF5 before 1.14 opens such a dataset: then it is refused here."""
    path = tmp_path / "tf_model.h5"
    with sound_file(path) as (file, layer):
        layer["r/x:0"] = np.arange(20, dtype="f4")
        end = layer["r/x:0"].id.get_offset() + 80
        assert hdf5._dataset(path, file, "a/r/x:0", "x", end).extent is not None
        with pytest.raises(CorruptCheckpoint, match="a/r/x:0 lies beyond the end of the file: it is truncated"):
            hdf5._dataset(path, file, "a/r/x:0", "x", end - 1)


def test_a_list_of_too_many_names(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_LINKS", 50)
    folder = folder_with(tmp_path)
    with sound_file(folder / "tf_model.h5") as (_, layer):
        layer["r/x:0"] = np.ones(1, "i1")
        layer.attrs["weight_names"] = [b"r/x:0"] * 60
    assert "attribute weight_names has " in refused(folder, CorruptCheckpoint)


def chunk_of(path: Path, content: bytes) -> StoredTensor:
    """A dataset of one chunk of 80 bytes, which holds ``content`` as if gzip had made it."""
    with sound_file(path) as (_, layer):
        dataset = layer.create_dataset("r/x:0", (20,), "f4", chunks=(20,), compression="gzip")
        dataset.id.write_direct_chunk((0,), content)
    return read_header(path).tensors["x"]


def test_a_chunk_that_unpacks_to_more(tmp_path: Path) -> None:
    """A bomb: HDF5 would make room for all of it."""
    tensor = chunk_of(tmp_path / "tf_model.h5", zlib.compress(bytes(81)))
    with pytest.raises(CorruptCheckpoint, match="a/r/x:0 has a chunk that decompresses to more than its 80 bytes; "):
        value(tensor)
    (tmp_path / "tf_model.h5").unlink()
    assert value(chunk_of(tmp_path / "tf_model.h5", zlib.compress(bytes(80)))).tolist() == [0] * 20


def test_a_chunk_that_cannot_be_unpacked(tmp_path: Path) -> None:
    tensor = chunk_of(tmp_path / "tf_model.h5", b"no zlib at all")
    with pytest.raises(CorruptCheckpoint, match="a/r/x:0 has a chunk that does not decompress: Error -3 while "):
        value(tensor)
