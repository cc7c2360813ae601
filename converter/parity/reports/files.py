"""Writes what verifying found to files; the ending of a file's name decides its kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from converter.checkpoints.shards import INDEX
from converter.errors import OptionError, ParityError, printable
from converter.folder import manifest, proof
from converter.folder.staging import check_place_of_file, staged_file
from converter.folder.tokenizer_files import SIDECARS, sidecars_in
from converter.parity.reports.html import to_page
from converter.parity.reports.json import to_json_text
from converter.parity.reports.junit import verification_junit
from converter.parity.reports.markdown import verification_markdown
from converter.parity.reports.places import without_places
from converter.parity.reports.terminal import verification_text

if TYPE_CHECKING:
    from converter.parity.verify import Verification


KINDS: Mapping[str, Callable[[Verification], str]] = {
    ".json": to_json_text,
    ".md": verification_markdown,
    ".html": to_page,
    ".xml": verification_junit,
    ".txt": verification_text,
}


_OF_CHECKPOINTS = ("config.json", manifest.NAME, proof.NAME)


def check_report_path(path: Path, checkpoint: Path | None = None) -> None:
    """Checks, before any model runs, that a report can be of the kind its name asks for, and written.

    Args:
        path: the file.
        checkpoint: the folder that is verified, whose own files no report replaces, nor those of its source.

    Raises:
        OptionError: the name ends in none of ``KINDS``, there is no place for the file, or it is a checkpoint's own.
        ParityError: the system does not let it be looked at.
    """
    if path.suffix not in KINDS:
        raise OptionError(f"{printable(str(path))}: a report's name ends in {', '.join(KINDS)}; choose one of them")
    with _explained(path):
        if path.is_dir() or not path.parent.is_dir():
            raise OptionError(
                f"{printable(str(path))}: a folder, or in a folder that does not exist; choose a file in an existing folder"
            )
        check_place_of_file(path)
    real = Path(os.path.realpath(path))  # the file that is actually written to
    if checkpoint is not None and any(_is_own(file, checkpoint) for file in (path, real)):
        raise OptionError(
            f"{printable(str(path))}: this file belongs to a checkpoint; choose another name for the report"
        )


def _is_own(path: Path, checkpoint: Path) -> bool:
    """Whether a file is one of the checkpoint's, or of another's, such as its source."""
    own = (*_OF_CHECKPOINTS, *SIDECARS, *sidecars_in(path.parent))
    if path.name not in own and not path.name.endswith(INDEX):
        return False
    return path.parent.resolve() == checkpoint.resolve() or (path.parent / "config.json").exists()


def write_report(found: Verification, path: Path) -> None:
    """Writes a report, whole or not at all, to a file of the kind that its name asks for.

    Raises:
        ParityError: the name ends in none of ``KINDS``, or the file cannot be written.
    """
    check_report_path(path, found.folder)
    text = _encoded(KINDS[path.suffix](without_places(found)))
    with _explained(path):
        if path.exists() and not path.is_file():  # such as a pipe: nothing to move away
            path.write_bytes(text)
        else:
            with staged_file(Path(os.path.realpath(path))) as fresh:  # not in place of a link, but of its target
                fresh.write_bytes(text)


def add_to_job_summary(found: Verification) -> bool:
    """Adds the Markdown report to the summary of a GitHub Actions job, if this runs in one.

    Returns:
        Whether it does.

    Raises:
        ParityError: the summary cannot be written.
    """
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not summary:
        return False
    with _explained(Path(summary)), Path(summary).open("ab") as file:
        file.write(_encoded(verification_markdown(without_places(found))))
    return True


def _encoded(text: str) -> bytes:
    """As UTF-8; bytes of a path that are not, which Python keeps as half surrogates, are written as escapes."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ParityError(
            f"{printable(str(path))}: cannot write the report: {error.strerror}; choose another place"
        ) from None
