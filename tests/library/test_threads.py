"""The library called from eight threads at once: what each gets is what it would get alone."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from converter import Conversion, ConverterError, pt2tf, tf2pt, verify
from tests.tiny import assert_same, load, write_tiny
from tests.torture import rounds

THREADS = 8
TOWERS = [("vit", "bert"), ("clip_vision_model", "roberta"), ("swin", "albert"), ("deit", "camembert")] * 2


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Starts all calls at the same moment; an error of the library is a result, too."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return call()
        except ConverterError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def contents(folder: Path) -> dict[str, Any]:
    """Hashes of the files, and the manifest but for what differs from one run to the next."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    files.pop("conversion.json")
    manifest = json.loads((folder / "conversion.json").read_text())
    return {"files": files, "tensors": manifest["tensors"]}


def test_different_folders_there_and_back(tmp_path: Path) -> None:
    for i, towers in enumerate(TOWERS):
        write_tiny(tmp_path / f"pt{i}", *towers)
        pt2tf(tmp_path / f"pt{i}", tmp_path / f"alone{i}")
    for number in range(rounds(sample=3, full=50)):
        out = tmp_path / str(number)

        def there_and_back(i: int, out: Path = out) -> Conversion:
            pt2tf(tmp_path / f"pt{i}", out / f"tf{i}")
            return tf2pt(out / f"tf{i}", out / f"back{i}")

        results = at_once([lambda i=i: there_and_back(i) for i in range(THREADS)])  # type: ignore[misc]
        assert [type(result) for result in results] == [Conversion] * THREADS
        for i in range(THREADS):
            assert contents(out / f"tf{i}") == contents(tmp_path / f"alone{i}")
            back, source = (load(folder / "model.safetensors") for folder in (out / f"back{i}", tmp_path / f"pt{i}"))
            assert_same({name: back[name] for name in source}, source)
            assert verify(out / f"tf{i}", weights_only=True).passed


def test_one_source_into_eight_folders(tiny: Path, tmp_path: Path) -> None:
    """Each with a callback of its own, which is told of its own conversion only."""
    told: dict[int, list[tuple[str, int, int]]] = {i: [] for i in range(THREADS)}
    formats: list[Any] = ["h5", "safetensors"] * (THREADS // 2)
    results = at_once([
        lambda i=i: pt2tf(tiny, tmp_path / str(i), format=formats[i], progress=lambda *said: told[i].append(said))  # type: ignore[misc]
        for i in range(THREADS)
    ])  # fmt: skip
    assert [type(result) for result in results] == [Conversion] * THREADS
    for i in range(2, THREADS):
        assert contents(tmp_path / str(i)) == contents(tmp_path / str(i % 2))
    for said in told.values():
        assert {stage for stage, _, _ in said} == {"convert", "check"}
        assert all(0 < done <= total for _, done, total in said)
        for stage in ("convert", "check"):
            assert [done for name, done, total in said if name == stage and done == total]


def test_one_folder_that_eight_want(tiny: Path, tmp_path: Path) -> None:
    """One of them makes it, whole; the others are refused; nothing else is left."""
    for number in range(rounds(sample=5, full=200)):
        out = tmp_path / f"out{number}"
        results = at_once([lambda: pt2tf(tiny, out)] * THREADS)  # noqa: B023
        refused = [str(result) for result in results if isinstance(result, ConverterError)]
        assert len(refused) == THREADS - 1
        assert all(message.startswith(f"{out}: ") for message in refused)
        assert verify(out, weights_only=True).passed
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"out{i}" for i in range(number + 1))


def test_one_folder_that_eight_replace(tiny: Path, tmp_path: Path) -> None:
    """One of them at a time; the others are told to wait."""
    out = tmp_path / "out"
    pt2tf(tiny, out)
    results = at_once([lambda: pt2tf(tiny, out, overwrite=True)] * THREADS)
    refused = {str(result) for result in results if not isinstance(result, Conversion)}
    assert refused <= {f"{out}: another run is writing to it; wait until it ends, or choose another folder"}
    assert any(isinstance(result, Conversion) for result in results)
    assert verify(out, weights_only=True).passed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
