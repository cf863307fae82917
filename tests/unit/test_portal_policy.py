"""Names, routes, words and hours of other networks: pure decisions."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.builders import agent
from tests.portal_kit import BOB, BOT, GHOST, LINE, PORTAL, SELF, settings
from tests.routing_kit import Known, KnownPortals, KnownRooms

from letta_matrix.config import PortalSettings
from letta_matrix.config.portals import QuietHours
from letta_matrix.portals.contacts import Routes, normal
from letta_matrix.portals.keywords import Keyword, keyword_in, told
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.quiet import until_open
from letta_matrix.store.portals import BLOCKED, Contact, Portal

HERE = Portal(PORTAL, "irc", "irc", "ann", direct=True)
NUMBER = "+15551234567"


def policy_of(
    *known: Portal | Contact, claims: dict[str, list[str]] | None = None, **changes: object
) -> PortalPolicy:
    rooms = KnownRooms({PORTAL: {LINE: False}}, people={PORTAL: [GHOST, BOT]})
    book = KnownPortals(HERE, *known, claims=claims or {})
    one = PortalSettings.model_validate(settings(**changes))
    return PortalPolicy([one], book, Known(agent(1), agent(2)), rooms)


def answering(policy: PortalPolicy, sender: str = GHOST, text: str = "hello") -> str | None:
    verdict = policy.verdict(HERE, sender, text, {})
    return verdict.agent.agent_id if verdict.agent else None


@pytest.mark.parametrize(
    "contact", ["+1 555 123-4567", "tel:+15551234567", "0015551234567", "+1 (555) 123.4567"]
)
def test_one_number_in_every_notation(contact: str) -> None:
    assert normal(contact) == NUMBER


def test_the_surest_and_longest_route_counts() -> None:
    routes = Routes({"*": "all", "+1*": "usa", "+1555*": "town", "+1 555 1234567": "one"})
    assert routes.of([NUMBER]) == "one"
    assert routes.of(["+15559999999"]) == "town"
    assert routes.of(["+12"]) == "usa"
    assert routes.of(["net_ann"]) == "all"
    assert Routes({}).of(["net_ann"]) is None


def test_a_name_behind_its_kind_and_a_blank_is_that_name() -> None:
    assert normal("tel: Ann") == normal("ann")
    assert Routes({"irc: ann": "one"}).of([normal("Ann")]) == "one"


def test_what_admins_decide_comes_before_the_configuration() -> None:
    assert answering(policy_of()) == "agent-1"
    assert answering(policy_of(Contact("irc", "ann", "agent-2"))) == "agent-2"
    assert answering(policy_of(Contact("irc", "ann", BLOCKED))) is None
    assert answering(policy_of(Contact("other", "ann", BLOCKED))) == "agent-1"
    assert answering(policy_of(routes={})) is None
    assert answering(policy_of(Contact("irc", GHOST, "agent-2"), routes={})) == "agent-2"
    assert answering(policy_of(Contact("irc", "ann", "agent-9"))) is None


def test_what_several_claim_allows_nobody_and_still_stops() -> None:
    both = {GHOST: [NUMBER], BOB: [NUMBER]}
    allowed = Contact("irc", NUMBER, "agent-2")
    assert answering(policy_of(allowed, routes={}, claims={GHOST: [NUMBER]})) == "agent-2"
    assert answering(policy_of(allowed, routes={}, claims=both)) is None
    stopped = Contact("irc", NUMBER, stopped=True)
    assert answering(policy_of(stopped, claims=both)) is None
    assert answering(policy_of(Contact("irc", NUMBER, BLOCKED), claims=both)) is None


def test_held_portals_selves_and_bots_are_silent() -> None:
    held = Portal(PORTAL, "irc", held=True, direct=True)
    assert policy_of().verdict(held, GHOST, "hello", {}).agent is None
    assert answering(policy_of(), SELF) is None
    assert answering(policy_of(), BOT) is None
    assert answering(policy_of(), "@irc_x:elsewhere") is None


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("STOP", Keyword.STOP),
        (" stop. ", Keyword.STOP),
        ("Arrêt", Keyword.STOP),
        ("توقف", Keyword.STOP),
        ("退订", Keyword.STOP),
        ("Start", Keyword.START),
        ("HILFE!", Keyword.HELP),
        ("please stop", None),
        ("stop it", None),
        ("", None),
    ],
)
def test_words_count_alone(text: str, keyword: Keyword | None) -> None:
    assert keyword_in(text) == keyword


def test_words_are_answered_in_their_language() -> None:
    assert "START" in told("stopp", "Ada")
    assert told("hilfe", "Ada").startswith("Hier antwortet ein Programm, Ada")
    assert told("توقف", "Ada") == told("stop", "Ada")


def test_start_is_a_word_only_for_who_has_stopped() -> None:
    assert policy_of().verdict(HERE, GHOST, "start", {}).keyword is None
    stopped = policy_of(Contact("irc", "ann", stopped=True))
    assert stopped.verdict(HERE, GHOST, "start", {}).keyword is Keyword.START
    assert stopped.verdict(HERE, GHOST, "hello", {}).agent is None


@pytest.mark.parametrize(
    ("time", "hours"),
    [("21:59", 0), ("22:00", 9), ("23:30", 7.5), ("06:59", 1 / 60), ("07:00", 0), ("12:00", 0)],
)
def test_quiet_hours_go_over_midnight_in_their_zone(time: str, hours: float) -> None:
    quiet = QuietHours.model_validate({"start": "22:00", "end": "07:00", "zone": "Europe/Berlin"})
    here = datetime.fromisoformat(f"2026-06-10T{time}").replace(tzinfo=ZoneInfo("Europe/Berlin"))
    assert until_open(quiet, here.timestamp()) == pytest.approx(hours * 3600)


def test_a_change_of_clocks_moves_the_end_of_quiet_hours() -> None:
    quiet = QuietHours.model_validate({"start": "22:00", "end": "07:00", "zone": "Europe/Berlin"})
    evening = datetime(2026, 3, 28, 22, tzinfo=ZoneInfo("Europe/Berlin"))
    assert until_open(quiet, evening.timestamp()) == 8 * 3600


@given(st.text(max_size=40))
@example("sms: Ann")
def test_names_are_compared_as_they_are_kept(contact: str) -> None:
    assert normal(normal(contact)) == normal(contact)
