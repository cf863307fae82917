"""What should come of texts to a phone line: the rules of docs/how-to/sms.md once more, in the
plainest way, for tests that do anything in any order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

ANN, BEN, EVE = "+15550000101", "+15550000202", "+15550000303"
NUMBERS = (ANN, BEN, EVE)
ROUTES = {"(555) 000-0101": "agent-1", "+1 555 000 02*": "agent-2"}
"""Eve has none."""
CONTACT_PER_DAY, PER_DAY = 4, 7
GROUP = "group"
DAY, TAKEOVER, HELP_AGAIN = 86_400.0, 600.0, 3_600.0
NIGHT, MORNING = 22, 6
"""Hours (UTC) between which nothing is asked."""


@dataclass(eq=False)
class Waiting:
    """A message of quiet hours: who wrote it, to which agent, in which room."""

    number: str
    agent_id: str
    room_id: str
    text: str
    sent_at: float


@dataclass
class Talks:
    """The phone line as it should be. A talk is called by its contact's number, or GROUP."""

    now: float
    decided: dict[str, str] = field(default_factory=dict[str, str])
    """Numbers to agents; to "" where nobody answers."""
    shared: bool = False
    """Eve's ghost claims Ann's number too."""
    stopped: set[str] = field(default_factory=set[str])
    """The numbers, or the ids where a number is in doubt, of who wants nothing."""
    held: set[str] = field(default_factory=set[str])
    typed_until: dict[str, float] = field(default_factory=dict[str, float])
    words: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    """The word that a contact was told of last, and when."""
    asked: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When who was asked about, or written to by an agent first."""
    waiting: list[Waiting] = field(default_factory=list[Waiting])

    def agent_of(self, number: str) -> str:
        """Who answers a number, "" for nobody."""
        if self.shared and number in (ANN, EVE):
            return ""
        configured = {ANN: "agent-1", BEN: "agent-2"}.get(number, "")
        return self.decided.get(number, configured)

    def _names(self, number: str) -> tuple[str, str]:
        """A contact's id, and the number that the bridge tells."""
        return "id of " + number, ANN if self.shared and number == EVE else number

    def is_stopped(self, number: str) -> bool:
        return not self.stopped.isdisjoint(self._names(number))

    def refuse(self, number: str, word: str) -> None:
        """A keyword of who has no agent: taken in silence."""
        is_in_doubt = self.shared and number in (ANN, EVE)
        own, told = self._names(number)
        if word == "stop" and not self.is_stopped(number):
            self.stopped.add(own if is_in_doubt else told)
            self.words.pop(number, None)
        elif word == "start":
            self.stopped -= {own} if is_in_doubt else {own, told}

    @property
    def is_quiet(self) -> bool:
        hour = self.now % DAY / 3600
        return hour >= NIGHT or hour < MORNING

    def is_left_alone(self, number: str, talk: str) -> bool:
        """Whether a person writes there, or the contact wants nothing."""
        is_typed = self.typed_until.get(talk, 0.0) > self.now
        return self.is_stopped(number) or talk in self.held or is_typed

    def is_spent(self, number: str) -> bool:
        return not self.has_room([number])

    def has_room(self, more: Iterable[str]) -> bool:
        """Whether all of some messages are within the day's budgets."""
        lately = [who for at, who in self.asked if at > self.now - DAY] + [*more]
        each = all(lately.count(number) <= CONTACT_PER_DAY for number in lately)
        return each and len(lately) <= PER_DAY

    def hears(self, number: str, talk: str, *, addressed: bool) -> str:
        """The agent that a message is for, "" for nobody."""
        is_for_agents = talk != GROUP or addressed
        is_heard = is_for_agents and not self.is_left_alone(number, talk)
        return self.agent_of(number) if is_heard else ""

    def word(self, number: str, word: str) -> bool:
        """Whether a keyword is answered, by a contact with a route."""
        is_stopped, known = self.is_stopped(number), self.words.get(number, ("", 0.0))
        match word:
            case "stop":
                is_new = not is_stopped or (number in self.stopped and not known[0])
                self.stopped |= {number} if is_new else set()
            case "start":
                is_new = is_stopped
                self.stopped -= {*self._names(number)}
            case _:
                is_new = known[0] != word or self.now - known[1] > HELP_AGAIN
        if is_new:
            self.words[number] = word, self.now
        return is_new

    def ask(self, number: str, sent_at: float | None = None) -> None:
        self.asked.append((sent_at or self.now, number))

    def talks_with(self, number: str) -> list[str]:
        """The talks that an admin means who names a number."""
        return [] if self.shared and number in (ANN, EVE) else [number, GROUP]
