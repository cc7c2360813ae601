"""``python -m converter`` is the same as ``convert``, because other programs have that name, too."""

from __future__ import annotations

import sys
from typing import NoReturn

from converter.errors import INTERRUPTED


def main() -> NoReturn:
    """Runs the command line; interrupted while that is still being imported, it ends as it does later on."""
    try:
        from converter.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write(f"convert: {INTERRUPTED}\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
