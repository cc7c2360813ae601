"""The benchmark runs, prints what it says it prints, leaves no checkpoints behind, and can miss a bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import exports, verify
from benchmarks.convert import ROOM, SIZES, Case, Run, lacks_room, summarise, table
from benchmarks.convert import make_cases as cases_of
from benchmarks.limit import STEPS, limit
from benchmarks.timeline import STAGES

ROOT = Path(__file__).resolve().parents[1]
CONVERSIONS = [
    "pt2tf",
    "pt2tf to TF safetensors",
    "tf2pt",
    "tf2pt to .bin",
    "pt2tf from .bin",
    "tf2pt from TF safetensors",
]


def test_it_times_every_container(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "convert.py"), "--sizes", "tiny", "--runs", "1"]
    command += ["--folder", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    command += ["--cases", "h5", "bin", "tf-safetensors"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    report = json.loads((tmp_path / "results" / "convert-tiny.json").read_text("utf-8"))
    assert (report["tensors"], report["bytes"]) == (81, 97_444)
    rows = {row["name"]: row for row in report["cases"]}
    assert sorted(rows) == sorted(
        [f"cp {source}" for source in ("pt", "tf", "bin", "tf-safetensors")]
        + [name for plain in CONVERSIONS for name in (plain, f"{plain} --no-check")]
    )
    for name, row in rows.items():
        assert len(row["runs"]) == 1
        assert (row["times_cp"] is None) == name.startswith("cp ")
        assert 1 < row["peak_mb"] < 200
        assert f"| {name} | {row['median_s']:.2f} |" in answer.stdout
    assert f"| limit | {report['limit']['checked_s']:.2f} |" in answer.stdout
    assert [row["stage"] for row in report["timeline"]] == list(STAGES)  # so small a model is far above the aim
    assert all(row["cpu_s"] >= 0 and 0 <= row["seconds"] < 60 for row in report["timeline"])
    assert f"| check | {report['timeline'][4]['seconds']:.2f} |" in answer.stdout
    assert 0 < report["limit"]["unchecked_s"] < report["limit"]["checked_s"]
    assert list((tmp_path / "data").iterdir()) == []


def test_open_clips_layout_is_timed_beside_its_twin() -> None:
    """With the same bounds, and the same command."""
    cases = {case.name: case for case in cases_of("clip-vit-b-32", Path("data"), SIZES["clip-vit-b-32"][2], 0)}
    for name in ("pt2tf", "pt2tf --no-check"):
        ours, theirs = cases[name], cases[name.replace("pt2tf", "pt2tf from OpenCLIP")]
        assert (ours.at_most, ours.peak_mb) == (theirs.at_most, theirs.peak_mb) != (None, None)
        swapped = {str(Path("data/pt")): str(Path("data/open_clip"))}
        assert [swapped.get(word, word) for word in ours.command] == list(theirs.command)
        assert theirs.against == "cp open_clip"


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (Run(2.0, 1.0, 199.0), "2.0 |  | 3x, 200 MB hold"),
        (Run(3.1, 1.0, 199.0), "3.1 |  | 3x, 200 MB MISSED"),
        (Run(2.0, 1.0, 201.0), "2.0 |  | 3x, 200 MB MISSED"),
    ],
)
def test_a_bound_can_be_missed(run: Run, found: str) -> None:
    case = Case("pt2tf", (), Path("out"), "cp pt", 3, peak_mb=200)
    row = summarise(case, {"cp pt": [Run(1.0, 0.0, 1.0)], "pt2tf": [run]}, 401)
    assert found in table([row])


def test_bounds_are_those_of_the_size(tmp_path: Path) -> None:
    bounds = {
        size: {case.name: case.at_most for case in cases_of(size, tmp_path, SIZES[size][2], 0) if case.at_most}
        for size in SIZES
    }
    ways = ("pt2tf", "tf2pt", "flax2tf", "flax2pt", "pt2flax")
    assert bounds == {
        "clip-italian": {f"{way}{check}": bound for way in ways for check, bound in ((" --no-check", 4), ("", 8))},
        "clip-vit-b-32": {
            "pt2tf --no-check": 4, "pt2tf": 8, "tf2pt --no-check": 4, "tf2pt": 8,
            "pt2tf from OpenCLIP --no-check": 4, "pt2tf from OpenCLIP": 8,
        },
        "4gb": {"pt2tf --no-check": 3, "pt2tf": 6, "tf2pt --no-check": 3, "tf2pt": 6},
        "20000-tensors": {},
        "tiny": {},
        "0.1gb": {}, "1gb": {}, "16gb": {},
    }  # fmt: skip


def test_the_limit_follows_from_the_rates() -> None:
    """1 GB: 0.25 read, 0.1 moved and 0.5 written; the check sums 3 times at 0.5 s, reads again and moves twice."""
    rates = {"read": 4e9, "write": 2e9, "copy": 10e9, "blake3": 2e9, "start": 0.1}
    one, many = limit(rates, 1e9, 1), limit(rates, 1e9, 64)
    assert one["unchecked_s"] == pytest.approx(0.1 + 0.25 + 0.1 + 0.5)
    assert one["checked_s"] == pytest.approx(0.1 + 0.85 + 3 * 0.5 + 0.25 + 2 * 0.1)
    assert many["unchecked_s"] == many["checked_s"] == pytest.approx(0.1 + 0.5)  # one thread writes to a file


def test_every_step_of_the_limit_has_its_stage() -> None:
    assert sorted(step for steps in STAGES.values() for step in steps) == sorted(name for name, _, _ in STEPS)


def test_how_the_cost_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {case.name: case for case in cases_of("1gb", tmp_path, SIZES["1gb"][2], 0, cold=True)}
    ways = {"pt2tf", "pt2tf --no-check"}
    assert {name for name in cases if not name.endswith("core")} == {
        name for way in (*ways, "cp pt") for name in (way, f"{way}, cold")
    }
    assert cases["pt2tf, cold"].against == "cp pt, cold"
    assert cases["pt2tf, cold"].evicted == tmp_path / "pt"
    assert lacks_room("1gb", tmp_path) is None
    monkeypatch.setitem(ROOM, "1gb", 10**18)
    assert str(lacks_room("1gb", tmp_path / "not" / "there")).startswith("it needs 1000000000 GB of disk, ")


def test_the_cost_per_tensor_is_told_where_there_are_many() -> None:
    runs = {"cp pt": [Run(1.0, 0.0, 1.0)], "pt2tf": [Run(3.0, 1.0, 99.0)]}
    case = Case("pt2tf", (), Path("out"), "cp pt")
    assert summarise(case, runs, 20_000)["us_per_tensor"] == pytest.approx(150)
    assert summarise(case, runs, 401)["us_per_tensor"] is None


def test_verify_against_the_script_can_miss_its_bound() -> None:
    def runs(ours: float, script: float) -> dict[str, list[Run]]:
        return {verify.OURS: [Run(ours, 2.0, 100.0)], verify.PEER: [Run(script, 3.0, 100.0)]}

    memory = {side: verify.held({"seconds": "1", "peak_memory": "9e8"}, {"peak_memory": "5e8"}, 300_000_000)
              for side in verify.SIDES}  # fmt: skip
    for script, said in ((15.0, "| 1.50 (1.5 holds) |"), (14.9, "| 1.49 (1.5 MISSED) |")):
        rows = [verify.summarise(name, runs(10.0, script)) for name in (verify.OURS, verify.PEER)]
        text = verify.table({"cases": rows, "memory": memory})
        assert said in text
        assert "| reference | 1.0 | 900 | 500 | 1.33 (< 2 holds) |" in text
    twice = verify.held({"seconds": "1", "peak_memory": "9e8"}, {"peak_memory": "3e8"}, 300_000_000)
    assert not twice["holds"]


def test_verify_is_timed_on_a_pair_with_its_manifest(tmp_path: Path) -> None:
    counts = verify.prepare_pair("tiny", tmp_path / "tiny")
    assert (counts["tensors"], counts["bytes"]) == (81, 97_444)
    cases = {case.name: case for case in verify.make_cases(tmp_path / "tiny")}
    answer = subprocess.run(cases[verify.WEIGHTS_ONLY].command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.splitlines()[0].endswith(": matches its source (weights only)")
    assert cases[verify.OURS].command[-1] == str(tmp_path / "tiny" / "report.json")


def test_the_page_on_exports_has_the_figures_that_were_measured() -> None:
    report = json.loads((ROOT / "benchmarks" / "results" / "exports-clip-italian.json").read_text("utf-8"))
    assert f"\n\n{exports.tables(report)}\n\n" in (ROOT / "docs" / "exports.md").read_text("utf-8")


def test_fleets_are_timed(tmp_path: Path) -> None:
    """Small and large ones and a long list, without Ray: all figures are there, and no checkpoint stays."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fleets.py"), "--tiny", "3", "--large", "2", "--workers", "2"]
    command += ["--large-size", "tiny", "--lines", "10", "--ray", "none"]
    command += ["--folder", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "results" / "fleets.json").read_text("utf-8"))
    tiny = report["tiny"]
    assert tiny["local"]["overhead_s"] == pytest.approx(tiny["local"]["seconds_each"] - tiny["alone_s"])
    assert tiny["local"]["counts"] == {"done": 3}
    assert report["large"]["local"]["times_cp"] > 0
    assert {lines: found["counts"] for lines, found in report["driver"].items()} == {
        "1": {"done": 1},
        "10": {"done": 10},
    }
    assert "| 10 | " in answer.stdout
    assert list((tmp_path / "data").iterdir()) == []
