"""Every hostile case ends the same way: one clean error, nothing written, quickly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import inspect, pt2tf, tf2pt
from converter.errors import ConverterError

Refused = Callable[..., str]
SECONDS = 5


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Converts a folder both ways that it could be; gives the message of the refusal, which is one printable line."""

    def run(source: Path, error: type[ConverterError] = ConverterError, **options: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        started = time.perf_counter()
        convert = tf2pt if (source / "tf_model.h5").exists() or source.suffix == ".h5" else pt2tf
        with pytest.raises(ConverterError) as caught:
            convert(source, tmp_path / "out", **options)
        assert isinstance(caught.value, error)
        assert sorted(tmp_path.rglob("*")) == before
        try:
            inspect(source)
        except ConverterError as error_of_inspection:
            assert str(error_of_inspection).isprintable()
        assert time.perf_counter() - started < SECONDS
        message = str(caught.value)
        assert message.isprintable()
        assert len(message) < 4000
        return message

    return run
