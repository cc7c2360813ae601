"""Pickles that would run code, exhaust the machine or read beyond their storages: refused, and nothing of them run."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converter.checkpoints import pickle_machine
from converter.checkpoints.torch_pickle import read_pickle
from converter.checkpoints.torch_zip import read_header
from converter.errors import ConverterError, CorruptCheckpoint, UnsupportedContainer
from tests.archives import Call, Named, Persistent, dump, ordered, storage, tensor, write_archive
from tests.hostile.refusing import refusal, run_alone
from tests.tiny import EXPECTED

UNKNOWN = (
    "its pickle asks for {}, which a state_dict of plain tensors does not need. None of it was run. Load the "
    "model in its own environment and write it with save_pretrained"
)
STORAGE = storage("0", 6)
NUMBERS = struct.pack("<6f", *range(6))


def write(folder: Path, text: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    return write_archive(folder / "pytorch_model.bin", text, {"0": NUMBERS})


def executing(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that make ``canary`` when Python's pickle reads them, and the name that the refusal gives."""
    shell, touch = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"

    def call(module: str, name: str, *arguments: Any, protocol: int = 2) -> bytes:
        return dump({"x": Call(Named(module, name), arguments)}, protocol)

    module = Call(Named("builtins", "__import__"), ("os",))
    system = Call(Named("builtins", "getattr"), (module, "system"))
    dotted = b"\x80\x04\x8c\x02os\x8c\x0bpath.os.sys\x93."
    return {
        "os.system": (call("os", "system", shell), "os.system"),
        "posix.system": (call("posix", "system", shell), "posix.system"),
        "by text": (call("os", "system", shell, protocol=4), "os.system"),
        "eval": (call("builtins", "eval", touch), "builtins.eval"),
        "exec": (call("builtins", "exec", touch), "builtins.exec"),
        "eval of Python 2": (call("__builtin__", "eval", touch), "__builtin__.eval"),
        "open": (call("builtins", "open", str(canary), "w"), "builtins.open"),
        "io.open": (call("io", "open", str(canary), "w"), "io.open"),
        "chain": (dump({"x": Call(Named("functools", "partial"), (system, shell))}), "functools.partial"),
        "getattr": (dump({"x": Call(Named("operator", "call"), (system, shell))}), "operator.call"),
        "subprocess": (call("subprocess", "run", ["touch", str(canary)]), "subprocess.run"),
        "runpy": (call("runpy", "run_path", str(canary)), "runpy.run_path"),
        "dotted": (dotted, "os.path.os.sys"),
        "INST": (b"\x80\x02(X" + struct.pack("<I", len(shell)) + shell.encode() + b"ios\nsystem\n.", "opcode 0x69"),
        "OBJ": (b"\x80\x02(cos\nsystem\nX" + struct.pack("<I", len(shell)) + shell.encode() + b"o.", "os.system"),
        "after a tensor": (
            dump({"x": tensor(STORAGE, 0, (6,), (1,)), "y": Call(Named("os", "system"), (shell,))}),
            "os.system",
        ),
        "as a state": (dump({"x": ordered({}, Call(Named("os", "system"), (shell,)))}), "os.system"),
        "as hooks": (
            dump({"x": Call(Named("torch._utils", "_rebuild_parameter"), (Call(Named("os", "system"), (shell,)),))}),
            "os.system",
        ),
    }


