"""Archives as torch.save writes them, made by CPython's own pickler and zipfile alone."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """Something that a pickle names and does not hold: a class or a function of some module."""

    module: str
    name: str

    def __call__(self) -> None:
        raise AssertionError("a pickle only calls it when it is read")


@dataclass(frozen=True)
class Call:
    """What a pickle describes as a call of something named."""

    function: Named
    arguments: tuple[Any, ...]
    state: Any = None
    items: tuple[tuple[Any, Any], ...] = ()


@dataclass(frozen=True)
class Persistent:
    """What a pickle refers to by an id."""

    id: Any


ORDERED = Named("collections", "OrderedDict")


def storage(key: str, count: Any, dtype: str = "float32", where: str = "cpu") -> Persistent:
    """A storage of ``count`` elements in ``data/<key>``."""
    kind = Named("torch", STORAGES[dtype]) if dtype in STORAGES else Named("torch.storage", "UntypedStorage")
    return Persistent(("storage", kind, key, where, count))


def tensor(held: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Call:
    """A view into a storage with a dtype of its own."""
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), (held, offset, shape, stride, False, ordered(), *more))


def ordered(items: Mapping[Any, Any] | None = None, state: Any = None) -> Call:
    """An OrderedDict."""
    return Call(ORDERED, (), state, tuple((items or {}).items()))


class Pickler(pickle._Pickler):  # type: ignore[misc,name-defined]
    """CPython's pickler in Python, which lets us name what does not exist here."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, Persistent) else None

    def save_named(self, obj: Named) -> None:
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def save_call(self, obj: Call) -> None:
        self.save_reduce(obj.function, obj.arguments, obj.state, None, iter(obj.items), obj=obj)

    dispatch[Named] = save_named
    dispatch[Call] = save_call


def dump(value: Any, protocol: int = 2) -> bytes:
    """The pickle of a value."""
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


def write_archive(
    path: Path, text: bytes, storages: Mapping[str, bytes] | None = None, folder: str = "archive", **notes: bytes
) -> Path:
    """Writes the archive with the pickle ``text`` and the bytes of its storages; ``notes`` are further entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", text)
        for name, content in {"byteorder": b"little", "version": b"3\n", **notes}.items():
            archive.writestr(f"{folder}/{name}", content)
        for key, content in (storages or {}).items():
            archive.writestr(f"{folder}/data/{key}", content)
    return path
