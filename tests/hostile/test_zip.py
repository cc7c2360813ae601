"""Archives that lie about their entries, or lead out of themselves: refused before anything of them is used."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.checkpoints.torch_zip import read_header
from converter.errors import ConverterError
from tests.archives import dump, storage, tensor
from tests.hostile.refusing import refusal

NUMBERS = struct.pack("<6f", *range(6))
STATE = dump({"a": tensor(storage("0", 6), 0, (2, 3), (3, 1)), "b": tensor(storage("0", 6), 1, (2, 2), (1, 3))})
ENTRIES = {"archive/data.pkl": STATE, "archive/byteorder": b"little", "archive/data/0": NUMBERS}
RESAVE = "save the checkpoint again with torch.save or save_pretrained"
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

Change = Callable[[bytes], bytes]


def archive(entries: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive by CPython's zipfile."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in (ENTRIES if entries is None else entries).items():
            made.writestr(name, content)
    return out.getvalue()


def put(at: bytes, offset: int, data: bytes, last: bool = True) -> Change:
    """Overwrites bytes ``offset`` after the last (or first) occurrence of ``at``."""

    def change(content: bytes) -> bytes:
        place = (content.rindex(at) if last else content.index(at)) + offset
        return content[:place] + data + content[place + len(data) :]

    return change


def both(*changes: Change) -> bytes:
    content = archive()
    for change in changes:
        content = change(content)
    return content


def renamed(name: str) -> bytes:
    """The archive with the last entry called ``name``, which has the length of ``archive/data/0``."""
    assert len(name) == len("archive/data/0")
    return archive().replace(b"archive/data/0", name.encode())


def doubled() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as made:
        warnings.simplefilter("ignore")
        for name, content in (*ENTRIES.items(), ("archive/data.pkl", dump({}))):
            made.writestr(name, content)
    return out.getvalue()


def nested() -> bytes:
    """The archive with an entry that lies in the bytes of another."""
    inner = archive({"archive/data/1": b"text"})
    content = archive({**ENTRIES, "archive/data/0": inner})
    record = bytearray(inner[inner.index(CENTRAL) : inner.index(END)])
    struct.pack_into("<L", record, 42, content.index(inner))
    end = content.rindex(END)
    _, _, _, _, count, length, start, _ = struct.unpack("<4s4H2LH", content[end:])
    last = struct.pack("<4s4H2LH", END, 0, 0, count + 1, count + 1, length + len(record), start, 0)
    return content[:end] + bytes(record) + last


def end64(count: int = 3, start: int | None = None, at: int | None = None) -> bytes:
    """The archive with records of zip64 before its end."""
    content = archive()
    end = content.rindex(END)
    length, first = struct.unpack_from("<LL", content, end + 12)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start or first)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end if at is None else at, 1)
    return content[:end] + record + locator + content[end:]


def short64() -> bytes:
    """The archive with a zip64 field of one number in its last entry."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in ENTRIES.items():
            made.writestr(name, content)
        made.getinfo("archive/data/0").extra = struct.pack("<HHQ", 1, 8, len(NUMBERS))
    return out.getvalue()


