"""What the doctor makes of what it sees; nothing here is asked of any server."""

import errno
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mautrix.errors import MatrixRequestError
from tests.builders import config_for

from letta_matrix.cli.doctor.abilities import judge_room_version, judge_sign_in, judge_upload_size
from letta_matrix.cli.doctor.finding import Finding, Mark
from letta_matrix.cli.doctor.homeserver import judge_version
from letta_matrix.cli.doctor.network import judge_plain, judge_port, judge_proxies
from letta_matrix.cli.doctor.portals import judge_phone
from letta_matrix.cli.doctor.recognition import is_foreign
from letta_matrix.cli.doctor.rooms import judge_rooms
from letta_matrix.cli.doctor.runtimes import judge_app_server, judge_keeper, judge_permissions
from letta_matrix.cli.doctor.server_storage import Server, examine_server
from letta_matrix.cli.doctor.settings import (
    judge_encryption_flags,
    judge_rate_limits,
    judge_registration,
    odd_settings,
)
from letta_matrix.cli.doctor.storage import Disk, judge_disk, judge_revision, kind_of
from letta_matrix.cli.doctor.subject import is_private
from letta_matrix.cli.doctor.tls import Seen, judge
from letta_matrix.cli.doctor.tried import older, tried
from letta_matrix.cli.doctor.well_known import Told, judge_client, judge_delegation
from letta_matrix.common.json_fields import Json, mapping
from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    OpenAICompatibleRuntime,
    Runtime,
)
from letta_matrix.portals.line_watch import trouble_of
from letta_matrix.portals.provisioning import Login
from letta_matrix.stack.registration import registration
from letta_matrix.store.database import HEAD, Database

