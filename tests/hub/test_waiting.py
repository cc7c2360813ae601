"""The Hub that is asked too often, or is busy: what it asks for with ``Retry-After`` is done, within bounds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from converter import inspect
from converter.errors import HubError
from converter.fleets.authors import models_of
from converter.hub.waiting import MAX_WAIT_SECONDS, asked_to_wait
from tests.hub.conftest import ID, files_of
from tests.hub.loopback import Answer, Hub
from tests.tiny import FIXTURE


@pytest.fixture
def waited(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting."""
    hub.add(ID, files_of(FIXTURE))
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def busy(seconds: object, status: int = 429) -> Answer:
    return Answer(status, b"{}", {"Retry-After": str(seconds)})


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", [f"GET /api/models/{ID}", "GET .*/(resolve|cdn)/.*"])
def test_what_the_hub_asks_for(hub: Hub, waited: list[float], where: str, status: int) -> None:
    """Of a listing, and of ranges that headers are read by."""
    hub.fail(where, busy(17, status), busy(4, status))
    assert inspect(ID).tensors > 0
    assert sum(waited) >= 21
    assert {17.0, 4.0} <= set(waited) or {18.0, 5.0} <= set(waited)  # huggingface_hub adds a second to its own


def test_an_author(hub: Hub, waited: list[float]) -> None:
    hub.fail("GET /api/models$", busy(9))
    assert models_of("org", 10) == (ID,)
    assert any(9 <= seconds <= 10 for seconds in waited)


@pytest.mark.parametrize(
    ("answers", "least"),
    [([busy(2)] * 99, 10), ([busy(10**9)], 0), ([busy("soon")], 0)],
    ids=["always", "for years", "in words"],
)
def test_not_for_ever(hub: Hub, waited: list[float], answers: list[Answer], least: int) -> None:
    """Five times, of five minutes at most; what cannot be read is no such answer."""
    hub.fail(f"GET /api/models/{ID}", *answers)
    with pytest.raises(HubError, match=r"the Hub's rate limit is reached \(429\)"):
        inspect(ID)
    assert waited == [2.0] * (least // 2)


def answered(status: int, **headers: str) -> Exception:
    error = RuntimeError()
    error.response = SimpleNamespace(status_code=status, headers=headers)  # type: ignore[attr-defined]
    return error


def test_dates_and_what_is_none() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = asked_to_wait(answered(503, **{"retry-after": later}))
    assert found is not None
    assert 90 < found <= 100
    assert asked_to_wait(answered(429, **{"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})) == 0.0
    for said in ("", "nan", "inf", "soon", "-"):
        assert asked_to_wait(answered(429, **{"retry-after": said})) is None
    assert asked_to_wait(answered(429, **{"retry-after": "-5"})) == 0.0
    assert asked_to_wait(answered(500, **{"retry-after": "1"})) is None
    assert asked_to_wait(ValueError()) is None
    assert MAX_WAIT_SECONDS < 3600


def test_a_cache_is_used_where_the_hub_is_busy_for_long(hub: Hub, waited: list[float], tmp_path: Path) -> None:
    """As where it fails in another way; a 429 is told."""
    hub.fail(f"GET /api/models/{ID}", busy(10**6, 503))
    assert inspect(ID).tensors > 0
