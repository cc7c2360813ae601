"""``python -m tests.installs``: runs what README and docs show, after exactly the install line above it.

Every install line gets an environment of its own, from a copy of what the package is built from. Blocks of one page with
one install line run in one process, in order. A page's blocks share a folder, which holds what a reader has. `clip-italian`
and `model` are dual encoders, copies of `fixtures/clip-bert-tiny`. `OUT` is a conversion of it. Pictures, the examples
and `forme-italiane` with its pictures are there too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT, name_of

CORE = "pip install ."
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "api.md")]
NOT_RUN = {
    ("docs/buckets.md", "console"): "needs a bucket; tests/buckets runs it against a server",
    ("docs/buckets.md", "python"): "needs a bucket; tests/buckets runs it against a server",
    ("docs/hub.md", "console"): "needs the Hub; tests/hub runs it against a server",
    ("docs/hub.md", "python"): "needs the Hub; tests/hub runs it against a server",
    ("docs/towers.md", "console"): "for who works on it, in the environment of make",
    ("docs/families.md", "console"): "for who works on it, in the environment of make",
    ("docs/to-tensorflow.md", "console"): "needs the Hub; tests/hub runs it against a server",
    ("docs/to-tensorflow.md", "python"): "loads what the commands above it made",
    ("docs/releasing.md", "console"): "for who works on it, in the environment of make",
}
EXAMPLES = {
    "from_memory.py clip-italian of-memory": ("torch",),
    "zero_shot.py clip-italian gatto.jpg uno due": ("tf",),
    "name_pictures.py forme-italiane forme-italiane-pictures": ("tf",),
    "embed_pictures.py clip-italian embeds.npz gatto.jpg foto.png": ("tf",),
    "fine_tune.py clip-italian tuned-by-example": ("tf", "torch"),
}
_FIRST = re.compile(r"^\$ (pip install [^\n]+)$", re.MULTILINE)
_BLOCK = re.compile(
    r"(?:^Install: `(pip install [^`]+)`\n+)?^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_BUILT_FROM = ("converter", "rename_rules", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")


@dataclass(frozen=True)
class Snippet:
    """A block of a page, and the install line that holds for it: above it, its first line, or that of the block before it."""

    page: str
    install: str
    language: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    """The Python and the commands of a page, in order; the install line is empty where there is none yet."""
    found: list[Snippet] = []
    for match in _BLOCK.finditer(page.read_text("utf-8")):
        own = _FIRST.match(match[3])
        install = match[1] or (own[1] if own else found[-1].install if found else "")
        found.append(Snippet(name_of(page), install, match[2], match[3]))
    return found


def to_run() -> list[Snippet]:
    """What is run, of all pages; then the examples, each as if it stood on a page of its own."""
    blocks = [one for page in PAGES for one in snippets(page) if (one.page, one.language) not in NOT_RUN]
    examples = [
        Snippet("examples", f"pip install '.[{','.join(extras)}]'", "console", f"$ python examples/{command}\n")
        for command, extras in EXAMPLES.items()
    ]
    return blocks + examples


class Environments:
    """One environment per install line, made at its first use."""

    def __init__(self, folder: Path, python: str, torch_index: str | None) -> None:
        self.folder, self.python, self._made = folder, python, dict[str, Path]()
        self._index = {"PIP_EXTRA_INDEX_URL": torch_index} if torch_index else {}
        for name in _BUILT_FROM:
            held = ROOT / name
            copy = shutil.copytree if held.is_dir() else shutil.copy
            (folder / "clone").mkdir(exist_ok=True)
            copy(held, folder / "clone" / name)

    def python_of(self, install: str) -> Path:
        """The interpreter of the environment of an install line."""
        if install not in self._made:
            venv = self.folder / f"venv{len(self._made)}"
            _run([self.python, "-m", "venv", str(venv)], self.folder)
            python = venv / "bin" / "python"
            _run([str(python), "-m", *shlex.split(install), "--quiet"], self.folder / "clone", self._index)
            self._made[install] = python
        return self._made[install]


def run_all(environments: Environments, only: str | None = None) -> list[str]:
    """Runs the snippets, or of each page those up to the last with one install line, which take up what earlier ones made.

    Returns:
        What was run, a line each.
    """
    ran = []
    places: dict[str, Path] = {}
    blocks = to_run()
    last = {one.page: number for number, one in enumerate(blocks) if only in (None, one.install)}
    wanted = (one for number, one in enumerate(blocks) if number <= last.get(one.page, -1))
    for (page, install, language), group in itertools.groupby(wanted, lambda s: (s.page, s.install, s.language)):
        python = environments.python_of(install)
        if page not in places:
            places[page] = _place(environments.folder / page.replace("/", "-"), environments.python_of(CORE))
        texts = [one.text for one in group]
        if language == "python":
            (places[page] / "snippets.py").write_text("\n".join(texts), "utf-8")
            _run([str(python), "snippets.py"], places[page])
        else:
            for command, status in commands(texts):
                _run(["sh", "-c", command], places[page], {"PATH": f"{python.parent}:{os.environ['PATH']}"}, status)
        ran.append(f"{page}: {len(texts)} of {language} after {install}")
    return ran


def commands(texts: list[str]) -> Iterator[tuple[str, int]]:
    """Lines to type, those of git and pip apart, and the status that they end with: 1 where the page shows an error."""
    for text in texts:
        status = 1 if '"exit_status": 1' in text else 0
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ ") and not line.startswith(("$ git ", "$ pip ")):
                yield line[2:], status


def _place(folder: Path, python: Path) -> Path:
    """What a reader has; and `OUT`, which pages count on that another page made."""
    tiny = ROOT / "fixtures" / "clip-bert-tiny"
    for name in ("clip-italian", "model", "fixtures/clip-bert-tiny"):
        shutil.copytree(tiny, folder / name)
    for name in ("gatto.jpg", "foto.png"):
        shutil.copy(ROOT / "fixtures" / "pictures" / "croce.png", folder / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in ("forme-italiane", "forme-italiane-pictures"):
        shutil.copytree(ROOT / "fixtures" / name, folder / "fixtures" / name)
    _run([str(python), "-m", "converter", "pt2tf", "clip-italian", "OUT"], folder)
    return folder


def _run(command: list[str], folder: Path, more: dict[str, str] | None = None, status: int = 0) -> None:
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    alone |= {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"} | (more or {})
    done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def main() -> None:
    """Fails with what does not run; prints a line for what does."""
    parser = argparse.ArgumentParser(prog="python -m tests.installs", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments")
    parser.add_argument("--torch-index", help="a package index with PyTorch for the CPU")
    parser.add_argument("--only", help="of each page what leads to this install line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="installs-") as folder:
        environments = Environments(Path(folder).resolve(), options.python, options.torch_index)
        print("\n".join(run_all(environments, options.only)))


if __name__ == "__main__":
    main()
