"""The application service's registration, as the homeserver reads it.

Matrix spec, Application Service API, section "Registration".
"""

import re

from letta_matrix.config import Config
from letta_matrix.matrix.identifiers import RESERVED_PREFIXES


def registration(config: Config) -> dict[str, object]:
    """The registration of `config` as the mapping that `registration.yaml` holds."""
    service = config.appservice
    domain = re.escape(config.homeserver.domain)
    return {
        "id": service.id,
        "url": service.url,
        "as_token": service.as_token.get_secret_value(),
        "hs_token": service.hs_token.get_secret_value(),
        "sender_localpart": service.bot_username,
        "rate_limited": False,
        "receive_ephemeral": False,
        "namespaces": {
            "users": [_exclusive(f"@{prefix}.*:{domain}") for prefix in RESERVED_PREFIXES],
            "aliases": [_exclusive(f"#{prefix}.*:{domain}") for prefix in RESERVED_PREFIXES],
            "rooms": [],
        },
    }


def _exclusive(regex: str) -> dict[str, object]:
    return {"exclusive": True, "regex": regex}