OK, WARNING, TROUBLE = Mark.OK, Mark.WARNING, Mark.TROUBLE
NOW = datetime(2026, 11, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def told(finding: Finding) -> tuple[Mark, str]:
    """Whatever is wrong comes with what to do."""
    assert finding.mark is OK or finding.remedy
    return finding.mark, finding.says


@pytest.mark.parametrize(
    ("software", "specs", "mark", "says"),
    [
        ("Synapse/1.163.2", ["v1.1", "v1.11", "v1.12"], OK, "Synapse 1.163.2; tried with"),
        ("Synapse/9.0.0", ["v2.0"], OK, "Synapse 9.0.0"),
        ("", ["r0.6.1", "v1.12"], OK, "does not say what it is"),
        ("Synapse/1.99.0", ["v1.11"], WARNING, "older than what the bridge is tried with"),
        ("Dendrite/0.15.2", ["v1.11"], WARNING, "was not tried with"),
        ("Synapse/1.70.0", ["v1.5", "nonsense"], WARNING, "lacks the ping"),
        ("Dendrite/0.15.2", ["v1.0", "v1.2"], WARNING, "was not tried with"),
        ("", ["v1.2"], WARNING, "lacks the ping"),
    ],
)
def test_versions(software: str, specs: list[str], mark: Mark, says: str) -> None:
    found = told(judge_version(software, specs))
    assert (found[0], says in found[1]) == (mark, True)


def test_what_it_is_tried_with_is_what_up_runs() -> None:
    assert tried("matrix-synapse").startswith("1.")
    assert tried("letta")
    assert tried("nothing-like-that") == ""
    assert older("0.33.9", "0.34.12")
    assert not older("0.34.1", "0.34.12")
    assert not older("", "0.34.12")


@pytest.mark.parametrize(
    ("errcode", "message", "foreign"),
    [
        ("M_FORBIDDEN", "Application service cannot masquerade as this user (@a:b).", True),
        ("M_FORBIDDEN", "Application service has not registered this user (@a:b)", False),
        ("M_EXCLUSIVE", "This application service has not reserved this kind of alias", True),
        ("M_NOT_FOUND", "Unknown room alias", False),
    ],
)
def test_whether_an_id_is_ours(errcode: str, message: str, foreign: bool) -> None:
    error = MatrixRequestError(message)
    error.errcode, error.message = errcode, message
    assert is_foreign(error) is foreign


def test_a_registration_against_the_configuration(tmp_path: Path) -> None:
    ours = registration(config_for(tmp_path))
    assert judge_registration(ours, ours).mark is OK
    more = mapping(ours["namespaces"]) | {"rooms": [{"regex": "!x"}]}
    assert judge_registration({**ours, "namespaces": more}, ours).mark is OK
    changes: Json = {"as_token": "older", "url": None, "namespaces": {"users": []}}
    other = {**ours, **changes}
    mark, says = told(judge_registration(other, ours))
    assert mark is TROUBLE
    assert says.endswith("in url, as_token, namespaces.users, namespaces.aliases")
    assert "secret" not in says
    assert judge_rate_limits(ours).mark is OK
    assert judge_rate_limits({}).mark is OK
    assert judge_rate_limits({**ours, "rate_limited": True}).mark is WARNING
    assert judge_encryption_flags(ours).mark is OK
    flagged = judge_encryption_flags({**ours, "org.matrix.msc3202": True})
    assert (flagged.mark, "org.matrix.msc3202" in flagged.says) == (WARNING, True)


@pytest.mark.parametrize(
    ("sections", "marks", "says"),
    [
        ({}, [], ""),
        ({"runtimes": []}, [TROUBLE], "no runtime is configured"),
        ({"permissions": {}}, [WARNING], "lets nobody talk"),
        ({"agents": {"room_members": ["@x:away.org"]}}, [WARNING], "not allowed to talk there"),
        ({"agents": {"room_members": ["@agent_bob:test"]}}, [TROUBLE], "belongs to the bridge"),
        ({"appservice": {"url": "http://bridge.org:29377"}}, [WARNING], "on 127.0.0.1 alone"),
        ({"appservice": {"port": 1234}}, [WARNING], "names port 29377"),
        ({"appservice": {"url": "http://localhost:29377/x"}}, [WARNING], "has a path behind it"),
    ],
)
def test_odd_settings(
    tmp_path: Path, sections: dict[str, Any], marks: list[Mark], says: str
) -> None:
    tokens = {"as_token": "as-secret", "hs_token": "hs-secret"}
    if "appservice" in sections:
        sections = {"appservice": {**tokens, **sections["appservice"]}}
    found = [told(one) for one in odd_settings(config_for(tmp_path, **sections))]
    assert [mark for mark, _ in found] == marks
    assert all(says in text for _, text in found)


@pytest.mark.parametrize(
    ("versions", "wanted", "mark"),
    [
        ({"default": "12"}, None, OK),
        ({}, None, OK),
        ({"default": "12", "available": {"11": "stable"}}, 11, OK),
        ({"default": "12"}, 11, OK),
        ({"default": "12", "available": {"13": "unstable"}}, 13, WARNING),
        ({"default": "10", "available": {"10": "stable"}}, 12, TROUBLE),
    ],
)
def test_room_versions(versions: dict[str, Any], wanted: int | None, mark: Mark) -> None:
    assert told(judge_room_version(versions, wanted))[0] is mark


def test_how_large_files_may_be() -> None:
    assert told(judge_upload_size(100_000))[0] is WARNING
    assert judge_upload_size(50_000_000).says.endswith("of up to 50 MB")
    assert judge_upload_size(None).mark is OK


def test_who_signs_people_in_is_nothing_to_the_bridge(tmp_path: Path) -> None:
    plain = config_for(tmp_path)
    found = judge_sign_in(["m.login.password"], "", plain)
    assert "by the homeserver itself; the bridge needs nothing" in found.says
    delegated = judge_sign_in([], "https://auth.example.org/", plain)
    assert "(https://auth.example.org/); the bridge needs nothing" in delegated.says
    section = {"url": "http://127.0.0.1:9", "domain": "test"}
    admin = {**section, "admin_username": "@admin:test", "admin_password": "secret-password"}
    with_admin = config_for(tmp_path, homeserver=admin)
    mark, says = told(judge_sign_in(["m.login.sso"], "", with_admin))
    assert (mark, "wants one" in says, "secret" in says) == (WARNING, True, False)


@pytest.mark.parametrize(
    ("seen", "mark", "says"),
    [
        (Seen(NOW - DAY, NOW + 60 * DAY), OK, "is good until 2027-01-29"),
        (Seen(NOW - DAY, NOW + 5 * DAY), WARNING, "expires in 5 days, on 2026-12-05"),
        (Seen(NOW - 9 * DAY, NOW - DAY, "certificate has expired"), TROUBLE, "has expired on"),
        (Seen(NOW + DAY, NOW + 9 * DAY, "not yet valid"), TROUBLE, "from 2026-12-01 on"),
        (Seen(NOW - DAY, NOW + 60 * DAY, "self-signed"), TROUBLE, "not accepted: self-signed"),
    ],
)
def test_certificates(seen: Seen, mark: Mark, says: str) -> None:
    found = judge("https://hs", seen, NOW, "homeserver.ca_file")
    assert (*told(found), says in found.says) == (mark, found.says, True)
    assert ("homeserver.ca_file" in found.remedy) is (seen.fault == "self-signed")


@pytest.mark.parametrize(
    ("answer", "at_base", "mark"),
    [
        (Told(), None, OK),
        (Told(404), None, OK),
        (Told(500), None, WARNING),
        (Told(200), None, WARNING),
        (Told(200, {"m.homeserver": {"base_url": "matrix.org"}}), None, WARNING),
        (Told(200, {"m.homeserver": {"base_url": "https://a.org"}}), False, WARNING),
        (Told(200, {"m.homeserver": {"base_url": "https://a.org"}}), True, WARNING),
    ],
)
def test_where_clients_are_led(answer: Told, at_base: bool | None, mark: Mark) -> None:
    assert told(judge_client(answer, "https://x/.well-known", at_base=at_base))[0] is mark


def test_clients_are_led_well() -> None:
    body = {"m.homeserver": {"base_url": "https://a.org"}}
    answer = Told(200, body, {"Access-Control-Allow-Origin": "*"})
    assert (
        judge_client(answer, "https://x", at_base=True).says == "clients are led to https://a.org"
    )


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        (Told(404), None),
        (Told(200, {"m.server": "matrix.example.org:443"}), OK),
        (Told(200, {"m.server": "https://matrix.example.org"}), WARNING),
        (Told(200, {"m.server": "a:99999"}), WARNING),
        (Told(200, {}), WARNING),
        (Told(301), WARNING),
    ],
)
def test_where_other_servers_are_led(answer: Told, mark: Mark | None) -> None:
    found = judge_delegation(answer, "https://x/.well-known/matrix/server")
    assert (found and found.mark) is mark


