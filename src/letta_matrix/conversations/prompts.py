"""What an agent is told of a message: the words, who says them where, what they answer, files."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.config import Config
from letta_matrix.conversations.attachments import Attached, caption, read_attachment
from letta_matrix.conversations.imitations import folded, quote_imitations
from letta_matrix.conversations.names import plain_name
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.content import BESIDE, MARKER, without_reply_fallback
from letta_matrix.matrix.events import mapping, newest_content
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.media import download
from letta_matrix.runtimes.protocol import Capabilities, Image
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.turns import Turn

log = structlog.get_logger()

_PATIENCE = 10.0
_MAX_QUOTE = 500
_MAX_QUOTE_LINES = 8
_YOU = "you"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A turn as its runtime gets it.

    `header` is what `text` has before the person's own words; `notes` are lines for the person
    about what the agent did not get. `several`: others than its sender are in the room.
    """

    text: str
    header: str = ""
    images: tuple[Image, ...] = ()
    notes: tuple[str, ...] = ()
    several: bool = False


class Prompts:
    """Makes prompts when their turns start. Whoever sees members or names of rooms change calls
    `roster.forget`."""

    def __init__(self, config: Config, homeserver: Homeserver, directory: AgentDirectory) -> None:
        self._config = config
        self._homeserver = homeserver
        self._directory = directory
        self.roster = Roster(homeserver)
        # One file of each person at a time: those that wait for a decoder wait in turn, and
        # whoever sends many waits for their own.
        self._files = WeakValueDictionary[str, asyncio.Lock]()

    async def build(
        self, turn: Turn, agent: Agent, capabilities: Capabilities, *, joined: Sequence[Turn] = ()
    ) -> Prompt:
        """The prompt of a turn, and of those asked with it, for an agent whose runtime has
        `capabilities`.

        With one person in the room it is that person's words alone; with more it starts with
        the configured envelope. What the homeserver does not give (members, the message that is
        replied to, files) is left out, the latter with a note.
        """
        together = (turn, *joined)
        members, attached = await asyncio.gather(
            self.roster.members(turn.room_id, agent.user_id),
            asyncio.gather(*(self._attached(one, agent, capabilities) for one in together)),
        )
        envelope = ""
        several = len(self._people(members, agent) | {turn.sender}) > 1
        # Whose words these are must show where it is not known who else is there.
        if not members or several:
            envelope = await self._envelope(turn, agent, members)
        header = envelope + await self._quote(turn, agent, members)
        pairs = zip(map(_words, together), (file.text for file in attached), strict=True)
        text = "\n\n".join(part for pair in pairs for part in pair if part)
        # Alone with the agent, too: it may know envelopes from elsewhere, and others may come.
        text = quote_imitations(text, self._config.conversations.envelope)
        notes = tuple(file.note for file in attached if file.note)
        images = tuple(image for file in attached for image in file.images)
        return Prompt(header + text, header, images, notes, several)

    def _people(self, members: Mapping[str, str], agent: Agent) -> set[str]:
        """Everybody an agent may hear in a room: persons, and other agents."""
        return {user for user in members if user != agent.user_id and self._speaks(user)}

    def _speaks(self, user_id: str) -> bool:
        other = self._directory.by_user(user_id)
        if other is not None:
            return other.status is AgentStatus.ACTIVE
        return not is_ours(user_id, self._config.bot_user_id)

    async def _envelope(self, turn: Turn, agent: Agent, members: Mapping[str, str]) -> str:
        room = await self.roster.name(turn.room_id, agent.user_id)
        sent_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(turn.sent_at))
        envelope = self._config.conversations.envelope.format(
            room=plain_name(room) or "a room without a name",
            time=sent_at,
            name=_name(turn.sender, members),
            sender=plain_name(turn.sender, 255),
            thread=", in a thread" if turn.thread_id else "",
        )
        return f"{envelope}\n" if envelope else ""

    async def _quote(self, turn: Turn, agent: Agent, members: Mapping[str, str]) -> str:
        """The message that is replied to, as a Markdown quote with its author."""
        if turn.reply_to is None:
            return ""
        intent = Intent(self._homeserver, agent.user_id)
        try:
            async with asyncio.timeout(_PATIENCE):
                event = await intent.event(turn.room_id, turn.reply_to)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.info("a quoted message is left out", turn=turn.turn_id, reason=str(error))
            return ""
        said = self._said(event)
        if not said:
            return ""
        sender = str(event.get("sender"))
        author = _YOU if sender == agent.user_id else _name(sender, members)
        if author is not _YOU and folded(author) == _YOU:
            author = plain_name(sender, 255)
        lines = _shortened(f"{author}: {said}").split("\n")
        return "".join(f"> {line}".rstrip() + "\n" for line in lines) + "\n"

    def _said(self, event: Mapping[str, Any]) -> str:
        """What a message said in its last version; nothing for notices of our own."""
        content = newest_content(event)
        body, msgtype = content.get("body"), content.get("msgtype")
        sender = event.get("sender")
        is_ours = isinstance(sender, str) and (
            sender == self._config.bot_user_id or self._directory.by_user(sender) is not None
        )
        # Traces of tools and the like are never part of what a model reads.
        beside = BESIDE in mapping(content.get(MARKER))
        if not isinstance(body, str) or (is_ours and (msgtype == "m.notice" or beside)):
            return ""
        is_reply = "m.in_reply_to" in mapping(content.get("m.relates_to"))
        text = clean_text(without_reply_fallback(body) if is_reply else body).strip()
        text = "\n".join(text.splitlines())
        if msgtype in ("m.image", "m.file", "m.audio", "m.video"):
            return f"[{msgtype.removeprefix('m.')}: {plain_name(text)}]"
        return text

    async def _attached(self, turn: Turn, agent: Agent, capabilities: Capabilities) -> Attached:
        if turn.attachment is None:
            return Attached("")

        async def fetch(mxc: str, most: int, *, cut: bool = False) -> bytes:
            return await download(self._homeserver, agent.user_id, mxc, most, cut=cut)

        limits = self._config.conversations
        async with self._files.setdefault(turn.sender, asyncio.Lock()):
            return await read_attachment(turn.attachment, limits, fetch, sees=capabilities.images)


def _words(turn: Turn) -> str:
    return turn.prompt if turn.prompt is not None else caption(turn.attachment or {})


def _name(user_id: str, members: Mapping[str, str]) -> str:
    localpart = user_id[1:].partition(":")[0]
    return plain_name(members.get(user_id) or localpart) or plain_name(localpart)


def _shortened(text: str) -> str:
    lines = text[: _MAX_QUOTE + 1].split("\n")
    short = "\n".join(lines[:_MAX_QUOTE_LINES])[:_MAX_QUOTE].rstrip()
    return short if short == text.rstrip() else f"{short} \u2026"
