"""The models of an author, as the Hub lists them."""

from __future__ import annotations

import itertools

from converter.errors import HubError, OptionError, printable
from converter.hub.client import hub_api
from converter.hub.explained import explained
from converter.hub.ids import is_id
from converter.hub.waiting import patiently


def models_of(author: str, limit: int) -> tuple[str, ...]:
    """Ids of an author's models, in alphabetical order.

    Args:
        author: a user or an organisation.
        limit: how many to ask for at most.

    Raises:
        OptionError: it cannot be an author's name.
        HubError: the Hub refuses, or cannot be reached.
    """
    if "/" in author or not is_id(author):
        raise OptionError(f"hub:{printable(author, 60)}: not the name of an author on the Hub; write hub:NAME")
    try:
        with explained(author):
            found = patiently(
                author,
                lambda: [str(model.id) for model in itertools.islice(hub_api().list_models(author=author), limit)],
            )
    except (KeyError, TypeError, AttributeError, ValueError):  # of the client, whose classes take what the Hub sends
        raise HubError(f"hub:{author}: the Hub lists no models that can be read; list their ids in a file") from None
    # A Hub's answer comes from a stranger: only ids of this author are used.
    return tuple(sorted({name for name in found if name.startswith(f"{author}/") and is_id(name)}))
