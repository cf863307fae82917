"""The phone line: whom a number means, who counts as a contact, and who takes over by hand."""

from typing import Any

import pytest
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver
from tests.portal_kit import out
from tests.sms_kit import (
    BOT,
    CONTACT,
    ENCRYPTED,
    LINE,
    NUMBER,
    PHONE,
    PORTAL,
    identified,
    texts_with,
    with_line,
)
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.config import SmsSettings
from letta_matrix.operations.sms import unread
from letta_matrix.portals.bridges import NetworkBridge
from letta_matrix.portals.numbers import is_number, normal_number

GERMAN = "+491701234567"


def unread_in(stage: Stage) -> list[str]:
    """The portals that health tells of."""
    return unread(stage.parts.portals)


def settings(**changes: Any) -> SmsSettings:
    users = {"bot": BOT, "ghosts": r"@gmessages_(\d+\.\d+):test", "line": LINE}
    return SmsSettings.model_validate(users | changes)


@pytest.mark.parametrize(
    "written",
    [
        *("+491701234567", "tel:+49-170-1234567", "00491701234567", "0049 170 1234567"),
        *("0170 1234567", "0170/1234567", "(0170) 1234567", "+49 (0)170 1234567"),
        *("0170\u20131234567", "SMS:+49 170 1234567", "٠١٧٠١٢٣٤٥٦٧"),
    ],
)
def test_one_number_in_every_notation(written: str) -> None:
    assert normal_number(written, "DE") == GERMAN


@pytest.mark.parametrize(
    ("written", "region", "normal"),
    [
        ("(555) 123-4567", "US", NUMBER),
        ("555.123.4567", "US", NUMBER),
        ("0170 1234567", None, "01701234567"),
        ("72345", "US", "72345"),  # a short code
        ("1.23", "US", "1.23"),  # what the bridge calls a contact
        ("@gmessages_1.2:test", "US", "@gmessages_1.2:test"),
        ("Ann", "US", "ann"),
        ("*", "DE", "*"),
        ("+49170*", None, "+49170*"),
        ("0170*", "DE", "+49170*"),
        ("0049 170*", "US", "+49170*"),
        ("", "DE", ""),
    ],
)
def test_what_else_is_written(written: str, region: str | None, normal: str) -> None:
    assert normal_number(written, region) == normal


def test_numbers_that_can_be_dialled() -> None:
    assert is_number(NUMBER)
    assert is_number("72345")
    assert not any(map(is_number, ("01701234567", "1.2", "ann", "+49170*", "")))


def test_routes_are_read_in_every_notation() -> None:
    bridge = NetworkBridge(settings(region="DE", routes={"0170 1234567": "one", "030*": "berlin"}))
    assert bridge.routes.of([GERMAN]) == "one"
    assert bridge.routes.of(["+493012345"]) == "berlin"


async def test_a_text_is_answered_by_the_default_agent(stage: Stage, fake: FakeHomeserver) -> None:
    line = await with_line(stage)
    await texts_with(line)
    await line.tell(message("hello **you**", PORTAL, sender=CONTACT))
    (answer,) = fake.messages(PORTAL)
    assert (answer["sender"], answer["content"]["body"]) == (LINE, "echo: hello you")


