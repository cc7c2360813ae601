"""Every error a user can meet, as one tree, so that callers can catch as much or as little as they need.

The tree:

    ConverterError
    |-- SourceError             what was given cannot be read as a checkpoint
    |   |-- UnsupportedContainer    a kind of file we recognise but do not read, or do not recognise at all
    |   |-- CorruptCheckpoint       a truncated, lying or hostile file
    |   `-- WrongFramework          a TensorFlow checkpoint given as PyTorch, or the other way round
    |-- ConfigError             config.json does not describe a dual encoder that can be converted
    |   |-- UnsupportedTower        a tower type without rules
    |   `-- UnsupportedOption       a config field whose value changes the graph in a way that is not supported
    |-- PlanError               the tensors of the checkpoint are not the tensors its config describes
    |-- HubError                the Hub refuses, or cannot be reached
    |-- BucketError             a bucket refuses, or cannot be reached
    |-- ArgumentError           a function was given a word or an object that it does not take
    |-- TargetError             the output cannot be written where it was asked for
    |-- CheckError              the written file is not the source, bit for bit
    |-- ModelError              a model was asked for something it cannot do
    |-- ExportError             a file for another runtime does not do what the model does, or cannot be run
    `-- ParityError             a comparison could not be carried out
        |-- OptionError             an option makes no sense, or contradicts another
        |-- NoReference             there is nothing to compare with
        `-- WorkerError             the environment is at fault: a process failed, crashed, hung or ran out of memory
            |-- MissingPackage          a package is not installed
            `-- WorkerCrash             the process ended by a signal such as SIGSEGV or SIGABRT

A message says where, what was expected, what was found and what to do next. The command line exits with 1 for an error,
with 2 for an OptionError. ``verify`` exits with 3 for an error, because its 1 says that the checkpoint differs.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterator
from pathlib import Path


class ConverterError(Exception):
    """Base of every error that is caused by the input and not by a bug here."""

    @property
    def next_step(self) -> str:
        """What to do about it: the end of the message, or empty."""
        return next_step(str(self))


class SourceError(ConverterError):
    """What was given cannot be read as a checkpoint."""


class UnsupportedContainer(SourceError):
    """The file is of a kind that is not read here; the message says which tool or option would serve."""


class CorruptCheckpoint(SourceError):
    """The file is truncated, contradicts itself or points outside itself."""


class WrongFramework(SourceError):
    """The checkpoint already belongs to the requested target framework."""


class ConfigError(ConverterError):
    """config.json does not describe a dual encoder that can be converted."""


class UnsupportedTower(ConfigError):
    """The vision or text tower is of a type without rules; the message lists those that have them."""


class UnsupportedOption(ConfigError):
    """A config field has a value that changes the graph in a way that is not supported."""


class PlanError(ConverterError):
    """The tensors of the checkpoint are not the tensors its config describes."""


class HubError(ConverterError):
    """The Hub refuses what was asked of it, or cannot be reached."""


class BucketError(ConverterError):
    """A bucket refuses what was asked of it, cannot be reached, or gives what is not to be believed."""


class ArgumentError(ConverterError, ValueError):
    """A function was given a word, a number or an object that it does not take; the message says what it takes."""


class TargetError(ConverterError):
    """The output cannot be written to the requested place."""


class CheckError(ConverterError):
    """The written file differs from its source."""


class ModelError(ConverterError, ValueError):
    """A model cannot do what was requested."""


class ExportError(ConverterError):
    """A file for another runtime cannot be run there, or does not do what the model does that it was made of."""


class ParityError(ConverterError):
    """A comparison could not be carried out, or had nothing to compare."""


class OptionError(ParityError):
    """An option of a comparison makes no sense, or contradicts another."""


class NoReference(ParityError):
    """There is nothing to compare a checkpoint with: the reference is gone or invalid."""


class WorkerError(ParityError):
    """A model could not be run here, which says nothing about it: the process failed, crashed, hung or ran out of memory."""


class MissingPackage(WorkerError):
    """A model could not be run because a package is not installed; the message says what to install."""


class WorkerCrash(WorkerError):
    """The process ended by a signal that its own code caused; of a file that somebody made, that may be on purpose."""


def unreadable(where: Path | str, error: OSError) -> str:
    """The message for a file or folder that the system refuses to read, with the next step."""
    if error.errno in TOO_MANY_FILES:
        return f"{where}: cannot be read: too many open files; raise the limit (ulimit -n)"
    return f"{where}: cannot be read: {error.strerror}; check its permissions"


@contextlib.contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Turns what the system says of a file that cannot be looked at or read into an error with the next step.

    Args:
        where: what is being read, for an error that names no file.

    Raises:
        SourceError: the system refused.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of the system: clients of HTTP derive theirs from OSError, too
            raise
        raise SourceError(unreadable(error.filename or where, error)) from None


def is_refused(error: BaseException) -> bool:
    """Whether an error comes from a file that the system refused to read, which says nothing about what is in it."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _REFUSALS):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


INTERRUPTED = "interrupted; nothing half-made was left behind"
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, *TOO_MANY_FILES)


_OPENING, _CLOSING = "([{", ")]}"


def next_step(message: str) -> str:
    """The last part of a message, which says what to do.

    Args:
        message: parts after semicolons or in sentences; brackets and backquotes are not split.

    Returns:
        ``"name another folder"`` from ``"x: not found; name another folder"``; empty if there is only one part.
    """
    depth, quoted, ends = 0, False, []
    for place, character in enumerate(message):
        quoted ^= character == "`"
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth <= 0 and not quoted and message[place : place + 2] in ("; ", ". "):
            ends.append(place + 2)
    return message[ends[-1] :].strip() if ends else ""


def listed(items: Collection[str], limit: int = 10) -> str:
    """Joins names for a message: the first ``limit`` in order, then how many more there are.

    Args:
        items: names, in the order in which they should be shown.
        limit: how many to show at most.

    Returns:
        ``"a, b, c"`` or ``"a, b and 12 more"``; ``"none"`` for an empty list.
    """
    names = [printable(item) for item in items]
    if not names:
        return "none"
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def printable(text: str, limit: int = 200) -> str:
    """Makes a name from a file safe to print: control characters escaped, long text cut in the middle.

    Args:
        text: any text, of any length, from a file or the network.
        limit: how many characters to keep at most.

    Returns:
        Text without control characters, terminal escapes or newlines.
    """
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(path: object) -> str:
    """A path or name as a shell takes it, so that a command in a message can be pasted.

    Args:
        path: may hold spaces, quotes, unprintable characters, and bytes that are not text.

    Returns:
        One word of a POSIX shell; bash's ``$'...'`` if nothing else works.
    """
    import shlex  # which is slow to import

    text = str(path)
    if text.startswith(("-", "~")):  # no option, and no home folder
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f"$'{plain}'"
