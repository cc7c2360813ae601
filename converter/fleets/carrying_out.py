"""The work on one checkpoint: it is converted, unless that was done before, and verified. No exception leaves it.

It is the same wherever it runs. Request and answer are JSON, so that they can pass to another process or machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3

from converter.conversion.anywhere import convert
from converter.conversion.inspection import inspect
from converter.errors import ConverterError, SourceError, TargetError, listed, printable
from converter.fleets.bucket_ledger import note, noted_before
from converter.fleets.outs import end_upload, made_before, manifest_sum, place, put_report, stands
from converter.folder.addresses import Address
from converter.folder.files import expanded
from converter.folder.manifest import Manifest
from converter.hub.finding import find_snapshot
from converter.hub.ids import HubId, hub_id
from converter.parity.options import VerifyOptions
from converter.parity.reports.places import without_folders
from converter.parity.runners.kept import Models
from converter.parity.verify import Verification, verify_with

MAX_FOLDER_FILES = 10_000
_MOST_SAID = 4_000
# The results of a verification, the weakest first.
_THOROUGH = ("", "none", "weights", "outputs")
_REPORT_IT = "report it with the worker's traceback"


def carry_out(asked: Mapping[str, Any], models: Models | None = None) -> dict[str, Any]:
    """Converts, or inspects, one checkpoint.

    Args:
        asked: ``do`` is ``"convert"`` or ``"inspect"``. A task gives ``source``, ``hub`` and ``revision``. ``out``, ``to``,
            ``options`` and ``verify`` are those of a conversion. ``report`` is the page to write, ``known`` the ledger's
            entry, and ``again`` says to repeat what failed. ``noting`` is what an attempt is noted by here, if the ledger
            is in a bucket.
        models: that outputs are compared with.

    Returns:
        Fields of an ``Attempt``, which as a whole is ``noted`` if that was done; only ``unchanged`` if nothing is left
        to do.
    """
    began = time.perf_counter()
    try:
        if (before := noted_before(asked)) is not None:
            return before
        found = _inspected(asked) if asked["do"] == "inspect" else _converted(asked, models)
    except ConverterError as error:
        found = _failed(asked, str(error), error.next_step)
    except MemoryError:
        found = _failed(asked, "memory ran out; use a machine with more memory, or fewer workers")
    except Exception as error:
        import traceback

        traceback.print_exc()
        found = _failed(asked, f"a bug: {type(error).__name__}: {error}; {_REPORT_IT}")
    return note(asked, {"seconds": time.perf_counter() - began, **found})


def identity_of(source: Path) -> str:
    """A sum of names, sizes and times of the files of a folder, or of those beside a file; empty if there are too many."""
    home = source if source.is_dir() else source.parent
    said = []
    try:
        with os.scandir(home) as entries:
            for entry in entries:
                if entry.is_file():
                    held = entry.stat()
                    said.append(f"{entry.name}\0{held.st_size}\0{held.st_mtime_ns}")
                if len(said) > MAX_FOLDER_FILES:
                    return ""
    except OSError:
        return ""
    text = "\n".join([source.name, *sorted(said)])
    return blake3.blake3(text.encode("utf-8", "surrogateescape")).hexdigest()


def _identity(source: str | Path) -> str:
    if not isinstance(source, Address):
        return identity_of(Path(source)) if Path(source).exists() else ""
    from converter.buckets.reading import identity_of_objects

    return identity_of_objects(source)


def _inspected(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The conversion that would happen; for a model on the Hub, from its headers, which are all that is downloaded."""
    source, wanted = _source(asked)
    info = inspect(source, revision=asked["revision"])
    if info.problem is not None:
        raise SourceError(info.problem)
    if wanted is None:
        convert(source, asked["out"], asked["to"], overwrite=True, dry_run=True, **asked["options"])
    return {"state": "convertible", "nbytes": info.nbytes, "commit": info.commit or ""}


def _converted(asked: Mapping[str, Any], models: Models | None) -> dict[str, Any]:
    source, wanted = _source(asked)
    out, known = place(asked["out"]), asked["known"] or {}
    identity = "" if wanted else _identity(source)
    if known.get("state") == "failed" and not asked["again"] and known["identity"] in ("", identity):
        return {"unchanged": True}
    commit = _commit(wanted, known) if wanted else ""
    same = bool(known) and (identity or commit) == (known["identity"] or known["commit"]) != ""
    here = manifest_sum(out)
    ours = bool(here) and here == known.get("manifest")
    if (
        same
        and ours
        and known["state"] == "done"
        and _THOROUGH.index(known["verify"]) >= _THOROUGH.index(asked["verify"])
    ):
        return {"unchanged": True}
    noted: dict[str, Any] = {"identity": identity, "commit": commit, "verify": asked["verify"]}
    # A version in a bucket is no time that a copy changes: what has another is converted again.
    changed = isinstance(source, Address) and known.get("identity") not in (None, "", identity)
    may_be = bool(here) and known.get("verdict") != "failed" and not changed
    made = made_before(out, source, wanted, commit, asked) if may_be else None
    if made is None and not ours and stands(out):
        raise TargetError(
            f"{out}: exists already, and was not made from this source; move it away, or give OUT another name"
        )
    if made is not None:
        end_upload(out)
    noted |= _of_manifest(made) if made is not None else _made_now(out, source, wanted, commit, asked, ours)
    noted["manifest"] = manifest_sum(out)
    if asked["verify"] == "none":
        return {"state": "done", **noted}
    return noted | _verified(asked, out, models)