@pytest.mark.parametrize(
    ("disk", "mark"),
    [
        (Disk(10**10, "ext4"), OK),
        (Disk(10**10), OK),
        (Disk(2 * 10**8, "xfs"), WARNING),
        (Disk(10**6, "btrfs"), TROUBLE),
        (Disk(10**12, "nfs4"), TROUBLE),
        (Disk(10**12, "fuse.sshfs"), TROUBLE),
        (Disk(10**12, "fuseblk"), OK),
        (Disk(10**12, "overlay"), WARNING),
    ],
)
def test_disks(disk: Disk, mark: Mark) -> None:
    assert told(judge_disk(disk, Path("/data")))[0] is mark


def test_which_file_system_a_folder_is_on() -> None:
    mounts = [
        "/dev/a / ext4 rw 0 0",
        "nas:/x /mnt/nas nfs4 rw 0 0",
        "/dev/b /mnt/my\\040disk xfs rw 0 0",
        "odd",
        "tmpfs /mnt tmpfs rw 0 0",
    ]
    assert kind_of(Path("/mnt/nas/data"), mounts) == "nfs4"
    assert kind_of(Path("/mnt/nasty"), mounts) == "tmpfs"
    assert kind_of(Path("/mnt/my disk/x"), mounts) == "xfs"
    assert kind_of(Path("/var"), mounts) == "ext4"
    assert kind_of(Path("/var"), []) == ""


def test_schemas() -> None:
    file = Path("letta-matrix.db")
    assert "is current" in judge_revision(HEAD, file, runs=True).says
    assert told(judge_revision("0001", file, runs=False))[0] is OK
    assert told(judge_revision("0001", file, runs=True))[0] is WARNING
    assert told(judge_revision("9999", file, runs=False))[0] is TROUBLE


class Slow(Database):
    """A server that takes `reading` seconds to tell of itself, and so many to be written to; its
    clock is this machine's, but for `ahead`."""

    def __init__(self, reading: float, writing: float, ahead: float = 0.0) -> None:
        self.clock = 1_000.0
        self._reading, self._writing, self._ahead = reading, writing, ahead

    async def check(self, *, writes: bool = True) -> None:
        pass

    async def read(self, work: object) -> Any:
        self.clock += self._reading
        server = Server("16.1", far=True, now=0.0, size=1, encrypted=True, super=False)
        return asdict(server) | {"now": self.clock + self._ahead}

    async def revision(self) -> str:
        return HEAD

    async def write(self, work: object) -> Any:
        self.clock += self._writing


@pytest.mark.parametrize(
    ("server", "apart"),
    [(Slow(0, 20), 0), (Slow(20, 0), 0), (Slow(0, 0, 6), 1), (Slow(4, 20, -10), 1)],
)
async def test_a_slow_server_is_not_taken_for_one_of_another_time(
    server: Slow, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: server.clock)
    found, _ = await examine_server(server, "db.example.org")
    assert sum("seconds apart" in one.says for one in found) == apart


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, None])
def test_ports_that_cannot_be_had(number: int | None) -> None:
    assert told(judge_port("cannot listen on 0.0.0.0:80", number, 80))[0] is TROUBLE


