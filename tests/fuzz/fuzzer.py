"""The process that atheris runs in: Python code that follows is instrumented, libFuzzer steers by what it covers."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import atheris

sys.dont_write_bytecode = True
with atheris.instrument_imports(include=["converter"], enable_loader_override=False):
    from tests.fuzz.readers import READERS, feed

SLOWER = 4.0  # than code that is not instrumented


def main() -> None:
    """Feeds one reader, in a folder, until libFuzzer has had enough."""
    name, made, *flags = sys.argv[1:]
    reader, folder, corpus = READERS[name], Path(made), Path(flags[-1])
    reader = replace(reader, read=reader.unprotected or reader.read)
    for number, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    reader.prepare(folder)
    for path in sorted(corpus.glob("seed-*")):
        feed(reader, folder, path.read_bytes(), SLOWER)  # what is imported late, is imported now

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        changed = atheris.Mutate(data, most) if draw.randrange(4) == 0 else reader.mutate(data, draw)
        return bytes(changed[:most])

    def one(data: bytes) -> None:
        feed(reader, folder, data, SLOWER)

    atheris.Setup([sys.argv[0], *flags], one, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