async def test_what_is_typed_on_the_phone_prompts_nobody_and_takes_over(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    line = await with_line(stage, takeover="10m")
    clock.stop()
    fake.profiles[PHONE] = {}
    await texts_with(line)
    await line.tell(message("by hand", PORTAL, sender=PHONE))
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []
    await line.again()
    await line.tell(message("and now", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []


async def test_a_takeover_ends(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await with_line(stage, takeover="10m")
    await texts_with(line)
    await line.tell(message("I will call you", PORTAL, sender=PERSON))
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []
    later = line.parts.portals.now() + 601
    monkeypatch.setattr(line.parts.portals, "now", lambda: later)
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    assert out(fake, PORTAL) == ["echo: hello"]


async def test_neither_commands_nor_echoes_of_ours_take_over(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    fake.profiles[PHONE] = {}
    await texts_with(line)
    await line.tell(message("one", PORTAL, sender=CONTACT))
    (answer,) = fake.messages(PORTAL)
    await line.tell(answer)
    await line.tell(message("echo: one", PORTAL, sender=PHONE))
    await line.tell(message("!gm set-relay", PORTAL, sender=PERSON))
    await line.tell(message("two", PORTAL, sender=CONTACT))
    assert out(fake, PORTAL) == ["echo: one", "echo: two"]


async def test_a_contact_whose_number_is_told_late_is_heard(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    await texts_with(line, number="")
    fake.profiles[CONTACT] = identified()
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    assert out(fake, PORTAL) == ["echo: hello"]


async def test_who_has_no_number_is_heard_only_if_named(stage: Stage, fake: FakeHomeserver) -> None:
    line = await with_line(stage)
    fake.profiles[CONTACT] = {}
    await texts_with(line, number="")
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []
    named = await with_line(line, routes={"1.2": "agent-2"})
    await named.tell(message("hello", PORTAL, sender=CONTACT))
    assert [one.agent_id for one in named.runtime.asked] == ["agent-2"]


def status_of(event_id: str, status: str = "FAIL_RETRIABLE", sender: str = BOT) -> Any:
    """What the bridge tells of a message."""
    told: Any = message("", PORTAL, sender=sender)
    about = {"rel_type": "m.reference", "event_id": event_id}
    words = {"reason": "m.foreign_network_error", "message": "Your phone is not responding"}
    content = {"m.relates_to": about, "status": status} | words
    return told | {"type": "com.beeper.message_send_status", "content": content}


def notice_of(event_id: str) -> Any:
    """The same in words."""
    words = "\u26a0\ufe0f Your message was not bridged: no phone"
    about = {"m.in_reply_to": {"event_id": event_id}}
    content = {"msgtype": "m.notice", "body": words, "m.relates_to": about}
    return message("", PORTAL, sender=BOT, content=content)


async def answered(stage: Stage, fake: FakeHomeserver) -> tuple[Stage, str]:
    """A line whose contact has been answered, and the answer's event."""
    line = await with_line(stage)
    await texts_with(line)
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    (sent,) = fake.messages(PORTAL)
    return line, str(sent["event_id"])


async def test_a_text_that_did_not_go_out_is_told_of_once_and_not_sent_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line, event_id = await answered(stage, fake)
    await line.tell(status_of(event_id, "PENDING"))
    assert line.parts.undelivered.trouble is None
    await line.tell(status_of(event_id), notice_of(event_id))
    await line.tell(status_of(event_id, "FAIL_PERMANENT"))
    (told,) = fake.bodies("!1:test")
    assert told.startswith(f"About `{CONTACT}`: my text did not go out, or perhaps not: Your phone")
    assert out(fake, PORTAL) == ["echo: hello"]
    assert "texts of agents do not go out" in str(line.parts.undelivered.trouble)
    await line.tell(status_of("$other", "SUCCESS"))
    assert line.parts.undelivered.trouble is None


async def test_only_the_bridge_tells_what_became_of_agents_texts(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line, event_id = await answered(stage, fake)
    theirs = message("by a person", PORTAL)
    await line.tell(theirs, status_of(event_id, sender=CONTACT))
    await line.tell(status_of(theirs["event_id"]), status_of("$unknown"))
    assert fake.bodies("!1:test") == []
    await line.tell(notice_of(event_id))
    (told,) = fake.bodies("!1:test")
    assert "no phone" in told


async def test_what_a_bridge_encrypts_is_told_of_and_nothing_is_written_there(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    await texts_with(line, encrypted=True)
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "..."}
    for _ in range(2):
        unread = message("", PORTAL, sender=CONTACT, type="m.room.encrypted", content=secret)
        await line.tell(unread)
    (told,) = fake.bodies("!1:test")
    assert told.startswith(f"About `{CONTACT}`: messages from there cannot be read")
    assert line.runtime.asked == []
    assert out(fake, PORTAL) == []
    await line.again()
    assert unread_in(line) == [PORTAL]
    # Another room in its place is another thing.
    await texts_with(line, room_id="!anew:test", channel=PORTAL)
    await line.tell(message("hello", "!anew:test", sender=CONTACT))
    assert out(fake, "!anew:test") == ["echo: hello"]
    assert unread_in(line) == []


async def test_a_talk_that_is_encrypted_later_is_noticed(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    await texts_with(line)
    await line.tell(fake.set_state(PORTAL, "m.room.encryption", ENCRYPTED, "", BOT))
    assert unread_in(line) == [PORTAL]
    assert out(fake, PORTAL) == []


async def by_a_tool(line: Stage, fake: FakeHomeserver) -> str:
    """A text of the line that no reply's outbox knows; its event."""
    content: Any = {"msgtype": "m.text", "body": "hi", "org.letta.matrix": {"agent_id": "agent-1"}}
    await line.parts.homeserver.acting_as(LINE).send(PORTAL, "m.room.message", content, "t1")
    return str(fake.messages(PORTAL)[-1]["event_id"])


async def test_a_text_that_did_not_go_out_is_told_of_though_it_was_redacted_since(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    await texts_with(line)
    event_id = await by_a_tool(line, fake)
    # The bridge dies before it has looked whose text it was.
    looks = fake.hold("GET .*/event/")
    await line.admit(status_of(event_id))
    await eventually(lambda: fake.matching("GET .*/event/"))
    fake.redact(PORTAL, event_id)
    fake._held.clear()
    await line.recover()
    looks.set()
    await line.idle()
    (told,) = fake.bodies("!1:test")
    assert told.startswith(f"About `{CONTACT}`: my text did not go out")


async def test_redacted_words_of_people_are_told_of_to_nobody(
    stage: Stage, fake: FakeHomeserver
) -> None:
    line = await with_line(stage)
    await texts_with(line)
    intent = line.parts.homeserver.acting_as(PERSON)
    event_id = await intent.send(PORTAL, "m.room.message", {"msgtype": "m.text", "body": "x"}, "t")
    fake.redact(PORTAL, event_id)
    await line.tell(status_of(event_id))
    assert fake.bodies("!1:test") == []


async def becomes(line: Stage, protocol: str) -> None:
    """The talk goes on by other means."""
    told = {"bridgebot": BOT, "protocol": {"id": protocol}, "channel": {"id": PORTAL}}
    content = told | {"com.beeper.room_type": "dm"}
    await line.tell(line.fake.set_state(PORTAL, "m.bridge", content, "fi.mau.gmessages", BOT))


async def test_only_rcs_shows_that_a_text_was_read_and_who_types(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    line = await with_line(stage)
    await texts_with(line)
    fake.requests.clear()
    shown = f"rooms/{PORTAL}/(?:receipt|typing)/"
    for number, protocol in enumerate(("gmessages-sms", "gmessages-rcs", "gmessages-sms"), 1):
        await becomes(line, protocol)
        await line.admit(message("slow 3", PORTAL, sender=CONTACT))
        if protocol == "gmessages-rcs":
            await clock.until(lambda: len(fake.matching(shown)) == 2, step=0.1)
        await clock.until(lambda number=number: len(out(fake, PORTAL)) == number, step=0.1)
        await line.idle()
        # The last of them says that nobody types any more.
        await clock.until(lambda: len(fake.matching(shown)) in (0, 3), step=0.1)
    assert len(fake.matching(shown)) == 3
