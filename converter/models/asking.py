"""Arguments of transformers' from_pretrained for the Hub, and which of them have a meaning here."""

from __future__ import annotations

import os
from typing import Any

from converter.errors import ModelError
from converter.hub.ids import Access, hub_id

# Arguments of clients that no longer exist, or with another spelling; ignored if they are None or False.
_GONE = {"proxies": "HTTPS_PROXY", "mirror": "HF_ENDPOINT", "resume_download": None}


def hub_arguments(source: str | os.PathLike[str], kwargs: dict[str, Any]) -> tuple[str | None, Access]:
    """Takes the arguments for the Hub out of those of from_pretrained.

    Args:
        source: a path, for which all but ``subfolder`` has no meaning, or an id.
        kwargs: ``revision``, ``subfolder``, ``token`` (``use_auth_token`` in old code), ``cache_dir``,
            ``local_files_only`` and ``force_download`` are taken out of it.

    Returns:
        The revision, and how the Hub is asked.

    Raises:
        ModelError: ``proxies`` or ``mirror``, for which there are environment variables.
    """
    for name, variable in _GONE.items():
        if kwargs.pop(name, None) and variable is not None:
            raise ModelError(f"from_pretrained no longer takes {name}. Leave it out, and set {variable}.")
    token = kwargs.pop("use_auth_token", None)
    token = kwargs.pop("token", None) or token
    cache = kwargs.pop("cache_dir", None)
    access = Access(
        token=token,
        cache_dir=None if cache is None else os.fspath(cache),
        local_files_only=bool(kwargs.pop("local_files_only", False)),
        force_download=bool(kwargs.pop("force_download", False)),
        subfolder=kwargs.pop("subfolder", None) or "",
    )
    revision = kwargs.pop("revision", None)
    return (revision if hub_id(source) is not None else None), access
