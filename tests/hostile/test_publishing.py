"""What a folder from a stranger could put on the Hub in our name: files from elsewhere, proofs, markup."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from converter import pt2tf
from converter.errors import SourceError, TargetError
from converter.folder.proof import read_proof, write_proof
from converter.publishing import card
from converter.publishing.evidence import gather
from tests.hub.test_push import verification
from tests.tiny import FIXTURE

ID = "me/clip-tiny"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A conversion, and the proof of it."""
    pt2tf(FIXTURE, tmp_path / "tf")
    write_proof(tmp_path / "tf", verification(tmp_path / "tf").to_json())
    return tmp_path / "tf"


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_converted_may_be_published(out: Path) -> None:
    assert gather(out, allow_unverified=False).proof is not None


def test_what_a_link_leads_to_is_not_published(out: Path) -> None:
    (out.parent / "secret").write_text("password")
    (out / "tokenizer.json").unlink()
    (out / "tokenizer.json").symlink_to("../secret")
    with pytest.raises(TargetError) as caught:
        gather(out, allow_unverified=True)
    assert str(caught.value) == f"{out / 'tokenizer.json'}: not a file; convert again"
    with pytest.raises(TargetError, match=r"does not match its conversion\.json: tokenizer\.json is a link; "):
        gather(out, allow_unverified=False)


def test_chat_templates_that_a_link_leads_to_are_not_published(out: Path) -> None:
    (out.parent / "secret").mkdir()
    (out.parent / "secret" / "x.jinja").write_text("password")
    (out / "additional_chat_templates").symlink_to("../secret")
    manifest = json.loads((out / "conversion.json").read_text())
    listed = {"name": "additional_chat_templates/x.jinja", "size": 8}
    change(out / "conversion.json", files=[*manifest["files"], listed])
    with pytest.raises(TargetError) as caught:
        gather(out, allow_unverified=True)
    assert str(caught.value) == f"{out / 'additional_chat_templates' / 'x.jinja'}: not a file; convert again"


def test_files_outside_the_folder_are_not_published(out: Path) -> None:
    (out.parent / "secret").write_text("password")
    change(out / "conversion.json", files=[{"name": "../secret", "size": 8}])
    with pytest.raises(SourceError, match=r"not a manifest of this version \(file name '\.\./secret'\)"):
        gather(out, allow_unverified=True)


def test_a_card_that_a_manifest_lists_is_not_published(out: Path) -> None:
    """It would replace the one that is there."""
    (out / "README.md").write_text("evil")
    manifest = json.loads((out / "conversion.json").read_text())
    change(out / "conversion.json", files=[*manifest["files"], {"name": "README.md", "size": 4}])
    with pytest.raises(TargetError) as caught:
        gather(out, allow_unverified=True)
    assert str(caught.value) == (f"{out}: conversion.json lists a README.md, which no conversion writes; convert again")


def test_a_proof_that_is_a_link_does_not_count(out: Path) -> None:
    (out / "parity.json").rename(out.parent / "elsewhere")
    (out / "parity.json").symlink_to("../elsewhere")
    assert read_proof(out) == "no parity.json"


def test_a_proof_is_not_written_through_a_link(out: Path) -> None:
    precious = out.parent / "precious"
    precious.write_text("years")
    (out / "parity.json").unlink()
    (out / "parity.json").symlink_to(precious)
    write_proof(out, verification(out).to_json())
    assert precious.read_text() == "years"
    assert not (out / "parity.json").is_symlink()
    assert sorted(path.name for path in out.iterdir() if "parity" in path.name) == ["parity.json"]


def test_text_from_files_is_no_markup_of_the_card(out: Path) -> None:
    """Neither ends a piece of code, nor begins a tag, a link or a cell; nothing of it is a line of its own."""
    hostile = "`\n<script>alert(1)</script>|[x](http://evil)\x1b[31m"
    change(out / "conversion.json", made_by=hostile, options={"dtype": hostile, "names": hostile})
    write_proof(out, verification(out).to_json())
    report = json.loads((out / "parity.json").read_text())["report"]
    taps = [tap | {"where": hostile} for tap in report["taps"]]
    run = {"framework": hostile, "dtype": hostile, "device": hostile}
    change(out / "parity.json", report=report | {"taps": taps, "verdict": hostile, "reference": run, "candidate": run})
    section = card.section(gather(out, allow_unverified=False), ID)
    made = next(line for line in section.splitlines() if line.startswith("Converted from "))
    shown = r"'\n<script>alert(1)</script>|[x](http://evil)\x1b[31m"
    assert made.endswith(f" by `{shown}`.")
    rest = section.replace(made, "")
    assert "\x1b" not in section
    # Within a block of code a tag is text; such a block ends by backticks alone.
    outside = "".join(rest.split("```")[::2])
    assert not re.search(r"(?<!\\)[<\[`|](?=script|x|\\n)", outside)
    assert rest.count("```") == 4


def test_text_from_files_is_no_command_of_the_card(out: Path) -> None:
    """Readers run what stands there to reproduce it: each option is one word for their shell, and a plain one."""
    hostile = "$(touch x); `touch x` 'x'"
    change(out / "conversion.json", options={"dtype": hostile, "max_shard_size": "5 GB"})
    write_proof(out, verification(out).to_json())
    section = card.section(gather(out, allow_unverified=False), ID)
    command = next(line for line in section.splitlines() if line.startswith("convert pt2tf "))
    assert shlex.split(command) == [
        "convert", "pt2tf", "SOURCE", "out", "--dtype", "DTYPE", "--max-shard-size", "5 GB",
    ]  # fmt: skip
