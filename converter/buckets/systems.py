"""The file systems of fsspec, one per scheme, and what their libraries' errors mean.

Credentials are those that the scheme's own library finds: its variables, its files, its machine's role.
"""

from __future__ import annotations

from typing import Any

from converter.errors import BucketError, printable
from converter.folder.addresses import HUB, SCHEMES, Address, without_secrets

_MOST_WORDS = 300
_OF_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ClientAuthenticationError",
    "DefaultCredentialsError",
)


def file_system(address: Address) -> Any:
    """Opens the file system of an address' scheme; the network is not asked yet.

    Raises:
        BucketError: the scheme's library is not installed, or cannot be set up.
    """
    package = SCHEMES[address.scheme]
    try:
        import fsspec

        return fsspec.filesystem(address.scheme, use_listings_cache=False)
    except ImportError:
        needed = " and ".join(["fsspec", *([package] if package else [])])
        raise BucketError(
            f"{address}: {address.scheme}:// needs {needed}; pip install 'dual-encoder-converter[cloud]'"
        ) from None
    except Exception as error:
        raise BucketError(told(address, error)) from None


def told(address: Address, error: BaseException) -> str:
    """What a library's error says, without what a URL in it may hold, and what to do next."""
    words = printable(without_secrets(f"{type(error).__name__}: {error}"), _MOST_WORDS)
    if isinstance(error, PermissionError) or type(error).__name__ in _OF_CREDENTIALS:
        log_in = "log in with `hf auth login`" if address.scheme == HUB else "set the credentials of its library"
        return f"{address}: the bucket refuses ({words}); {log_in}, and check what they may do"
    return f"{address}: cannot be reached, or refuses ({words}); check the address and the network, and run this again"
