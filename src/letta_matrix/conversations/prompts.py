"""What an agent is told of a message: the words, who says them where, what they answer, files."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.attachments import (
    Attached,
    caption,
    described_only,
    read_attachment,
)
from letta_matrix.conversations.context import Context, Contexts
from letta_matrix.conversations.imitated_notes import blunt_notes
from letta_matrix.conversations.imitations import quote_imitations
from letta_matrix.conversations.looks import looks, plain_name
from letta_matrix.conversations.new_turns import sent_at
from letta_matrix.conversations.readable import attachment_of, files_of, quotable
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.events import RawEvent, newest_content
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.media import download
from letta_matrix.matrix.mentions import with_names
from letta_matrix.runtimes.protocol import Capabilities, Image
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.turns import Turn

log = structlog.get_logger()

_PATIENCE = 10.0
_MAX_QUOTE = 500
_MAX_QUOTE_LINES = 8
_MOST_FILES = 3
"""Files of one message that are read, and those of a thread."""

_YOU = "you"

Members = Mapping[str, str]


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


@part
class Prompts:
    """Makes prompts when their turns start. Whoever sees members or names of rooms change calls
    `roster.forget`."""

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _contexts: Contexts | None = None

    def __post_init__(self) -> None:
        self.roster = Roster(self._homeserver)
        # One file of each person at a time: those that wait for a decoder wait in turn, and
        # whoever sends many waits for their own.
        self._reading = WeakValueDictionary[str, asyncio.Lock]()

    async def build(
        self, turn: Turn, agent: Agent, capabilities: Capabilities, *, joined: Sequence[Turn] = ()
    ) -> Prompt:
        """The prompt of a turn, and of those asked with it, for an agent whose runtime has
        `capabilities`.

        With one person in the room it is that person's words alone; with more it starts with
        the configured envelope. Then comes what was said around it and is new to the agent, and
        what it replies to, as far as its sender may read them; the files of both come along.
        What the homeserver does not give (members, other messages, files) is left out, the
        turn's own files with a note.
        """
        together = (turn, *joined)
        members = await self.roster.members(turn.room_id, agent.user_id)
        files = [
            await self._read(files_of(one.attachment), one, agent, capabilities) for one in together
        ]
        # Everybody an agent may hear in a room: persons, and other agents.
        people = {user for user in members if user != agent.user_id and self._speaks(user)}
        several = len(people | {turn.sender}) > 1
        # Whose words these are must show where it is not known who else is there.
        told = several or not members
        context, replied_to = await self._around(turn, agent, told)
        envelope = await self._envelope(turn, agent, members) if told else ""
        header = envelope + self._header(context, replied_to, agent, members)
        own = [file for read in files for file in read]
        answered = await self._read(_files_in(replied_to), turn, agent, capabilities)
        near = await self._read(_files_near(context, replied_to), turn, agent, capabilities)
        texts = [self._text(one, members, read) for one, read in zip(together, files, strict=True)]
        texts += [file.text for file in (*answered, *near)]
        # Alone with the agent, too: it may know envelopes from elsewhere, and others may come.
        text = quote_imitations(
            "\n\n".join(part for part in texts if part), self._config.conversations.envelope
        )
        images = tuple(image for file in (*own, *answered, *near) for image in file.images)
        notes = tuple(file.note for file in (*own, *answered) if file.note)
        return Prompt(header + text, header, images, notes, several)

    def _text(self, turn: Turn, members: Members, files: Sequence[Attached]) -> str:
        words = turn.prompt if turn.prompt is not None else caption(turn.attachment or {})
        words = with_names(words, self._names(members))
        return "\n\n".join(part for part in (words, *(file.text for file in files)) if part)

    def _speaks(self, user_id: str) -> bool:
        other = self._directory.by_user(user_id)
        if other is not None:
            return other.status is AgentStatus.ACTIVE
        return not is_ours(user_id, self._config.bot_user_id)

    async def _envelope(self, turn: Turn, agent: Agent, members: Members) -> str:
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

    async def _around(
        self, turn: Turn, agent: Agent, several: bool
    ) -> tuple[Context, RawEvent | None]:
        """What was said around a message, and what it replies to."""
        context = self._context(turn, agent, several)
        if turn.reply_to is None:
            # As most are: no task is made for what is there at once.
            return await context, None
        return await asyncio.gather(context, self._replied_to(turn, turn.reply_to, agent))

    async def _context(self, turn: Turn, agent: Agent, several: bool) -> Context:
        if self._contexts is None:
            return Context()
        return await self._contexts.of(turn, agent, self.roster, several=several)

    async def _replied_to(self, turn: Turn, event_id: str, agent: Agent) -> RawEvent | None:
        intent = self._homeserver.acting_as(agent.user_id)
        try:
            async with asyncio.timeout(_PATIENCE):
                event = await intent.event(turn.room_id, event_id)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.info("a quoted message is left out", turn=turn.turn_id, reason=str(error))
            return None
        if event.get("sender") != turn.sender:
            # The agent sees more than later guests do, and would tell them.
            since = await self.roster.readable_since(turn.room_id, turn.sender, agent.user_id)
            if sent_at(event) < since:
                log.info("a quoted message is not for who quotes it", turn=turn.turn_id)
                return None
        return event

    def _header(
        self, context: Context, replied_to: RawEvent | None, agent: Agent, members: Members
    ) -> str:
        """The context and the message that is replied to, as Markdown quotes with authors."""

        def shown(event: RawEvent) -> tuple[str, str]:
            said = quote_imitations(self._said(event, members), self._config.conversations.envelope)
            return _author(event, agent, members), _shortened(said)

        block = context.block(shown)
        said = blunt_notes(self._said(replied_to, members)) if replied_to is not None else ""
        if replied_to is None or not said:
            return block
        lines = _shortened(f"{_author(replied_to, agent, members)}: {said}").split("\n")
        return block + "".join(f"> {line}".rstrip() + "\n" for line in lines) + "\n"

    def _said(self, event: RawEvent, members: Members) -> str:
        """What a message said in its last version; nothing for notices of our own."""
        sender = event.get("sender")
        is_one = isinstance(sender, str) and is_ours(sender, self._config.bot_user_id)
        said = quotable(event, is_ours=is_one)
        return "\n".join(with_names(said, self._names(members)).splitlines())

    def _names(self, members: Members) -> Callable[[str], str | None]:
        """Who is meant by user ids that somebody wrote: agents by their names alone, as their ids
        say nothing; persons with their ids, by which alone they can be reached."""
        domain = self._config.homeserver.domain

        def name_of(user_id: str) -> str | None:
            agent = self._directory.by_user(user_id if ":" in user_id else f"{user_id}:{domain}")
            if agent is not None:
                return plain_name(agent.name)
            name = plain_name(members.get(user_id, ""))
            says_more = name and name != user_id[1:].partition(":")[0]
            return f"{name} ({user_id})" if says_more else None

        return name_of

    async def _read(
        self, files: Sequence[RawEvent], turn: Turn, agent: Agent, capabilities: Capabilities
    ) -> list[Attached]:
        """What the agent gets of the files with these contents; of too many the last are named."""
        if not files:
            return []

        async def fetch(mxc: str, most: int, *, cut: bool = False) -> bytes:
            return await download(self._homeserver, agent.user_id, mxc, most, cut=cut)

        limits, sees = self._config.conversations, capabilities.images
        async with self._reading.setdefault(turn.sender, asyncio.Lock()):
            read = [
                await read_attachment(content, limits, fetch, sees=sees)
                for content in files[:_MOST_FILES]
            ]
        return read + [described_only(content) for content in files[_MOST_FILES:]]


def _files_in(event: RawEvent | None) -> list[RawEvent]:
    if event is None:
        return []
    return files_of(attachment_of({**event, "content": newest_content(event)}))


def _files_near(context: Context, replied_to: RawEvent | None) -> list[RawEvent]:
    """The newest files of a thread, apart from those of the message that is replied to."""
    if not context.in_thread:
        return []
    known = replied_to.get("event_id") if replied_to is not None else None
    events = [event for event in context.all if event.get("event_id") != known]
    return [file for event in events for file in _files_in(event)][-_MOST_FILES:]


def _author(event: RawEvent, agent: Agent, members: Members) -> str:
    sender = str(event.get("sender"))
    if sender == agent.user_id:
        return _YOU
    author = _name(sender, members)
    return plain_name(sender, 255) if looks(author) == _YOU else author


def _name(user_id: str, members: Members) -> str:
    localpart = user_id[1:].partition(":")[0]
    return plain_name(members.get(user_id) or localpart) or plain_name(localpart)


def _shortened(text: str) -> str:
    lines = text[: _MAX_QUOTE + 1].split("\n")
    short = "\n".join(lines[:_MAX_QUOTE_LINES])[:_MAX_QUOTE].rstrip()
    return short if short == text.rstrip() else f"{short} \u2026"
