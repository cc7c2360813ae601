"""A runtime that aborts when it opens a file, as LiteRT does over a bad one."""

import os
from typing import Any

from converter.parity.runners.serving import serve


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    os.abort()


if __name__ == "__main__":
    serve(lambda: _answer, "")
