"""What GitHub and contributors read: issue templates keep GitHub's schemas, pre-commit runs the ruff that lint runs."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from tests.docs.pages import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
URLS = "https://github.com/dual-encoder-converter/dual-encoder-converter/"


def schema(name: str) -> Any:
    return json.loads((ROOT / "fixtures" / "schemas" / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_templates_keep_the_schema_of_github(path: Any) -> None:
    kind = schema("github-issue-config" if path.stem == "config" else "github-issue-forms")
    found = yaml.safe_load(path.read_text("utf-8"))
    validator = jsonschema.validators.validator_for(kind)(kind)
    assert [error.message for error in validator.iter_errors(found)] == []
    assert list(validator.iter_errors(found | {"nothing_like_it": 1}))


def test_issue_templates_ask_for_what_is_needed() -> None:
    forms = [path for path in FORMS if path.stem != "config"]
    assert len(forms) == 2
    for path in forms:
        asked = {part["id"]: part for part in yaml.safe_load(path.read_text("utf-8"))["body"] if "id" in part}
        assert "`convert inspect SRC --json`" in asked["inspect"]["attributes"]["description"]
        assert asked["inspect"]["validations"]["required"] is True
    links = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text("utf-8"))["contact_links"]
    for url in (link["url"] for link in links):
        assert url.startswith(URLS)
        assert "/blob/main/" not in url or (ROOT / url.partition("/blob/main/")[2]).is_file()


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert version in headings[:2], "the first may be Unreleased"
    assert [heading for heading in headings if headings.count(heading) > 1] == []


def test_pre_commit_runs_the_ruff_of_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    pins = (ROOT / "constraints" / "dev.txt").read_text("utf-8").split()
    assert f"ruff=={repository['rev'].removeprefix('v')}" in pins
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]
