"""huggingface_hub's client as it is used here: its token, its progress bars, and what its exceptions mean."""

from __future__ import annotations

import re
from typing import Any

from converter.errors import HubError, printable
from converter.folder.manifest import VERSION
from converter.hub.explained import is_transport_error, status_of
from converter.hub.ids import Access

# Characters that an HTTP header can hold; clients complain about others by printing the token.
_TOKEN = re.compile(r"[\x21-\x7e]+")


def cache_options(access: Access) -> dict[str, Any]:
    """Which cache is used, and whether what it holds counts: arguments of huggingface_hub's functions."""
    return {"cache_dir": access.cache_dir, "force_download": access.force_download}


def bars_on_terminals() -> Any:
    """huggingface_hub's progress bars, on terminals only: a library that is used by another prints nothing."""
    from huggingface_hub.utils import tqdm

    class OnTerminals(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if not kwargs.get("disable"):
                kwargs["disable"] = None  # by tqdm, where stderr is no terminal
            super().__init__(*args, **kwargs)

    return OnTerminals


def is_out_of_reach(error: Exception) -> bool:
    """Whether an exception says that the Hub did not answer, rather than what it answered."""
    if status_of(error):
        return status_of(error) >= 500
    return isinstance(error, offline_error()) or is_transport_error(error)


def offline_error() -> type[Exception]:
    """The exceptions of huggingface_hub with HF_HUB_OFFLINE."""
    from huggingface_hub.utils import OfflineModeIsEnabled

    kind: type[Exception] = OfflineModeIsEnabled
    return kind


def is_missing_file(error: Exception) -> bool:
    """Whether an exception of huggingface_hub says that the repository has no such file."""
    from huggingface_hub import utils

    return isinstance(error, utils.EntryNotFoundError) and not isinstance(error, utils.LocalEntryNotFoundError)


def hub_api(access: Access = Access()) -> Any:  # noqa: B008 - frozen
    """huggingface_hub's client, with its own endpoint, proxies and, unless another was given, token.

    Raises:
        HubError: its token cannot be used.
    """
    from huggingface_hub import HfApi

    if not isinstance(access.token, str):
        token()
    elif not _TOKEN.fullmatch(access.token):
        raise HubError("token= holds characters that no token has; copy it again, or leave it out and set HF_TOKEN")
    return HfApi(token=access.token, library_name="dual-encoder-converter", library_version=VERSION)


def token() -> str | None:
    """The token that huggingface_hub sends; None if nobody is logged in.

    Raises:
        HubError: it cannot be read, or is not a token.
    """
    from huggingface_hub.utils import get_token

    try:
        found: str | None = get_token()
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(
            f"cannot read the Hub token ({printable(str(error), 200)}); set HF_HOME to a folder that you may write to"
        ) from None
    if found and not _TOKEN.fullmatch(found):
        raise HubError(
            "the Hub token holds characters that no token has; copy it into HF_TOKEN again, or log in with `hf "
            "auth login`"
        )
    return found
