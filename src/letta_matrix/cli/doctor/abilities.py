"""Checks of what the homeserver lets the bridge do."""

import secrets
from collections.abc import Mapping
from typing import Any

import aiohttp
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError
from yarl import URL

from letta_matrix.app.checks import encryption as encrypted
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, fine, found, trouble, unknown, warning
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.common.json_fields import as_list, mapping, string_of
from letta_matrix.config import Config
from letta_matrix.matrix import answers
from letta_matrix.matrix.errors import refused_request, why
from letta_matrix.matrix.media import MediaFault, download, human_size
from letta_matrix.matrix.requests import HomeserverUnavailable
from letta_matrix.store.database import StoreError

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_SMALL = 1_000_000
_METADATA = "_matrix/client/v1/auth_metadata"
"""Where homeservers tell by whom people sign in (spec v1.15, OAuth 2.0 API)."""


@check(
    "room version",
    shows="new agents get no room",
    needs=("homeserver", "registration"),
)
async def room_version(subject: Subject) -> Finding:
    """Whether the homeserver makes rooms as they are wanted."""
    path, shape = ClientPath.v3.capabilities, answers.having("capabilities")
    try:
        told = await subject.homeserver.request(
            Method.GET, path, user_id=subject.config.bot_user_id, give_up_after=0, shape=shape
        )
    except (MatrixRequestError, HomeserverUnavailable) as error:
        return unknown(f"the homeserver does not tell its room versions: {why(error)}")
    versions = mapping(mapping(told["capabilities"]).get("m.room_versions"))
    return judge_room_version(versions, subject.config.agents.room_version)


def judge_room_version(versions: Mapping[str, Any], wanted: int | None) -> Finding:
    """By the capability `m.room_versions`; `wanted` is `agents.room_version`."""
    default = string_of(dict(versions), "default") or "not told"
    if wanted is None:
        return fine(f"new rooms have the homeserver's own ({default})")
    available = mapping(versions.get("available"))
    if not available:
        return fine(f"new rooms have {wanted}; the homeserver does not tell which it knows")
    stability = available.get(str(wanted))
    if stability is None:
        return trouble(
            f"`agents.room_version` is {wanted}, which the homeserver does not know",
            f"take it out of config.yaml (its own is {default}), or upgrade the homeserver",
        )
    if stability != "stable":
        return warning(
            f"`agents.room_version` is {wanted}, which the homeserver calls {stability}",
            f"take it out of config.yaml: its own is {default}",
            shows="rooms may stop working after an upgrade",
        )
    return fine(f"new rooms have {wanted}")


@check(
    "media",
    shows="agents have no pictures, and do not get the files that people send",
    needs=("homeserver", "registration"),
)
async def media(subject: Subject) -> Finding:
    """Whether a small file goes there and comes back."""
    bot = subject.bot
    data = f"letta-matrix doctor {secrets.token_hex(8)}\n".encode()
    try:
        uri = await bot.upload(data, "text/plain", "letta-matrix-doctor.txt", give_up_after=0)
    except (MatrixRequestError, HomeserverUnavailable) as error:
        refused = isinstance(error, MatrixRequestError)
        told = refused_request(error) if refused else str(error)
        return trouble(
            f"no file can be uploaded: {told}",
            "see that Synapse has `enable_media_repo`, room on its disk, and that a proxy in "
            "between passes on /_matrix/media",
        )
    try:
        back = await download(subject.homeserver, bot.user_id, uri, len(data))
    except MediaFault as error:
        back = str(error).encode()
    if back != data:
        told = back.decode(errors="replace") if len(back) < 200 else "other bytes"
        return trouble(
            f"a file that was uploaded does not come back: {told}",
            "see that a proxy in between passes on /_matrix/client/v1/media, which is newer "
            "than /_matrix/media",
        )
    return await _largest(subject)


async def _largest(subject: Subject) -> Finding:
    path = ClientPath.v1.media.config
    try:
        told = await subject.homeserver.request(
            Method.GET, path, user_id=subject.config.bot_user_id, give_up_after=0
        )
    except (MatrixRequestError, HomeserverUnavailable):
        told = {}
    return judge_upload_size(told.get("m.upload.size"))


def judge_upload_size(most: object) -> Finding:
    """What the homeserver takes, in bytes (spec: `m.upload.size`)."""
    if isinstance(most, int) and most < _SMALL:
        return warning(
            f"the homeserver takes no files of more than {human_size(most)}",
            "raise `max_upload_size` in Synapse's homeserver.yaml",
            shows="pictures that agents and people send are refused",
        )
    limit = f", of up to {human_size(most)}" if isinstance(most, int) else ""
    return fine(f"files go there and come back{limit}")


@check(
    "encryption",
    shows="agents are silent in their own rooms",
    vital="encryption",
)
async def encryption(subject: Subject) -> Finding:
    """Whether agents can read their rooms."""
    try:
        wrong = encrypted(await subject.agents())
    except StoreError:
        return unknown("the database does not tell which rooms are encrypted")
    if wrong is not None:
        return found(wrong)
    return fine("no agent's room is encrypted; the bridge needs none of the flags for that")


@check("sign-in", shows="people cannot sign in", needs=("homeserver",))
async def sign_in(subject: Subject) -> Finding:
    """By whom people sign in, which is nothing to the bridge (MAS, single sign-on)."""
    server = subject.homeserver
    anybody = server.with_token("")
    try:
        told = await anybody.request(
            Method.GET, ClientPath.v3.login, give_up_after=0, shape=answers.having("flows", list)
        )
        flows = [string_of(one, "type") for one in as_list(told.get("flows"))]
        _, body = await server.route.ask("GET", URL(server.url) / _METADATA, _TIMEOUT)
    except (MatrixRequestError, HomeserverUnavailable) as error:
        if not isinstance(error, MatrixRequestError):
            return unknown(f"the homeserver does not tell how one signs in: {why(error)}")
        flows, body = [], b""
    except (aiohttp.ClientError, TimeoutError, answers.ForeignAnswer):
        flows, body = [], b""
    issuer = string_of(dict(answers.parsed(body) or {}), "issuer")
    return judge_sign_in(flows, answers.words(issuer), subject.config)


def judge_sign_in(flows: list[str], issuer: str, config: Config) -> Finding:
    """By the flows of `GET /login`, and who issues tokens where sign-in is delegated."""
    passwords = "m.login.password" in flows
    by = f"by an authentication service ({issuer})" if issuer else "by the homeserver itself"
    if config.homeserver.admin_username is not None and flows and not passwords:
        return warning(
            f"people sign in {by}, without passwords, and `homeserver.admin_username` wants one",
            "take homeserver.admin_username, admin_password and agents.passwords out of "
            "config.yaml; give agents power in old rooms by hand",
            shows="agents get no passwords, and no power in rooms that others made",
        )
    return fine(f"people sign in {by}; the bridge needs nothing of it, it has its as_token")