OUTSIDE = {
    name: name.replace("\0", "\\x00")
    for name in (
        "/etc/passwd/00", "archive/../../", "archive/../d/0", "C:/dat/data/00", "archive\\data\\0", "archive/data/\0",
        "archive//data0", "archive/./dat0", "archive/data0/",
    )
}  # fmt: skip
NO_END = "it does not end with a zip directory: it is truncated, or bytes follow the directory"
UNSOUND: dict[str, tuple[bytes, str]] = {
    **{
        f"named {name!r}": (renamed(name), f"its entry {shown} has a name that is not a plain path inside the archive")
        for name, shown in OUTSIDE.items()
    },
    "not UTF-8": (
        archive().replace(b"archive/data/0", b"archive/data/\xff"),
        r"its entry b'archive/data/\xff' has a name that is not UTF-8",
    ),
    "twice": (doubled(), "it holds archive/data.pkl twice"),
    "truncated": (archive()[:-1], NO_END),
    "half": (archive()[:150], NO_END),
    "four bytes": (LOCAL, NO_END),
    "bytes behind": (archive() + b"x", NO_END),
    "comment": (both(put(END, 20, b"\1")), "it is one part of several, or has a comment"),
    "several disks": (both(put(END, 4, b"\1")), "it is one part of several, or has a comment"),
    "fewer entries": (both(put(END, 8, b"\2\0\2")), "its directory has 60 bytes more than its 2 entries"),
    "more entries": (both(put(END, 8, b"\4\0\4")), "its directory ends early at byte 185"),
    "a longer directory": (
        both(put(END, 12, b"\xff\xff\xff\x7f")),
        "its directory would be 2,147,483,647 bytes at 442, and its end is at 627",
    ),
    "a directory elsewhere": (
        both(put(END, 16, b"\0\0\0\0")),
        "its directory would be 185 bytes at 0, and its end is at 627",
    ),
    "no record": (both(put(CENTRAL, 0, b"PK\x01\x03")), "its directory ends early at byte 125"),
    "a long name": (both(put(CENTRAL, 28, b"\xff\xff")), "its directory ends early at byte 125"),
    "another name in front": (
        both(put(b"archive/data/0", 0, b"archive/data/1", last=False)),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "another size in front": (
        both(put(LOCAL, 18, struct.pack("<LL", 23, 23))),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "another method in front": (
        both(put(LOCAL, 8, b"\x08")),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "other flags in front": (
        both(put(LOCAL, 6, b"\x01")),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "no sizes in front, none behind": (
        both(put(LOCAL, 18, struct.pack("<LL", 0, 0))),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "a header nowhere": (
        both(put(CENTRAL, 42, b"\xff\xff\xff\x7f")),
        "its entry archive/data/0 would begin at byte 2,147,483,647, where none does",
    ),
    "a header in the data": (
        both(put(CENTRAL, 42, b"\x10\0\0\0")),
        "its entry archive/data/0 would begin at byte 16, where none does",
    ),
    "a larger entry": (
        both(put(CENTRAL, 20, struct.pack("<LL", 2**30, 2**30)), put(LOCAL, 18, struct.pack("<LL", 2**30, 2**30))),
        "its entry archive/data/0 of 1,073,741,824 bytes would reach beyond the directory at 442",
    ),
    "zip64 without field": (
        both(put(CENTRAL, 20, b"\xff" * 8)),
        "its entry archive/data/0 has a header that contradicts the directory",
    ),
    "zip64 field too short": (
        put(CENTRAL, 20, b"\xff" * 8)(short64()),
        "the zip64 field of its entry archive/data/0 is too short",
    ),
    "one inside another": (nested(), "its entry archive/data/1 overlaps another"),
    "zip64 count": (end64(count=2), "its zip64 records contradict the others"),
    "zip64 start": (end64(start=9), "its zip64 records contradict the others"),
    "zip64 elsewhere": (end64(at=0), "its zip64 records lie elsewhere than they claim"),
    "two folders": (archive({**ENTRIES, "other/x": b""}), "it holds entries outside the folder archive/"),
}  # fmt: skip
UNREAD: dict[str, tuple[bytes, str]] = {
    "compressed": (
        archive(method=zipfile.ZIP_DEFLATED),
        f"its entry archive/data.pkl is compressed, which torch never does; {RESAVE}",
    ),
    "bomb": (
        archive({"archive/data.pkl": bytes(2**29)}, zipfile.ZIP_DEFLATED),
        f"its entry archive/data.pkl is compressed, which torch never does; {RESAVE}",
    ),
    "size of a bomb": (
        both(put(CENTRAL, 24, struct.pack("<L", 2**30))),
        f"its entry archive/data/0 is compressed, which torch never does; {RESAVE}",
    ),
    "encrypted": (
        both(put(CENTRAL, 8, b"\1"), put(LOCAL, 6, b"\1")),
        f"its entry archive/data/0 is encrypted, which torch never writes; {RESAVE}",
    ),
    "patched": (
        both(put(CENTRAL, 8, b"\x20"), put(LOCAL, 6, b"\x20")),
        f"its entry archive/data/0 has flags 0x0020, which torch never writes; {RESAVE}",
    ),
    "nothing of torch": (
        archive({"a\x1b[31m/x": b""}),
        r"a zip archive that torch.save did not write (no data.pkl), which holds a\x1b[31m/x; "
        "unpack it, and name the folder with config.json and the weights",
    ),
    "big-endian": (
        archive({**ENTRIES, "archive/byteorder": b"big"}),
        "its byte order is b'big', expected little; load and save it on a little-endian machine",
    ),
    "TorchScript": (
        archive({**ENTRIES, "archive/constants.pkl": b"", "archive/code/__torch__.py": b"import os"}),
        "a TorchScript archive, which holds a program and not only weights; save the state_dict of the module with "
        "torch.save",
    ),
}  # fmt: skip


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(content)
    return folder / "pytorch_model.bin"


def test_the_archive_that_all_others_are_made_of_is_sound(tmp_path: Path) -> None:
    for name, content in (("plain", archive()), ("zip64", end64())):
        tensors = read_header(write(tmp_path / name, content)).tensors
        assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (2, 3), "b": (2, 2)}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_archives_are_refused(name: str, tmp_path: Path) -> None:
    content, what = UNSOUND[name]
    source = write(tmp_path / "pt", content)
    message = f"{source}: not a valid torch zip archive: {what}; download or save it again"
    if name == "two folders":
        message = message.replace("torch zip archive", "PyTorch checkpoint")
    assert refusal(source, tmp_path / "out") == message


@pytest.mark.parametrize("name", UNREAD)
def test_other_archives_are_refused(name: str, tmp_path: Path) -> None:
    content, what = UNREAD[name]
    source = write(tmp_path / "pt", content)
    assert refusal(source, tmp_path / "out", alone=name == "bomb") == f"{source}: {what}"


def test_a_long_note_is_not_read(tmp_path: Path) -> None:
    source = write(tmp_path / "pt", archive({**ENTRIES, "archive/byteorder": b"little" * 50}))
    assert refusal(source, tmp_path / "out") == (
        f"{source}: not a valid PyTorch checkpoint: archive/byteorder has 300 bytes, accepted are up to 100; download "
        "or save it again"
    )


def test_a_directory_of_many_entries_is_not_read(tmp_path: Path) -> None:
    content = archive()
    end = content.rindex(END)
    record = content[content.rindex(CENTRAL) : end]
    directory = content[content.index(CENTRAL) : end] + record * 200_000
    start = content.index(CENTRAL)
    record64 = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 200_003, 200_003, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(directory), 1)
    last = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, len(directory), start, 0)
    source = write(tmp_path / "pt", content[:start] + directory + record64 + locator + last)
    assert refusal(source, tmp_path / "out") == (
        f"{source}: not a valid torch zip archive: its directory has 200,003 entries in 12,000,185 bytes; accepted "
        "are 100,000 in 33,554,432; download or save it again"
    )


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", archive())
    (tmp_path / "pt").mkdir()
    (tmp_path / "pt" / "pytorch_model.bin").symlink_to(secret)
    for source in (tmp_path / "pt", tmp_path / "pt" / "pytorch_model.bin"):
        assert refusal(source, tmp_path / "out") == (
            f"{tmp_path / 'pt' / 'pytorch_model.bin'}: a link out of its folder, to {secret}; copy the file itself "
            "into the folder"
        )


def test_an_entry_that_is_a_link_is_its_text(tmp_path: Path) -> None:
    """Nothing is unpacked: where zip says that an entry is a link, its bytes are the path, and no tensor's."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in {**ENTRIES, "archive/data/0": b"/etc/passwd"}.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            made.writestr(info, content)
    source = write(tmp_path / "pt", out.getvalue())
    assert refusal(source, tmp_path / "out") == (
        f"{source}: not a valid PyTorch checkpoint: the storage of tensor a would have 24 bytes, the archive holds 11; "
        "download or save it again"
    )


@given(place=st.integers(0, len(archive()) - 1), data=st.binary(min_size=1, max_size=4), cut=st.integers(0, 8))
@settings(max_examples=400)
def test_damaged_archives_are_read_within_the_file_or_refused(place: int, data: bytes, cut: int) -> None:
    content = archive()
    content = content[:place] + data + content[place + cut :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.bin")
        path.write_bytes(content)
        with contextlib.suppress(ConverterError):
            for held in read_header(path).tensors.values():
                if held.extent is not None:
                    assert held.extent.offset >= 0
                    assert held.extent.offset + held.extent.nbytes <= len(content)
                else:
                    assert held.read_rows is not None
                    assert held.read_rows(0, held.shape[0]).shape == held.shape