@pytest.mark.parametrize("name", executing(Path()))
def test_what_would_run_is_named_and_not_run(name: str, tmp_path: Path) -> None:
    text, named = executing(tmp_path / "canary")[name]
    source = write(tmp_path / "pt", text)
    assert refusal(source, tmp_path / "out", alone=name == "os.system") == f"{source}: {UNKNOWN.format(named)}"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "by text", "eval", "exec", "open", "io.open", "subprocess", "INST", "OBJ"]
)
def test_those_pickles_do_run_where_nobody_looks(name: str, tmp_path: Path) -> None:
    text, _ = executing(tmp_path / "canary")[name]
    value = pickle.loads(text)
    if "open" in name:
        value["x"].close()
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_tensor", "torch._tensor._rebuild_from_type_v2", "torch.jit.load", "torch.FloatTensor",
        "torch.classes.load_library", "torch._utils._rebuild_tensor_v2.__globals__", "collections.OrderedDict.__init__",
        "collections.Counter", "collections.defaultdict", "numpy.load", "numpy.core.multiarray._reconstruct",
        "_codecs.encode", "copyreg._reconstructor", "builtins.set", "argparse.Namespace", "torch.nn.Linear",
        "torch._utils\x1b[2J._rebuild_tensor_v2", "torch.float32\x00", "torch. float32", "TORCH.float32", ".",
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_other_name_is_known(name: str, protocol: int, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    with pytest.raises(UnsupportedContainer) as caught:
        read_pickle(tmp_path, dump(Call(Named(module, attribute), ()), protocol))
    shown = name.replace("\x1b", "\\x1b").replace("\0", "\\x00")
    said = UNKNOWN.format(shown)
    if name.startswith(("argparse.", "numpy.")):
        way = "Load it in its own environment and save the state_dict alone: torch.save(model.state_dict(), FILE)"
        said = f"{said.partition('Load the')[0]}{way}"
    assert str(caught.value) == f"{tmp_path}: {said}"


@pytest.mark.parametrize("code", sorted(set(range(256)) - pickle_machine._OPERATIONS.keys() - {ord(".")}))
def test_every_other_opcode_is_refused(code: int, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedContainer, match=f"asks for opcode 0x{code:02x}, "):
        read_pickle(tmp_path, b"\x80\x02" + bytes([code]) + b".")


def test_no_framework_is_given_what_was_not_looked_at(tmp_path: Path) -> None:
    """Beside a pickle that would run something lies a sound checkpoint, which is what would be read and found in order."""
    source = tmp_path / "src"
    shutil.copytree(EXPECTED, source)
    write(source, executing(tmp_path / "canary")["os.system"][0])
    status, said, complained = run_alone(["reference", str(source), "-o", str(tmp_path / "golden.safetensors")])
    assert (status, said) == (1, "")
    assert "pytorch_model.bin: its pickle asks for os.system" in complained
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_the_opcodes_that_are_known_are_these() -> None:
    """If you add one, consider what it can build."""
    known = bytes(sorted(pickle_machine._OPERATIONS))
    assert known == bytes(sorted(b"\x80\x95(01N\x88\x89KMJ\x8aGX\x8c\x8dBC)\x85\x86\x87t]ae}suqr\x94hjc\x93QRb"))


UNSOUND: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is truncated"),
    "protocol 1": (b"\x80\x01}.", "it is of protocol 1, supported are 2 to 5"),
    "protocol 6": (b"\x80\x06}.", "it is of protocol 6, supported are 2 to 5"),
    "no end": (b"\x80\x02}", "it is truncated"),
    "two values": (b"\x80\x02}}.", "objects are left on its stack at the end"),
    "no value": (b"\x80\x02.", "objects are left on its stack at the end"),
    "open mark": (b"\x80\x02}(}.", "objects are left on its stack at the end"),
    "more behind": (b"\x80\x02}.cos\nsystem\n", "objects are left on its stack at the end"),
    "empty stack": (b"\x80\x020.", "it uses what it never made"),
    "no mark": (b"\x80\x02}t.", "it uses what it never made"),
    "tuple of nothing": (b"\x80\x02}\x87.", "it builds a tuple from too few items"),
    "no memo": (b"\x80\x02h\x07.", "it uses what it never made"),
    "put nothing": (b"\x80\x02q\x00.", "it uses what it never made"),
    "not UTF-8": (b"\x80\x02\x8c\x02\xff\xfe.", "it uses what it never made"),
    "text of 2**63 bytes": (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "it is truncated"),
    "text of 4 GB": (b"\x80\x02X\xff\xff\xff\xffabc.", "it is truncated"),
    "bytes of 4 GB": (b"\x80\x03B\xff\xff\xff\xffabc.", "it is truncated"),
    "half a real number": (b"\x80\x02G\0\0\0\0", "it is truncated"),
    "half a frame": (b"\x80\x04\x95\0\0\0", "it is truncated"),
    "number of 255 bytes": (b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".", "it holds a number of 255 bytes"),
    "name without end": (b"\x80\x02ctorch\nfloat32", "it is truncated"),
    "name of numbers": (b"\x80\x04K\x01K\x02\x93.", "it names a global with something other than text"),
    "append to a dict": (b"\x80\x02}K\x01a.", "it appends to an object that is not a list"),
    "items of a list": (b"\x80\x02]K\x01K\x02s.", "it sets items on an object that is not a dict"),
    "half an item": (b"\x80\x02}(K\x01u.", "it sets items on an object that is not a dict"),
    "a tuple as key": (b"\x80\x02})K\x01s.", "a key of a dict is a tuple"),
    "twice a key": (b"\x80\x02}(\x8c\x01aN\x8c\x01aNu.", "a dict has the key 'a' twice"),
    "call of text": (b"\x80\x02\x8c\x02os)R.", "it calls an object that is not a function"),
    "call of a dtype": (b"\x80\x02ctorch\nfloat32\n)R.", "it calls an object that is not a function"),
    "call of a storage type": (b"\x80\x02ctorch\nFloatStorage\n)R.", "it calls an object that is not a function"),
    "call with a list": (b"\x80\x02ccollections\nOrderedDict\n]R.", "it calls an object that is not a function"),
    "call with items": (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "an OrderedDict is made with arguments"),
    "attributes of a function": (
        b"\x80\x02ccollections\nOrderedDict\n}b.",
        "it sets attributes on an object that is not an OrderedDict",
    ),
    "size of nothing": (b"\x80\x02ctorch\nSize\n)R.", "a torch.Size is not made of one tuple"),
    "a path as id": (dump(Persistent("/etc/passwd")), "a persistent id does not name a storage"),
    "a negative storage": (dump(storage("0", -1)), "a persistent id does not name a storage"),
    "a storage of text": (dump(storage("0", "6")), "a persistent id does not name a storage"),
    "a storage by number": (dump(storage(0, 6)), "a persistent id does not name a storage"),  # type: ignore[arg-type]
    "a parameter of text": (
        dump(Call(Named("torch._utils", "_rebuild_parameter"), ("x", True, None))),
        "a parameter is not made of a tensor",
    ),
    "a tensor of nothing": (
        dump(Call(Named("torch._utils", "_rebuild_tensor_v2"), ())),
        "a tensor is not made of storage, offset, size and stride",
    ),
    "a tensor of bytes": (
        dump(tensor(storage("0", 6, "bytes"), 0, (6,), (1,))),
        "a tensor is not made of storage, offset, size and stride",
    ),
    "bytes of a tensor": (
        dump(Call(Named("torch._utils", "_rebuild_tensor_v3"), (STORAGE, 0, (6,), (1,), False, None, "uint8"))),
        "a tensor is not made of storage, offset, size, stride and dtype",
    ),
    "a negative offset": (
        dump(tensor(STORAGE, -1, (2,), (1,))),
        "a tensor's offset, sizes and strides do not fit each other",
    ),
    "fewer strides": (
        dump(tensor(STORAGE, 0, (2, 3), (1,))),
        "a tensor's offset, sizes and strides do not fit each other",
    ),
    **{
        f"sizes {sizes}": (dump(tensor(STORAGE, 0, sizes, (1,))), "sizes or strides are not up to 16 numbers from 0")
        for sizes in ((-1,), (2**48,), (2**63 - 1,), (True,), (1.0,), ("1",), [6], 6, None, (1,) * 17, ((1,),))
    },
    **{
        f"strides {strides}": (
            dump(tensor(STORAGE, 0, (6,), strides)),
            "sizes or strides are not up to 16 numbers from 0",
        )
        for strides in ((-1,), (2**48,), [1], 1, None)
    },
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_pickles_are_corrupt(name: str, tmp_path: Path) -> None:
    text, what = UNSOUND[name]
    path = write(tmp_path, text)
    with pytest.raises(CorruptCheckpoint) as caught:
        read_header(path)
    before, _, after = str(caught.value).partition(" at byte ")
    assert before == f"{path}: its pickle is not valid"
    assert after.partition(": ")[2] == f"{what}; download or save it again"


LYING: dict[str, tuple[Any, str]] = {
    "no such storage": (
        tensor(storage("7", 6), 0, (6,), (1,)),
        "tensor x is in storage 7, which the archive lacks",
    ),
    "a storage elsewhere": (
        tensor(storage("../../../etc/passwd", 6), 0, (6,), (1,)),
        "tensor x is in storage ../../../etc/passwd, which the archive lacks",
    ),
    "the pickle as a storage": (
        tensor(storage("../data.pkl", 6), 0, (6,), (1,)),
        "tensor x is in storage ../data.pkl, which the archive lacks",
    ),
    "a larger storage": (
        tensor(storage("0", 7), 0, (6,), (1,)),
        "the storage of tensor x would have 28 bytes, the archive holds 24",
    ),
    "a wider storage": (
        tensor(storage("0", 6, "float64"), 0, (6,), (1,)),
        "the storage of tensor x would have 48 bytes, the archive holds 24",
    ),
    "a storage of 2**63 bytes": (
        tensor(storage("0", 2**62, "float64"), 0, (6,), (1,)),
        "the storage of tensor x would have 36,893,488,147,419,103,232 bytes, the archive holds 24",
    ),
    "one more": (
        tensor(STORAGE, 0, (7,), (1,)),
        "tensor x would reach to byte 28 of a storage of 24",
    ),
    "one further": (
        tensor(STORAGE, 1, (6,), (1,)),
        "tensor x would reach to byte 28 of a storage of 24",
    ),
    "far away": (
        tensor(STORAGE, 2**62, (1,), (1,)),
        "tensor x would reach to byte 18,446,744,073,709,551,620 of a storage of 24",
    ),
    "a scalar behind the end": (
        tensor(STORAGE, 6, (), ()),
        "tensor x would reach to byte 28 of a storage of 24",
    ),
    "a longer stride": (
        tensor(STORAGE, 0, (2, 3), (4, 1)),
        "tensor x would reach to byte 28 of a storage of 24",
    ),
    "a smaller part": (
        tensor(storage("0", 5), 0, (6,), (1,)),
        "tensor x would reach to byte 24 of a storage of 20",
    ),
    "huge": (
        tensor(STORAGE, 0, (2**47,) * 16, (2**47,) * 16),
        f"tensor x would reach to byte {(1 + 16 * (2**47 - 1) * 2**47) * 4:,} of a storage of 24",
    ),
    "huge by repetition": (
        tensor(STORAGE, 0, (2**20, 2**20), (0, 0)),
        "tensor x would expand a storage of 24 bytes to 4,398,046,511,104",
    ),
    "a row of 4 TB": (
        tensor(STORAGE, 0, (1, 2**40), (1, 0)),
        "tensor x would expand a storage of 24 bytes to 4,398,046,511,104",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LYING)
def test_tensors_outside_their_storage_are_corrupt(name: str, tmp_path: Path) -> None:
    view, what = LYING[name]
    source = write(tmp_path / "pt", dump({"x": view}))
    message = f"{source}: not a valid PyTorch checkpoint: {what}; download or save it again"
    assert refusal(source, tmp_path / "out", alone="huge" in name) == message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (7, "7"),
        (None, None),
        ("n" * 2**20, "'" + "n" * 29 + "..." + "n" * 29 + "'"),
        ("\x1b[31m\n" * 200, r"'\x1b[31m\n\x1b[31m\n\x1b[31m\...x1b[31m\n\x1b[31m\n\x1b[31m\n'"),
    ],
    ids=["a number", "None", "1 MB", "escapes"],
)
def test_names_that_no_tensor_has(name: object, shown: str | None, tmp_path: Path) -> None:
    source = write(tmp_path / "pt", dump({name: tensor(STORAGE, 0, (6,), (1,))}))
    message = refusal(source, tmp_path / "out")
    if shown is None:
        assert "a key of a dict is a NoneType; download" in message
    else:
        assert message == (
            f"{source}: not a valid PyTorch checkpoint: a tensor's name is {shown}; download or save it again"
        )


