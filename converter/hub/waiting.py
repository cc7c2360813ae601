"""Waits as long as the Hub requests if there are too many requests or it is busy, and then retries.

huggingface_hub does so itself for some requests of a download, and not for listings and ranges.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from converter.hub.explained import status_of

MAX_WAIT_SECONDS = 300.0
_MOST_WAITS = 5
_LOG = logging.getLogger("converter.hub")

T = TypeVar("T")


def patiently(what: str, ask: Callable[[], T]) -> T:
    """Asks the Hub, and again after each ``Retry-After`` of up to five minutes, five times at most.

    Args:
        what: the id, for messages.
        ask: asks; what it raises in the end is raised.
    """
    for _ in range(_MOST_WAITS):
        try:
            return ask()
        except Exception as error:
            seconds = asked_to_wait(error)
            if seconds is None or seconds > MAX_WAIT_SECONDS:
                raise
            if seconds:
                _LOG.warning("%s: the Hub asks to wait %.0f s; waiting", what, seconds)
            time.sleep(seconds)
    return ask()


def asked_to_wait(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait, with a 429 or a 503, or None.

    A ``Retry-After`` is a number of seconds or a date (RFC 9110, 10.2.3).
    """
    cause: BaseException | None = error
    while cause is not None and not status_of(
        cause
    ):  # huggingface_hub says that a file is not in the cache, because ...
        cause = cause.__cause__
    if cause is None or status_of(cause) not in (429, 503):
        return None
    said = str(getattr(cause, "response").headers.get("retry-after") or "").strip()  # noqa: B009 - of any client
    try:
        seconds = float(said)
    except ValueError:
        try:
            when = parsedate_to_datetime(said)
        except (ValueError, TypeError):
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
