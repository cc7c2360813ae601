"""The containers that a checkpoint of each framework can be written in, and their file names."""

from __future__ import annotations

from collections.abc import Collection

from converter.errors import TargetError, printable
from converter.names.frameworks import FORMATS, framework_name
from converter.names.layout_files import LAYOUTS_OF_OTHERS, OWN, layout_file
from converter.specs import Framework


def choose(what: str, value: object, choices: Collection[str]) -> None:
    """Refuses a word that does not exist; Python passes on any.

    Raises:
        TargetError: it does not exist; the message lists those that do.
    """
    if not isinstance(value, str) or value not in choices:
        raise TargetError(
            f"{what} {printable(repr(value), 60)} does not exist; choose "
            f"{' or '.join(repr(choice) for choice in choices)}"
        )


def default_format(framework: Framework) -> str:
    """The default container for a framework's checkpoints.

    Raises:
        TargetError: there is no such framework.
    """
    choose("target", framework, FORMATS)
    return next(iter(FORMATS[framework]))


def weights_file(framework: Framework, format: str, layout: str = OWN) -> str:
    """Name of the weights file in a container.

    Raises:
        TargetError: the framework has no such container.
    """
    choose("target", framework, FORMATS)
    if str(format) not in FORMATS[framework]:  # Python may pass on anything
        raise TargetError(
            f"format {printable(str(format), 60)} is not one of {framework_name(framework)}'s; choose "
            f"{' or '.join(FORMATS[framework])}"
        )
    if layout in LAYOUTS_OF_OTHERS:
        return str(layout_file(layout)["weights"].get(format, FORMATS[framework][format]))
    return FORMATS[framework][format]
