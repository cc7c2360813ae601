"""What the library says while it works: through ``logging`` and ``progress``, never by printing."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from converter import combine, pt2tf, verify
from tests.tiny import write_tiny


def test_a_conversion_logs_what_it_will_do_and_did(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "converter")
    out = tmp_path / "out"
    result = pt2tf(tiny, out)
    said = [(record.name, record.levelname, re.sub(r"[\d.]+ s$", "0 s", record.message)) for record in caplog.records]
    assert said == [
        ("converter.conversion.engine", "INFO", f"pt2tf {tiny} -> {out}: clip_vision_model + bert, 97 tensors"),
        ("converter.conversion.engine", "INFO", f"{out}: {result.nbytes:,} bytes in 0 s"),
    ]


def test_nothing_is_logged_that_was_not_asked_for(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pt2tf(tiny, tmp_path / "out")
    assert verify(tmp_path / "out", weights_only=True).passed
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("converter").handlers == []


def test_verify_logs_and_tells_each_part(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "converter.parity")
    out = tmp_path / "out"
    pt2tf(tiny, out)
    told: list[tuple[str, int, int]] = []
    verify(out, weights_only=True, progress=lambda *said: told.append(said))
    assert told == [("files", 1, 2), ("weights", 2, 2)]
    assert [record.message for record in caplog.records] == [f"{out}: files: passed", f"{out}: weights: passed"]


def test_combine_tells_how_far_it_is(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt")
    told: list[tuple[str, int, int]] = []
    combine(tmp_path / "pt", tmp_path / "pt", tmp_path / "out", progress=lambda *said: told.append(said))
    assert told[-1] == ("convert", told[-1][2], told[-1][2])


def test_an_error_in_the_callback_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    def fail(stage: str, done: int, total: int) -> None:
        raise RuntimeError(f"{stage} is not to be had")

    with pytest.raises(RuntimeError, match=r"^convert is not to be had$"):
        pt2tf(tiny, tmp_path / "out", progress=fail)
    assert list(tmp_path.iterdir()) == []
