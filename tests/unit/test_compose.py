"""compose.yaml, and the files that its containers find at their first start."""

import contextlib
import json
import re
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.compose_kit import HERE, made, mounts_of, nginx_in, services_of
from tests.nginx import nginx_path

from letta_matrix.config import load_config
from letta_matrix.runtimes.app_server.keepers import keeper_of
from letta_matrix.runtimes.keeper import process as keeper_process
from letta_matrix.runtimes.keeper import service
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.secret import token_in
from letta_matrix.stack import agents_alone, compose
from letta_matrix.stack.certificate import ends_soon, self_signed
from letta_matrix.stack.compose import Wanted, summary
from letta_matrix.stack.errors import StackError

SERVICES = services_of("compose.yaml")
SECRETS = (
    "postgres-secret/password",
    "app-server-secret/token",
    "keeper-secret/token",
    "secrets/admin.password",
)


def contents(root: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in root.rglob("*") if one.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_made_once_and_belong_to_whoever_reads_them(tmp_path: Path) -> None:
    volumes = made(tmp_path)
    first = contents(tmp_path)
    again = made(tmp_path, MATRIX_ADMIN_PASSWORD="another", LETTA_TOKEN="another")
    # Whoever reads one leaves it as it is, too.
    summary(again, Wanted.of({}), {})
    assert contents(tmp_path) == first
    kept = [*SECRETS, "bridge/config.yaml", "bridge/registration.yaml", "synapse/homeserver.yaml"]
    kept += ["synapse/signing.key", "synapse/registration.yaml", "web/tls/privkey.pem"]
    assert {name: mode(volumes.path(name)) for name in kept} == dict.fromkeys(kept, 0o600)
    # nginx and the users of other containers must get there.
    assert mode(volumes.path("web/well-known/client")) == 0o644
    assert mode(volumes.path("app-server-secret")) == mode(volumes.path("web/tls")) == 0o755


def test_no_container_sees_a_secret_that_is_another_ones() -> None:
    mounts = mounts_of(SERVICES)
    kept = ("secrets", "postgres-secret", "app-server-secret", "keeper-secret", "bridge")
    readers = {volume: mounts[volume] for volume in kept}
    once = {"setup", "account"}
    assert readers == {
        "secrets": once,
        "postgres-secret": once | {"postgres"},
        "app-server-secret": once | {"app-server"},
        "keeper-secret": once | {"keeper"},
        "bridge": once | {"letta-matrix"},
    }


def test_public_names_are_followed_and_configurations_stay(tmp_path: Path) -> None:
    made(tmp_path)
    volumes = made(tmp_path, MATRIX_PUBLIC_URL="https://m.example.org/")
    told = json.loads(volumes.path("web/well-known/client").read_text())
    assert told == {"m.homeserver": {"base_url": "https://m.example.org"}}
    assert json.loads(volumes.path("web/well-known/server").read_text()) == {
        "m.server": "m.example.org:443"
    }
    kept = yaml.safe_load(volumes.path("synapse/homeserver.yaml").read_text())
    assert kept["public_baseurl"] == "https://localhost:8443/"


def test_every_first_start_has_secrets_of_its_own(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    names = [*SECRETS, "synapse/signing.key", "synapse/macaroon.secret", "bridge/config.yaml"]
    for name in names:
        assert one.path(name).read_text() != other.path(name).read_text(), name


def test_bridge_homeserver_and_app_server_fit_together(tmp_path: Path) -> None:
    volumes = made(tmp_path, MATRIX_SERVER_NAME="example.org", MATRIX_ADMIN_USERNAME="@ann:x")
    config = load_config(volumes.path("bridge/config.yaml"), {})
    registration = yaml.safe_load(volumes.path("synapse/registration.yaml").read_text())
    assert registration["as_token"] == config.appservice.as_token.get_secret_value()
    assert registration["url"] == "http://letta-matrix:29377"
    assert (config.homeserver.url, config.homeserver.domain) == (
        "http://synapse:8008",
        "example.org",
    )
    (runtime,) = config.runtimes
    assert runtime.type == "app_server"
    assert config.role_of("@ann:example.org") == "admin"
    assert config.agents.room_members == ["@ann:example.org"]


def test_the_bridge_has_the_keeper_of_another_container_and_starts_none(tmp_path: Path) -> None:
    volumes = made(tmp_path)
    config = load_config(volumes.path("bridge/config.yaml"), {})
    (runtime,) = config.runtimes
    assert runtime.type == "app_server"
    keeper = keeper_of(runtime, config)
    assert isinstance(keeper, RemoteKeeper)
    command = SERVICES["keeper"]["command"]
    # Its volume, as the keeper's container has it.
    here = [one.replace("/run/letta-matrix/", f"{tmp_path}/keeper-secret/") for one in command[1:]]
    options = keeper_process._parser().parse_args(here)
    assert keeper.name.endswith(options.listen.replace("0.0.0.0", "keeper"))
    tokens = token_in(options.token_file), token_in(config.path(runtime.keeper_token_file or ""))
    assert tokens[0] == tokens[1]
    app_server = volumes.path("app-server-secret/token").read_text().strip()
    assert service._target(options, {}) == ("ws://app-server:4500/ws", app_server, None)


def test_synapse_reads_its_configuration(tmp_path: Path) -> None:
    volumes = made(tmp_path, MATRIX_SERVER_NAME="example.org")
    given = volumes.path("synapse/homeserver.yaml").read_text()
    # The container's folder.
    here = tmp_path / "here.yaml"
    here.write_text(given.replace("/data/", f"{tmp_path}/synapse/"))
    argv = [sys.executable, "-m", "synapse.config", "read", "server.server_name", "-c", str(here)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ["example.org"], done.stderr
    settings = yaml.safe_load(given)
    password = volumes.path("postgres-secret/password").read_text().strip()
    assert settings["database"]["args"]["password"] == password
    assert settings["federation_domain_whitelist"] == []


@pytest.mark.parametrize("url", ["https://api.letta.com", "http://models:1416/v1"])
def test_another_runtime_gets_its_key(url: str, tmp_path: Path) -> None:
    env = {"LETTA_API_URL": url, "LETTA_TOKEN": "of-letta"}
    volumes = made(tmp_path, **env)
    given = SERVICES["letta-matrix"]["environment"]
    assert env.keys() <= given.keys()
    (runtime,) = load_config(volumes.path("bridge/config.yaml"), env).runtimes
    assert runtime.type in ("letta_api", "openai_compatible")
    assert runtime.api_key.get_secret_value() == "of-letta"  # type: ignore[union-attr]
    # Neither gets what is the other's.
    assert "of-letta" not in volumes.path("app-server-secret/token").read_text()


def test_a_person_is_told_where_to_go(tmp_path: Path) -> None:
    volumes = made(tmp_path)
    text = summary(volumes, Wanted.of({}), {})
    password = volumes.path("secrets/admin.password").read_text().strip()
    assert "https://localhost:8443" in text
    assert "https://localhost:8004/chat" in text
    assert f"@admin:localhost\npassword                    {password}" in text


@pytest.mark.parametrize("host", ["letta.example.org", "192.0.2.7", "::1"])
def test_the_first_certificate_is_for_the_name(host: str, tmp_path: Path) -> None:
    certificate, key = self_signed("localhost", host)
    assert not ends_soon(certificate)
    chain = tmp_path / "chain.pem"
    chain.write_text(certificate + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cadata=certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = client.wrap_bio(back, there, server_hostname=host)
    answer = server.wrap_bio(there, back, server_side=True)
    for one in (talk, answer, talk, answer):
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
    assert talk.getpeercert()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(StackError) as fault:
        call()
    return str(fault.value)


def test_an_app_server_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    token_of = agents_alone._token
    empty = tmp_path / "empty"
    empty.write_text("\n")
    wanted = "APP_SERVER_TOKEN_FILE: name a file with the token that clients must know"
    assert refused(lambda: token_of({})) == wanted
    assert refused(lambda: token_of({"APP_SERVER_TOKEN_FILE": str(empty)})) == wanted
    missing = str(tmp_path / "missing")
    told = f"APP_SERVER_TOKEN_FILE: {missing}: No such file or directory"
    assert refused(lambda: token_of({"APP_SERVER_TOKEN_FILE": missing})) == told


def test_the_bad_word_to_setup_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["compose", "everything"])
    with pytest.raises(SystemExit) as ended:
        compose.main()
    assert ended.value.code == "letta-matrix: say files, account or show"


def test_containers_have_no_more_than_they_need() -> None:
    ours = {name for name, one in SERVICES.items() if "letta-matrix" in str(one.get("image"))}
    assert ours == {"setup", "account", "app-server", "keeper", "letta-matrix"}
    for name in ours:
        service = SERVICES[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
    for name, service in SERVICES.items():
        if name != "gmessages":  # which starts as root, and gives itself up
            assert "no-new-privileges:true" in service["security_opt"], name
    # To the world there is nginx alone, and on loopback unless somebody says otherwise.
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["nginx"]
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in SERVICES["nginx"]["ports"])


def test_the_example_of_settings_names_what_compose_reads() -> None:
    text = (HERE / "compose.yaml").read_text(encoding="utf-8")
    read = set(re.findall(r"\$\{([A-Z_]+):-", text))
    images = {name for name in read if name.endswith("_IMAGE")}
    example = (HERE / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE))
    of_compose_itself = {"COMPOSE_FILE"}
    assert read - images - {"GEMINI_API_KEY", "OPENROUTER_API_KEY"} == named - of_compose_itself
    # Nothing is set in it, a password least of all.
    assert not [line for line in example.splitlines() if line and not line.startswith("#")]


@pytest.mark.skipif(nginx_path() is None, reason="Debian's nginx is not installed")
@pytest.mark.parametrize("backends", ["backends.conf", "backends.scale.conf"])
def test_nginx_accepts_its_configuration(backends: str, tmp_path: Path) -> None:
    made(tmp_path)
    config = nginx_in(tmp_path, backends)
    program = nginx_path()
    assert program is not None
    done = subprocess.run(
        [program, "-t", "-c", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "web/well-known/server").read_text())
    assert told == {"m.server": "localhost:8443"}


HADOLINT = shutil.which("hadolint")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
@pytest.mark.parametrize("name", ["Dockerfile", "deploy/compose/local.Dockerfile"])
def test_hadolint_finds_nothing(name: str) -> None:
    # Versions of Debian's packages are the base image's.
    argv = [str(HADOLINT), "--ignore", "DL3008", str(HERE / name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
