"""Several conversions at once: into one folder one wins and the others are refused, into several all succeed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converter import verify
from tests.crash import children
from tests.crash.children import Ended
from tests.crash.preparing import without_kernel
from tests.crash.sources import CASES, content, listing
from tests.torture import rounds

CROWD = 4


def at_once(runs: list[list[str]], tmp_path: Path, help_of_kernel: bool = True) -> list[Ended]:
    """Runs several command lines at the same time."""
    folders = [tmp_path / f"talk-{number}" for number in range(len(runs))]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(runs)) as pool:
        prepare = None if help_of_kernel else without_kernel
        waiting = [
            pool.submit(children.run, run, folder, prepare=prepare) for run, folder in zip(runs, folders, strict=True)
        ]
        return [one.result() for one in waiting]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("turn", range(rounds(sample=1, full=25)))
def test_into_the_same_folder(sources: Path, tmp_path: Path, kernel: bool, turn: int) -> None:
    case = list(CASES.values())[turn % len(CASES)]
    out = tmp_path / "place" / "out"
    arguments = case.words(sources, out)
    ended = at_once([arguments] * CROWD, tmp_path, kernel)
    assert sorted(one.status for one in ended) == [0, *[1] * (CROWD - 1)]
    late = f"convert: {out}: exists already; choose another folder, or replace its checkpoint with --overwrite\n"
    lost = f"convert: {out}: another process created it meanwhile; choose another folder\n"
    assert {one.err for one in ended if one.status} <= {late, lost}
    assert not case.proved or verify(out, weights_only=True).passed
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("turn", range(rounds(sample=1, full=25)))
def test_all_replacing_the_same_folder(sources: Path, tmp_path: Path, kernel: bool, turn: int) -> None:
    """One at a time may; the others are refused, and leave nothing."""
    case = list(CASES.values())[turn % len(CASES)]
    out = tmp_path / "place" / "out"
    arguments = case.words(sources, out)
    assert children.run(arguments, at_once([["--version"]], tmp_path) and tmp_path / "talk-0").status == 0
    whole = content(out)
    ended = at_once([[*arguments, "--overwrite"]] * CROWD, tmp_path, kernel)
    busy = f"convert: {out}: another run is writing to it; wait until it ends, or choose another folder\n"
    assert {(one.status, one.err) for one in ended} <= {(0, ""), (1, busy)}
    assert (0, "") in [(one.status, one.err) for one in ended]
    assert content(out) == whole
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_side_by_side(sources: Path, tmp_path: Path) -> None:
    """Every case twice at once, all from the same sources, into folders beside one another (half of them in the sample)."""
    cases = list(CASES.values())[:: rounds(sample=2, full=1)]
    before = listing(sources)
    place = tmp_path / "place"
    runs = [
        case.words(sources, place / f"out-{turn}-{number}") for number, case in enumerate(cases) for turn in range(2)
    ]
    assert [(one.status, one.err) for one in at_once(runs, tmp_path)] == [(0, "")] * len(runs)
    for number, case in enumerate(cases):
        one, other = place / f"out-0-{number}", place / f"out-1-{number}"
        assert not case.proved or verify(one, weights_only=True).passed
        assert content(one) == content(other)
    assert listing(sources) == before
    assert len(list(place.iterdir())) == len(runs)
