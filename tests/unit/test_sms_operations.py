"""The phone line as operators see it: commands in rooms, and in a terminal."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver
from tests.sms_kit import CONTACT, LINE, NUMBER, PORTAL, texts_with, with_line
from tests.stage import Stage
from typer.testing import CliRunner

from letta_matrix.cli.commands import app
from letta_matrix.portals.provisioning import (
    Known,
    Login,
    Provisioning,
    ProvisioningFault,
    Step,
    Why,
)

OWN = "!1:test"
QR = Step("p", "s.qr", "display_and_wait", "Scan it", "qr", "https://pair.test")


class Played(Provisioning):
    """A bridge without a network. `said` are the steps that come; a fault is raised."""

    def __init__(self) -> None:
        self.said: list[Step | ProvisioningFault] = []
        self.phones: list[Login] = []
        self.known: list[Known] = []

    async def logins(self) -> list[Login]:
        return self.phones

    async def contacts(self) -> list[Known]:
        return self.known

    async def logout(self, login_id: str = "all") -> None:
        self.phones = []

    async def start(self, flow: str) -> Step:
        return await self.go_on(QR, {})

    async def go_on(self, step: Step, values: Any) -> Step:
        one = self.said.pop(0)
        if isinstance(one, ProvisioningFault):
            raise one
        return one


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    one = Played()

    def make(*_: object, **_how: object) -> Played:
        return one

    monkeypatch.setattr("letta_matrix.app.phone_line.Provisioning", make)
    return one


@pytest.fixture
async def line(played: Played, stage: Stage) -> Stage:
    """A stage with a phone line, and a person who is an admin."""
    stage._sections |= {"permissions": {"test": "user", PERSON: "admin"}}
    return await with_line(stage, default_agent=None, region="US")


async def told(line: Stage, command: str) -> str:
    await line.tell(message(command, OWN))
    return line.fake.bodies(OWN, "m.notice")[-1]


async def test_a_phone_is_paired_by_a_code(line: Stage, played: Played) -> None:
    assert "No login has been begun" in await told(line, "!sms login")
    assert "do not belong into a room" in await told(line, "!sms login google")
    late = ProvisioningFault("the bridge has not answered", Why.UNAVAILABLE)
    played.said = [QR, late, Step("p", "s", "complete", login="phone-1")]
    assert "https://pair.test" in await told(line, "!sms login qr")
    assert "has not answered" in await told(line, "!sms login")
    assert await told(line, "!sms login") == "The phone is paired: `phone-1`."
    entries = await line.stores.audit.newest(10)
    assert {one.tool for one in entries} == {"sms.login"}


async def test_the_status_of_the_line(line: Stage, played: Played) -> None:
    assert "no phone is paired" in await told(line, "!sms status")
    played.phones = [Login("phone-1", NUMBER, "TRANSIENT_DISCONNECT", "no answer")]
    await texts_with(line, number="")
    said = await told(line, "!sms status")
    assert said.splitlines() == [
        f"The line is `{LINE}`, in 1 talk.",
        f"- Phone `{NUMBER}`: `TRANSIENT_DISCONNECT`: `no answer`",
        "- In 1 talk the bridge tells no number, so that nobody is answered there: see "
        "`letta-matrix sms bridge-config`.",
    ]
    assert await told(line, "!sms logout") == "Unpaired: `all`."


async def test_numbers_in_every_notation_are_allowed_and_blocked(
    line: Stage, played: Played, fake: FakeHomeserver
) -> None:
    await texts_with(line)
    await line.tell(message("one", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []
    said = await told(line, '!sms allow "(555) 123-4567" Agent 2')
    assert said == f"`{NUMBER}` is answered by `Agent 2` from now on."
    played.known = [Known(CONTACT, "Ann", (NUMBER,), PORTAL), Known("", "Bob", ("+15550000002",))]
    assert (await told(line, "!sms contacts")).splitlines() == [
        f"- `{NUMBER}` `Ann` → `Agent 2`",
        "- `+15550000002` `Bob` → nobody",
    ]
    assert await told(line, "!sms routes") == f"- `sms`: `{NUMBER}` → `Agent 2`"
    await line.tell(message("two", PORTAL, sender=CONTACT))
    assert [one.agent_id for one in line.runtime.asked] == ["agent-2"]
    await told(line, "!sms block 001-555-123-4567")
    await line.tell(message("three", PORTAL, sender=CONTACT))
    assert len(line.runtime.asked) == 1


async def test_a_number_without_a_country_is_refused(stage: Stage, played: Played) -> None:
    stage._sections |= {"permissions": {PERSON: "admin"}}
    line = await with_line(stage)
    assert "has no country" in await told(line, "!sms allow 0170123456789 Agent 1")


async def test_release_ends_a_takeover(line: Stage, played: Played) -> None:
    await texts_with(line)
    await told(line, f"!sms allow {NUMBER} Agent 1")
    await line.tell(message("I will call", PORTAL))
    await line.tell(message("one", PORTAL, sender=CONTACT))
    assert line.runtime.asked == []
    await line.tell(message("!sms release", PORTAL))
    await line.tell(message("two", PORTAL, sender=CONTACT))
    assert [one.text for one in line.runtime.asked] == ["two"]


def run(tmp_path: Path, *words: str, sms: str = "{}", given: str | None = None) -> Any:
    file = tmp_path / "config.yaml"
    file.write_text(
        "homeserver: {url: 'http://127.0.0.1:8008', domain: test}\n"
        "appservice: {as_token: a, hs_token: b}\n"
        "permissions: {'@you:test': admin}\n"
        f"sms: {sms}\n"
    )
    return CliRunner().invoke(app, ["sms", *words, "--config", str(file)], input=given)


def test_bridge_config_says_what_the_bridge_needs(tmp_path: Path) -> None:
    sms = "{provisioning: {url: 'http://127.0.0.1:29336', secret: sixteen-letters-or-more}}"
    shown = run(tmp_path, "bridge-config", sms=sms)
    assert shown.exit_code == 0, shown.output
    told = yaml.safe_load(shown.output)
    assert told["bridge"]["permissions"] == {"@you:test": "admin", LINE: "user"}
    assert told["bridge"]["relay"] == {"enabled": False}
    assert told["provisioning"] == {"shared_secret": "sixteen-letters-or-more"}
    assert told["matrix"]["message_status_events"] is True
    assert told["double_puppet"] == {"servers": {}, "allow_discovery": False, "secrets": {}}
    relayed = yaml.safe_load(run(tmp_path, "bridge-config", "--relay").output)
    assert relayed["bridge"]["permissions"] == {"test": "relay", "@you:test": "admin"}
    assert relayed["bridge"]["kick_matrix_users"] is False
    assert relayed["bridge"]["relay"]["message_formats"]["m.text"] == "{{ .Message }}"


@pytest.fixture
def in_terminal(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    def make(*_: object, **_how: object) -> Played:
        return played

    async def noted(*_: object) -> None: ...

    def there(_: object) -> nullcontext[None]:
        return nullcontext()

    monkeypatch.setattr("letta_matrix.portals.provisioning.Provisioning", make)
    monkeypatch.setattr("letta_matrix.cli.own_tokens.noted", noted)
    monkeypatch.setattr("letta_matrix.cli.database.open_existing", there)
    return played


def test_a_phone_is_paired_in_a_terminal(tmp_path: Path, in_terminal: Played) -> None:
    asks = Step("p", "s.google", "cookies", wants=("SID", "OSID"), url="https://accounts.test")
    emoji = Step("p", "s.emoji", "display_and_wait", "Tap it", "emoji", "\U0001f98a")
    done = Step("p", "s", "complete", login="phone-1")
    in_terminal.said = [asks, emoji, done]
    cookies = tmp_path / "cookies.json"
    cookies.write_text(json.dumps({"SID": "hidden", "OSID": "hidden"}))
    shown = run(tmp_path, "login", "google", "--cookies", str(cookies))
    assert shown.exit_code == 0, shown.output
    assert [one in shown.output for one in ("Tap it", "\U0001f98a", "phone-1", "hidden")] == [
        *(True, True, True, False)
    ]
    in_terminal.said = [asks, emoji, done]
    asked = run(tmp_path, "login", given="one\ntwo\n")
    assert asked.exit_code == 0, asked.output
    assert "https://accounts.test" in asked.output
    in_terminal.said = [asks]
    cookies.write_text("{}")
    wrong = run(tmp_path, "login", "google", "--cookies", str(cookies))
    assert "should be a JSON object with SID, OSID" in str(wrong.exception)


def test_what_the_terminal_tells_of_the_line(tmp_path: Path, in_terminal: Played) -> None:
    in_terminal.phones = [Login("phone-1", NUMBER, "CONNECTED")]
    assert run(tmp_path, "status").output == f"phone-1  {NUMBER}  CONNECTED\n"
    assert json.loads(run(tmp_path, "status", "--json").output)[0]["login_id"] == "phone-1"
    in_terminal.known = [Known(CONTACT, "Ann", (NUMBER,))]
    assert run(tmp_path, "contacts").output == f"{NUMBER}  Ann  {CONTACT}\n"
    assert run(tmp_path, "logout").output == "unpaired\n"
    assert run(tmp_path, "status").output.startswith("no phone is paired")
    assert "no phone line is configured" in str(run(tmp_path, "status", sms="").exception)
    assert "the flows are google and qr" in str(run(tmp_path, "login", "fax").exception)


def test_what_cannot_be_noted_is_not_done(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object, **_how: object) -> Played:
        return played

    monkeypatch.setattr("letta_matrix.portals.provisioning.Provisioning", make)
    played.phones = [Login("phone-1", NUMBER, "CONNECTED")]
    shown = run(tmp_path, "logout")
    assert shown.exit_code != 0
    assert "unpaired" not in shown.output
    assert played.phones