def test_proxies(tmp_path: Path) -> None:
    def judged(config: Config, **environment: str) -> list[Finding]:
        return list(judge_proxies(environment, config))

    home = {"url": "https://matrix.example.org", "domain": "test"}
    here, away = config_for(tmp_path), config_for(tmp_path, homeserver=home)
    secret = "http://user:pass-word@proxy:3128"
    assert [one.mark for one in judged(here)] == [OK]
    assert [one.mark for one in judged(here, https_proxy=secret)] == [OK]
    (warned,) = judged(away, HTTPS_PROXY=secret)
    assert "does not ask https://matrix.example.org through it" in warned.says
    assert "pass-word" not in f"{warned}"
    (odd,) = judged(here, ALL_PROXY="http://:1")
    assert told(odd) == (WARNING, "ALL_PROXY holds no address of a proxy")


def test_whom_everybody_on_the_way_can_read() -> None:
    urls = ["http://synapse:8008", "http://10.1.2.3", "ws://nas.local", "https://a.org"]
    assert list(judge_plain(urls)) == []
    (found,) = judge_plain(["ws://agents.example.org:4500"])
    assert told(found)[0] is WARNING
    assert is_private("http://[::1]:8008")


def app_server(**settings: Any) -> AppServerRuntime:
    return AppServerRuntime.model_validate(settings)


@pytest.mark.parametrize(
    ("runtime", "marks"),
    [
        (app_server(), []),
        (app_server(permission_mode="standard"), []),
        (app_server(permission_mode="acceptEdits"), [WARNING]),
        (app_server(permission_mode="unrestricted"), [WARNING]),
        (app_server(url="ws://agents.example.org:4500"), [WARNING]),
        (app_server(url="ws://agents.example.org:4500", token="t"), []),
        (LettaApiRuntime(type="letta_api"), []),
        (OpenAICompatibleRuntime(type="openai_compatible", url="http://x/v1"), [OK]),
    ],
)
def test_what_runs_unasked(runtime: Runtime, marks: list[Mark]) -> None:
    assert [told(one)[0] for one in judge_permissions(runtime)] == marks


def test_app_servers() -> None:
    known = tried("letta")
    assert f"App Server {known} at" in judge_app_server(app_server(), 3, known).says
    assert "1 agent;" in judge_app_server(app_server(), 1, "").says
    assert "100 or more agents" in judge_app_server(app_server(), 100, "").says
    assert told(judge_app_server(app_server(), 1, "0.1.0"))[0] is WARNING


@pytest.mark.parametrize(
    ("runs", "answers", "private", "bridge", "mark"),
    [
        (True, True, True, True, OK),
        (True, True, True, False, OK),
        (False, False, True, False, OK),
        (False, False, True, True, TROUBLE),
        (True, False, True, False, TROUBLE),
        (True, True, False, True, TROUBLE),
    ],
)
def test_keepers(runs: bool, answers: bool, private: bool, bridge: bool, mark: Mark) -> None:
    seen = {"runs": runs, "answers": answers, "private": private, "bridge": bridge}
    assert told(judge_keeper(Path("/run/keeper.sock"), **seen))[0] is mark
    assert told(judge_keeper(Path("/x" * 60), **seen))[0] is TROUBLE


def test_phones() -> None:
    assert told(judge_phone([]))[0] is TROUBLE
    good = Login("1", "Pixel", "CONNECTED")
    assert judge_phone([good]).says == "1 phone paired"
    assert judge_phone([Login("1", "Pixel", "BACKFILLING")]).mark is OK
    gone = Login("2", "Old", "BAD_CREDENTIALS", "signed out")
    # The bridge itself says the same of it.
    bridge_says = trouble_of([gone], lasts=True)
    assert bridge_says is not None
    assert told(judge_phone([good, gone])) == (TROUBLE, bridge_says.says)


def test_power_in_rooms() -> None:
    (well,) = judge_rooms([("Ada", True)], 200)
    assert (well.mark, "the first 1 looked at" in well.says) == (OK, True)
    stands: list[tuple[str, bool | None]] = [("Ada", True), ("Bob", False)]
    stands += [(name, None) for name in "CDEFG"]
    out, weak = judge_rooms(stands, 7)
    assert told(out)[0] is TROUBLE
    assert out.says.endswith("C, D, E and 2 others")
    assert told(weak)[0] is WARNING