def deep(count: int) -> dict[str, tuple[bytes, str]]:
    """Pickles that ask for much, and what is said of them."""
    nested_list = b"\x80\x02]q\x000" + b"]h\x00aq\x000" * (count // 5) + b"h\x00."
    nested_tuple = b"\x80\x02}\x8c\x01x)" + b"\x85" * count + b"s."
    doubled = b"\x80\x02}\x8c\x01x)" + b"q\x00h\x00\x86" * 60 + b"s."
    doubled_key = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."
    return {
        "lists in lists": (nested_list, "holds a list, expected a state_dict; save model.state_dict() with torch.save"),
        "tuples in tuples": (nested_tuple, "x is a tuple, expected a tensor; save the state_dict alone"),
        "2**60 tuples": (doubled, "x is a tuple, expected a tensor; save the state_dict alone"),
        "2**60 tuples as a key": (doubled_key, "a key of a dict is a tuple"),
        "stack": (b"\x80\x02" + b"]" * count + b".", "its stack grows beyond 100,000"),
        "marks": (b"\x80\x02" + b"(" * count + b".", "it opens more than 1,000 marks"),
        "memo": (b"\x80\x02N" + b"\x94" * count + b".", "its memo grows beyond 1,000,000"),
        "memo far away": (b"\x80\x02}" + b"r\xff\xff\xff\xff" * (count // 8) + b".", ""),
        "opcodes": (b"\x80\x02" + b"N0" * (count // 2 * 3) + b"}.", "it has more than 2,500,000 opcodes"),
        "dicts": (b"\x80\x02" + b"}\x940" * 820_000 + b"}.", ""),
        "tensors that are none": (
            b"\x80\x02ccollections\nOrderedDict\nq\x00" + b"h\x00)R\x940" * 480_000 + b".",
            "holds a Function, expected a state_dict",
        ),
        "wide text": (
            b"\x80\x02X" + struct.pack("<I", 15 * 2**20) + "😀".ljust(15 * 2**20 - 3).encode() + b".",
            "holds a str",
        ),
        "size": (b"\x80\x02" + b"N0" * 9 * 2**20 + b"}.", "has 18,874,372 bytes, accepted are up to 16,777,216"),
    }


@pytest.mark.parametrize("name", deep(0))
def test_exhausting_pickles_are_refused_in_time_and_memory(name: str, tmp_path: Path) -> None:
    text, what = deep(2_000_000)[name]
    source = write(tmp_path / "pt", text)
    assert what in refusal(source, tmp_path / "out", alone=True)


def sound() -> bytes:
    views = {"a": tensor(STORAGE, 0, (2, 3), (3, 1)), "b": tensor(STORAGE, 1, (2, 2), (1, 3)), "c": ordered({"d": 1.5})}
    return dump({"state_dict": ordered(views, {"_metadata": 1}), "epoch": 2**40})


@st.composite
def damaged(draw: Callable[..., Any]) -> bytes:
    """A sound pickle with some bytes replaced, and some inserted or taken out."""
    text = bytearray(sound())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(2, len(text) - 1))
        text[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(text)


@given(text=st.one_of(damaged(), st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail)))
@example(sound())
@settings(max_examples=400)
def test_damaged_pickles_are_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ConverterError):
        read_pickle(Path("x"), text)