def _made_now(
    out: Path, source: str | Path, wanted: HubId | None, commit: str, asked: Mapping[str, Any], overwrite: bool
) -> dict[str, Any]:
    """Converts; or takes the OUT that has appeared meanwhile: of this task, on a node that Ray had given up too early."""
    try:
        result = convert(
            source, out, asked["to"], revision=asked["revision"], overwrite=overwrite, check=True, **asked["options"]
        )
    except TargetError:
        made = made_before(out, source, wanted, commit, asked) if not overwrite and manifest_sum(out) else None
        if made is None:
            raise
        return _of_manifest(made)
    hashes = {file.name: file.blake3 or "" for file in result.files}
    return {"commit": result.commit or "", "nbytes": result.nbytes, "hashes": hashes}


def _of_manifest(made: Manifest) -> dict[str, Any]:
    hashes = {name: record.blake3 or "" for name, record in made.files.items()}
    return {"commit": made.commit or "", "nbytes": sum(record.size for record in made.files.values()), "hashes": hashes}


def _source(asked: Mapping[str, Any]) -> tuple[str | Path, HubId | None]:
    """The source for a conversion, and the id if it is one."""
    if asked["hub"] is False:
        return Path(asked["source"]), None
    source = expanded(asked["source"])
    wanted = hub_id(source, asked["revision"])
    if asked["hub"] and wanted is None:
        raise SourceError(f"{source}: a folder here has the name of the model; run this in another folder")
    return source, wanted


def _commit(wanted: HubId, known: Mapping[str, Any]) -> str:
    """The commit on the Hub now, if it can tell whether anything is left to do."""
    return find_snapshot(wanted).commit if known.get("commit") else ""


def _verified(asked: Mapping[str, Any], out: Path, models: Models | None) -> dict[str, Any]:
    """The result of verifying, also written as a page beside the ledger."""
    weights_only = asked["verify"] == "weights"
    options = VerifyOptions() if asked.get("seconds") is None else VerifyOptions(seconds=asked["seconds"])
    source = _source(asked)[0]
    # The manifest has the sums of the weights, but a model can run only from its files.
    reference = source if isinstance(source, Address) and not weights_only else None
    found = verify_with(
        None if weights_only else models, out, reference=reference, weights_only=weights_only, options=options
    )
    put_report(_named(found, asked), place(asked["report"]))
    states = {"passed": "done", "failed": "failed", "not checked": "not checked"}
    problems = [problem for finding in found.findings if finding.status != "passed" for problem in finding.problems]
    said = {"state": states[found.status], "verdict": found.status, "report": asked["report_name"]}
    if found.status == "passed":
        return said
    word = "does NOT match its source" if found.status == "failed" else "not checked"
    return said | _error(asked, f"{word}: {listed(problems, 2)}; see its report")


def _named(found: Verification, asked: Mapping[str, Any]) -> Verification:
    return replace(found, places=(*found.places, place(asked["out"]), Path(asked["source"])))


def _failed(asked: Mapping[str, Any], message: str, following: str = "") -> dict[str, Any]:
    known = {"identity": "", "manifest": ""}
    with contextlib.suppress(ConverterError, OSError):  # of a source, or an OUT, that cannot be reached
        source, wanted = _source(asked)
        known["identity"] = "" if wanted else _identity(source)
        # Of an OUT that is not ours nothing is kept that would make it seem so.
        before = (asked["known"] or {}).get("manifest")
        known["manifest"] = before if before and manifest_sum(place(asked["out"])) == before else ""
    return {"state": "failed", **known, **_error(asked, message, following)}


def _error(asked: Mapping[str, Any], message: str, following: str = "") -> dict[str, str]:
    """An error, without paths of this machine."""
    places = [Path(str(asked["source"])), Path(str(asked["out"])), Path(str(asked["out"])).parent]
    said = printable(without_folders(message, tuple(places)), _MOST_SAID)
    step = without_folders(following, tuple(places)) or ConverterError(said).next_step
    return {"error": said, "next": printable(step, _MOST_SAID)}
