"""A runtime that aborts when it opens a file, as LiteRT does over a bad one."""

import os
from pathlib import Path

from converter.exporting.runners.answering import answering
from converter.parity.runners.serving import serve


def _open(path: Path, threads: int | None, precision: str) -> None:
    os.abort()


if __name__ == "__main__":
    serve(lambda: answering(_open), "")  # type: ignore[arg-type]
