"""``python -m converter`` is ``convert``: other programs are called convert, too."""

from __future__ import annotations

from converter.cli import main

if __name__ == "__main__":
    main()
