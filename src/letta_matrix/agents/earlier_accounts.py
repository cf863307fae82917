"""Accounts with user ids of ours that somebody else has made: a password of theirs, and who is
signed in there, go on living beside us.

The client-server API tells who is signed in (`GET /devices`), and not whether there is a password.
An account that we made ourselves has neither (spec: Application Service API, Server admin style
permissions).
"""

from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound

from letta_matrix.agents.decoration import NotAsWanted
from letta_matrix.agents.room_origin import is_from_us
from letta_matrix.common.identifiers import GHOST_PREFIX, is_ours
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import TXN_ID
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.turn_ids import TURN_ID

log = structlog.get_logger()

_NOBODY = "=.nobody"
"""Ends a user id of our namespace that nobody has: `ghost_localpart` makes none like that."""
_WRITTEN = ("m.room.message", "m.room.encrypted")
_MOST = 20
"""Accounts that are named one by one."""


class AccountTaken(Exception):
    """Somebody uses the account that an agent would have."""


class EarlierAccounts:
    """Finds them, and tells operators what to do."""

    def __init__(self, config: Config, directory: AgentDirectory) -> None:
        self._config = config
        self._directory = directory
        self._lines = {one.line for one in config.bridges}
        self._found: dict[str, str] = {}
        self._persons: set[str] = set()
        self._made: set[str] = set()
        self.doubt: Trouble | None = None
        """What cannot be known of the bot's account where the homeserver makes it."""
        for user_id in {*config.agents.room_members, *config.permissions}:
            if user_id.startswith("@") and user_id != config.bot_user_id:
                self._person(user_id, "is named in the configuration")

    @property
    def troubles(self) -> list[str]:
        """What is wrong with whose account, in lines for operators."""
        found = [text for user_id, text in self._found.items() if self._is_odd(user_id)]
        others = len(found) - _MOST
        more = [f"{others} more accounts were there before the bridge: see its log"]
        return found[:_MOST] + (more if others > 0 else [])

    def heard(self, event: Mapping[str, Any]) -> None:
        """Somebody sent an event: a person whose user id is one of ours is never answered. What
        an agent said that another database of ours knew is marked with ids that we make.

        That keeps apart whom nothing is the matter with, and no more: whoever copies the mark of a
        message of ours stays out of `troubles`, and is answered as little.
        """
        writes = event.get("type") in _WRITTEN and not _is_marked(Event(event).marker)
        if writes and isinstance(sender := event.get("sender"), str):
            self._person(sender, "writes to agents, who do not answer")

    async def make(self, intent: Intent) -> bool | None:
        """Make the account exist ahead of `claim`; returns and raises as `Intent.register`."""
        is_new = await intent.register()
        if is_new:
            self._made.add(intent.user_id)
        return is_new

    async def claim(self, intent: Intent, alias: str, *, wanted: bool) -> bool:
        """Make the account exist; whether nobody else is signed in there. `wanted`: whoever made
        it, it is to be ours. Where `alias` leads to a room of ours, we, with another database,
        had the account before.

        Raises AccountTaken, MatrixRequestError and HomeserverUnavailable.
        """
        is_new = await self.make(intent)
        if is_new or intent.user_id in self._made:
            return True
        sessions = await _sessions(intent)
        was_ours = await self._was_ours(intent, alias)
        if sessions and not wanted and not was_ours:
            raise AccountTaken(
                f"the account {intent.user_id} was there before the bridge, and somebody is signed "
                f"in to it ({_many(sessions)}), so it is not taken from them. If it is a person's, "
                "they need another one; if nobody needs it, or it is from the original integration "
                f"(`letta-matrix import-mappings` adopts those): {_cure(intent.user_id)}"
            )
        if sessions:
            log.warning("others are signed in to an account of ours", user=intent.user_id)
        elif not was_ours and is_new is not None:
            await self._tell_of_password(intent)
        return not sessions

    async def check(self, intent: Intent) -> None:
        """Raises NotAsWanted while somebody else is signed in to an account of ours, and as
        `claim` does."""
        sessions = await _sessions(intent)
        if not sessions:
            log.info("nobody else is signed in any more", user=intent.user_id)
            return
        if intent.user_id != self._config.bot_user_id:
            raise NotAsWanted(
                "made by somebody else (the log says which), who is still signed in there and "
                f"acts as the agent: {_cure('USER_ID')}"
            )
        raise NotAsWanted(
            f"{intent.user_id} was there before the bridge, and others are signed in to it "
            f"({_many(sessions)}): who knows its password, or holds one of these, acts as it. To "
            f"{_cure(intent.user_id)} Or give the bridge another bot: the same new name as "
            "appservice.bot_username in config.yaml and as sender_localpart in registration.yaml; "
            "then restart the homeserver and the bridge"
        )

    async def _tell_of_password(self, intent: Intent) -> None:
        """Nobody is signed in to an account that was there before, for all we know."""
        may_have = f"the account {intent.user_id} was there before the bridge, and may have a "
        if not await self._made_itself(intent):
            self._tell(
                intent.user_id,
                f"{may_have}password, with which somebody else could act as it. Unless an earlier "
                f"database of this bridge has made it: {_cure(intent.user_id)}",
            )
            return
        self.doubt = Trouble(
            f"{may_have}password: this homeserver makes it, and does not tell whether somebody "
            "else did so earlier",
            "nothing, if nobody had it before the registration was there; else end its password "
            "by the homeserver's own means, or give the bot another name "
            "(docs/how-to/other-homeservers.md)",
            warns=True,
        )
        log.warning("the bot's account may have a password", user=intent.user_id)

    async def _made_itself(self, intent: Intent) -> bool:
        """Whether it is the bot's account, and homeservers like this one make that: they keep a
        session in it for our token, or let us act as users that nobody has registered."""
        if intent.user_id != self._config.bot_user_id:
            return False
        nobody = f"@{GHOST_PREFIX}{_NOBODY}:{self._config.homeserver.domain}"
        return await intent.own_device() != "" or await intent.acting_as(nobody).may_act()

    async def _was_ours(self, intent: Intent, alias: str) -> bool:
        """Whether a room of ours is there from before. Who had the account made it look like one;
        into an agent's they cannot bring the bot."""
        room_id = await intent.resolve_alias(alias)
        if room_id is None:
            return False
        bot = self._config.bot_user_id
        try:
            is_there = bot in await intent.joined_members(room_id)
            return is_there and await is_from_us(intent, room_id, self._config)
        except (MForbidden, MNotFound):
            return False

    def _person(self, user_id: str, how: str) -> None:
        bot = self._config.bot_user_id
        is_known = user_id in self._found or user_id in self._lines or user_id == bot
        if is_known or not is_ours(user_id, bot) or self._directory.by_user(user_id) is not None:
            return
        self._persons.add(user_id)
        self._tell(
            user_id,
            f"{user_id} {how}: user ids like that belong to the bridge, which takes them for its "
            "own. That person needs an account with another name",
        )

    def _is_odd(self, user_id: str) -> bool:
        # What was taken for a person may turn out to be an agent that was not known yet.
        return user_id not in self._persons or self._directory.by_user(user_id) is None

    def _tell(self, user_id: str, text: str) -> None:
        self._found[user_id] = text
        log.warning("an account of ours is somebody else's", user=user_id, reason=text)


def _is_marked(marker: Mapping[str, Any]) -> bool:
    ids = [str(marker.get(name, "")) for name in ("turn_id", "txn")]
    return any(form.fullmatch(one) for form in (TURN_ID, TXN_ID) for one in ids)


async def _sessions(intent: Intent) -> int:
    try:
        return len(await intent.devices())
    except MatrixRequestError as error:
        log.info("not known who is signed in", user=intent.user_id, reason=str(error))
        return 0


def _many(sessions: int) -> str:
    return f"{sessions} session{'s' if sessions > 1 else ''}"


def _cure(user_id: str) -> str:
    return (
        "end its sessions and its password by Synapse's admin API, PUT "
        f'/_synapse/admin/v2/users/{user_id} {{"password": "A NEW RANDOM ONE", "logout_devices": '
        "true}."
    )
