"""Checks of what the homeserver and the bridge know of each other."""

import time

from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.decoration import NotAsWanted
from letta_matrix.agents.earlier_accounts import EarlierAccounts
from letta_matrix.app.checks import clock_trouble, other_accounts
from letta_matrix.app.reach import NotReached, ping, recognised
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, fine, found, trouble, unknown
from letta_matrix.cli.doctor.listener import listening
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.common.identifiers import RESERVED_PREFIXES
from letta_matrix.matrix.errors import why
from letta_matrix.matrix.requests import HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id

_EXPLAINED = '"When something is wrong" in docs/how-to/own-homeserver.md explains this'
_ACCOUNTS = '"Accounts that were there before" in docs/how-to/own-homeserver.md tells more'
_COPY = "copy registration.yaml to the homeserver again, and restart it"
_UNUSED = "=.doctor"
"""Ends a user id, or an alias, of our namespaces that nobody has: `ghost_localpart` makes none
like that."""


@check(
    "registration",
    shows="the bridge never connects: no agent has a room, or answers",
    needs=("homeserver",),
)
async def registration(subject: Subject) -> Finding:
    """Whether the homeserver has loaded ours, and takes us for whom we take ourselves."""
    try:
        await recognised(subject.homeserver, subject.config)
    except NotReached as error:
        return found(error.trouble)
    except HomeserverUnavailable as error:
        return trouble(str(error), _EXPLAINED)
    lacking = [one for one in _PROBES if await _is_foreign(subject, *one)]
    if lacking:
        named = ", ".join(kind for kind, _ in lacking)
        return trouble(
            f"in the registration that the homeserver reads, our namespaces are missing: {named}",
            _COPY,
            shows="agents' accounts and rooms are refused (M_EXCLUSIVE, M_FORBIDDEN)",
        )
    return fine(f"loaded, and the homeserver knows us as {subject.config.bot_user_id}")


_PROBES = [
    (f"{sigil}{prefix}...", f"{sigil}{prefix}{_UNUSED}")
    for prefix in RESERVED_PREFIXES
    for sigil in "@#"
]


async def _is_foreign(subject: Subject, _kind: str, localpart: str) -> bool:
    """Whether an id that nobody has is none of our namespaces, by what the homeserver says when
    we use it. Raises HomeserverUnavailable."""
    name = f"{localpart}:{subject.config.homeserver.domain}"
    server = subject.homeserver
    alias, whoami = ClientPath.v3.directory.room[name], ClientPath.v3.account.whoami
    try:
        if name.startswith("@"):
            await server.request(Method.GET, whoami, user_id=name, give_up_after=0)
        else:
            await server.request(Method.DELETE, alias, give_up_after=0)
    except MatrixRequestError as error:
        return is_foreign(error)
    return False


def is_foreign(error: MatrixRequestError) -> bool:
    """Whether a refusal says that an id is not in our namespaces: of users Synapse says it in
    words alone, as it refuses those that are not registered, too."""
    return error.errcode == "M_EXCLUSIVE" or "cannot masquerade" in str(error.message)


@check(
    "reachability",
    shows="agents never answer: what people write does not arrive",
    needs=("homeserver", "registration"),
    vital="reachability",
)
async def reachability(subject: Subject) -> Finding:
    """Whether the homeserver reaches us, which it says when asked for a ping."""
    at = subject.config.appservice
    async with listening(subject) as blocked:
        if blocked:
            return unknown(f"the ping needs port {at.port} of appservice.port: {blocked}")
        try:
            transaction = txn_id("doctor", str(time.time_ns()))
            pings = await ping(subject.homeserver, subject.config, transaction)
        except NotReached as error:
            return found(error.trouble)
        except HomeserverUnavailable as error:
            return unknown(f"it is not known whether we are reached: {error}")
    if pings:
        return fine(f"the homeserver reaches us at {at.url}, and we reach it")
    if subject.health is None:
        lacking = "the homeserver has no ping: only a running bridge sees whether it is reached"
        return unknown(lacking)
    told = {name: one for name, one in subject.told() if not one.warns}
    if (silence := told.get("reachability")) is not None:
        return found(silence)
    if "homeserver" in told:
        return unknown("the homeserver has no ping, and the running bridge is not connected")
    return fine("the homeserver has no ping, and what the running bridge sends comes back")


@check(
    "namespaces",
    shows="somebody else acts as the bot or an agent, or is never answered",
    needs=("homeserver", "registration"),
    vital="accounts",
)
async def namespaces(subject: Subject) -> Finding:
    """Whether the user ids of the bridge are its own."""
    accounts = EarlierAccounts(subject.config, await subject.directory())
    if (wrong := other_accounts(accounts.troubles)) is not None:
        return found(wrong)
    try:
        await accounts.check(subject.bot)
    except NotAsWanted as error:
        return trouble(str(error), _ACCOUNTS)
    except (MatrixRequestError, HomeserverUnavailable) as error:
        return unknown(f"it is not known who is signed in as the bot: {why(error)}")
    prefixes = ", ".join(f"@{prefix}..." for prefix in RESERVED_PREFIXES)
    return fine(f"{prefixes} and the bot are the bridge's own")


@check(
    "clock",
    shows="tokens end too early or too late, and what people wrote looks old",
    needs=("homeserver",),
    vital="clock",
)
async def clock(subject: Subject) -> Finding:
    """Whether this machine's clock is the homeserver's."""
    server = subject.homeserver.clock
    if (wrong := clock_trouble(server)) is not None:
        return found(wrong)
    return fine("this machine's and the homeserver's are the same")
