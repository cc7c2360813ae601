"""Publishes a model of the Hub for TensorFlow, too: `python examples/hub_upload.py SOURCE_ID REPOSITORY_ID`.

Install: `pip install '.[tf,torch]'`. Set HF_TOKEN, or log in with `hf auth login`.
"""

from __future__ import annotations

import sys

from converter import ConverterError, Publication, pt2tf, push, verify


def publish(source: str, repository: str, out: str = "converted") -> Publication:
    """Downloads and converts, verifies every layer against PyTorch, and opens a pull request or makes the repository."""
    pt2tf(source, out, overwrite=True)
    found = verify(out, record=True)
    if not found.passed:
        raise SystemExit(f"{out} is not {source}: {[finding.problems for finding in found.findings]}")
    return push(out, repository)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        published = publish(*sys.argv[1:])
    except ConverterError as error:
        raise SystemExit(f"not published: {error}") from None
    print(f"{published.action}: {published.url}")
