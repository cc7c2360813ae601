"""``python -m tests.wheel``: builds wheel and sdist, looks into them, and converts a checkpoint of every family.

Nothing but the wheel is installed where that happens.
"""

from __future__ import annotations

import argparse
import email
import os
import re
import runpy
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from tests import installs
from tests.tiny import OF_FAMILIES, tensors_of, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Fails with what is wrong; prints one line where all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheel", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the clean environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-") as made:
        folder = Path(made)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        [wheel], [sdist] = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
        run(
            sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", folder / "again", sdist, cwd=folder
        )
        check_contents(wheel, folder / "again" / wheel.name)
        check_metadata(wheel)
        python = folder / "venv" / "bin" / "python"
        run(options.python, "-m", "venv", folder / "venv", cwd=folder)
        run(python, "-m", "pip", "install", "-qq", "--constraint", ROOT / "constraints" / "dev.txt", wheel, cwd=folder)
        convert = python.with_name("convert")
        for program in (convert, convert.with_name("dual-encoder-converter")):
            assert run(program, "--help", cwd=folder).startswith("Usage: convert ")
        for family, config in OF_FAMILIES.items():
            write_checkpoint(folder / family / "source", config, tensors_of(config))
            there_and_back(convert, folder / family)
        ran = installs.run_all(Installed(folder, python), only=installs.CORE)
        assert len(ran) == len({(s.page, s.language) for s in installs.to_run() if s.install == installs.CORE}), ran
        where = run(python, "-c", "import converter; print(converter.__file__)", cwd=folder).strip()
        assert Path(where).is_relative_to(folder / "venv"), where
        print(
            f"{wheel.name}: sound, and the same from the sdist; converts and verifies {', '.join(OF_FAMILIES)} on its own"
        )


class Installed(installs.Environments):
    """The environment of the wheel alone, which is what the first install line of README makes."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self._python = folder, python

    def python_of(self, install: str) -> Path:
        """That of the wheel, and no other."""
        assert install == installs.CORE, install
        return self._python


def there_and_back(convert: Path, folder: Path) -> None:
    """Converts ``folder / "source"`` to TensorFlow and back, and verifies both."""
    run(convert, "pt2tf", folder / "source", folder / "tf", cwd=folder)
    run(convert, "verify", folder / "tf", "--weights-only", cwd=folder)
    run(convert, "tf2pt", folder / "tf", folder / "pt", "--format", "bin", cwd=folder)
    run(convert, "verify", folder / "pt", "--weights-only", cwd=folder)


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command outside the checkout and returns its output."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_contents(wheel: Path, again: Path) -> None:
    """The wheel holds the packages whole and nothing else, whether built from the checkout or from the sdist."""
    held, rebuilt = contents(wheel), contents(again)
    assert held == rebuilt, f"not what the sdist makes: {sorted(held.items() ^ rebuilt.items())[:5]}"
    expected = {
        str(path.relative_to(ROOT))
        for package, patterns in {
            "converter": ("*.py", "py.typed", "samples/*"),
            "rename_rules": ("*.py", "*.toml"),
        }.items()
        for pattern in patterns
        for path in (ROOT / package).rglob(pattern)
    }
    home = f"{wheel.name.rsplit('-', 3)[0]}.data/data/share/dual-encoder-converter"
    expected |= {f"{home}/{path.name}" for path in (ROOT / "docs").glob("*.schema.json")}
    found = {name for name in held if ".dist-info/" not in name}
    assert found == expected, f"only in one of wheel and checkout: {sorted(found ^ expected)}"


def check_metadata(wheel: Path) -> None:
    """What the index and pip read is what pyproject.toml and README.md say; the licence lies in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    home = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        found = email.message_from_bytes(archive.read(f"{home}/METADATA"))
        entry_points = archive.read(f"{home}/entry_points.txt").decode()
        licence = archive.read(f"{home}/licenses/LICENSE")
    said = {name: found[name] for name in ("Name", "Version", "Summary", "Requires-Python", "License-Expression")}
    named = ("name", "version", "description", "requires-python", "license")
    assert said == dict(zip(said, (project[name] for name in named), strict=True)), said
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload(decode=True).decode() == described()  # type: ignore[union-attr]
    assert found.get_all("Project-URL") == [f"{name}, {url}" for name, url in project["urls"].items()]
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert found.get_all("Classifier") == project["classifiers"]
    assert found.get_all("Provides-Extra") == [*project["optional-dependencies"]]
    needed = [line for line in found.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert needed == project["dependencies"], needed
    assert entry_points.split("\n")[1:3] == [f"{name} = {entry}" for name, entry in project["scripts"].items()], (
        entry_points
    )


def described() -> str:
    """What setup.py makes of README.md, checked: every link that is left relative leads to a heading of the page itself."""
    text = runpy.run_path(str(ROOT / "setup.py"))["long_description"]()
    left = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("https://")]
    assert all(target.startswith("#") for target in left), left
    return str(text)


def contents(wheel: Path) -> dict[str, int]:
    """The checksum of every file in a wheel but its own list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("/RECORD")}


if __name__ == "__main__":
    main()
