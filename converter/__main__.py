"""``python -m converter`` is the same as ``convert``, because other programs have that name, too."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from converter.errors import INTERRUPTED

# After so many the search for circles of objects begins. Tens of thousands of tensors are hundreds of thousands of objects,
# and nearly all of them stay: Python's usual 700 would take an eighth of such a conversion.
_ALLOCATIONS = 50_000


def main() -> NoReturn:
    """Runs the command line; interrupted while that is still being imported, it ends as it does later on."""
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
    try:
        from converter.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write(f"convert: {INTERRUPTED}\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
