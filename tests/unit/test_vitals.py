"""Named checks: how everything is, and what is wrong."""

from letta_matrix.common.vitals import Check, State, Trouble, Vitals, lines, said


def test_checks_keep_their_order_and_tell_what_to_do() -> None:
    vitals, words = Vitals(), [""]
    vitals.watch("database", lambda: said(words[0]))
    vitals.watch("homeserver", lambda: Trouble("it is away", "start it", "Ada"))
    assert vitals.checks() == [
        Check("database", State.OK),
        Check("homeserver", State.TROUBLE, "it is away", "start it", "Ada"),
    ]
    assert lines(vitals.checks(), State.TROUBLE) == ["it is away: start it"]
    words[0] = "the disk is full"
    told = ["the disk is full", "it is away: start it"]
    assert lines(vitals.checks(), State.TROUBLE) == told
    vitals.watch("homeserver", lambda: None)
    assert vitals.of("homeserver") is vitals.of("unheard of") is None
    assert [check.name for check in vitals.checks()] == ["database", "homeserver"]


def test_what_two_say_is_told_once() -> None:
    vitals = Vitals()
    vitals.watch("homeserver", lambda: Trouble("port 1 was taken"))
    vitals.watch("homeserver address", lambda: said("port 1 was taken"))
    assert lines(vitals.checks(), State.TROUBLE) == ["port 1 was taken"]


def test_a_warning_is_listed_and_is_no_trouble() -> None:
    vitals = Vitals()
    vitals.watch("decoration", lambda: said("no pictures", warns=True))
    assert vitals.checks() == [Check("decoration", State.WARNING, "no pictures")]
    assert lines(vitals.checks(), State.TROUBLE) == []
    assert lines(vitals.checks(), State.WARNING) == ["no pictures"]
