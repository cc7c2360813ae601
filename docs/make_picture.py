"""Makes docs/terminal.svg: what pt2tf and verify print for the shipped checkpoint: `python docs/make_picture.py`.

The commands are run unchanged, colours included; only the name of the folder that they ran in is ours.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "terminal.svg"
MODEL = "forme-italiane"
COMMANDS = (f"convert pt2tf {MODEL} {MODEL}-tf", f"convert verify {MODEL}-tf")
WIDTH = 122
# rich asks a server for its font; a picture in a README is not given it, and the text is stretched to fit anyway.
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def said(command: str, folder: Path, colours: str = "") -> str:
    """Runs a command in a folder and returns its output, in colours if that is ``"1"``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH), "HF_HUB_OFFLINE": "1"}
    environment |= {"FORCE_COLOR": colours, "NO_COLOR": ""}
    arguments = [sys.executable, "-m", "converter", *shlex.split(command)[1:]]
    run = subprocess.run(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout


def draw(outputs: dict[str, str]) -> str:
    """The picture of some commands and what they printed."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for command, output in outputs.items():
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            for line in output.splitlines():
                console.print(Text.from_ansi(line), soft_wrap=True)
            console.print()
        svg = console.export_svg(title="convert", theme=MONOKAI, unique_id="terminal")
    return _FONTS.sub("", svg).replace("Fira Code", "ui-monospace, Menlo, Consolas")


def main() -> None:
    """Runs the commands on a copy of the shipped checkpoint and draws them."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "fixtures" / MODEL, Path(folder, MODEL))
        outputs = {command: said(command, Path(folder), "1").replace(folder, "~") for command in COMMANDS}
    PICTURE.write_text(draw(outputs), "utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
