"""What the containers of compose.yaml need before they start: files with secrets, made once.

`python -m letta_matrix.stack.compose files|account|show`, as root of a container that has the
others' volumes below `/volumes` (`VOLUMES`); compose.scale.yaml has `files scale` and `database`
besides. What is there already stays as it is: it is the operator's. Each file belongs to the user
of the container that reads it.
"""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml

from letta_matrix.common.private_files import write_private
from letta_matrix.config import load_config
from letta_matrix.stack.certificate import ends_soon, self_signed
from letta_matrix.stack.compose_scale import make_database, make_scale_secrets
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.registration import registration_text
from letta_matrix.stack.silence import status_of
from letta_matrix.stack.synapse import Synapse, new_signing_key
from letta_matrix.stack.volumes import Volumes

_ADMIN = "secrets/admin.password"
_LOOKS, _PAUSE = 240, 0.5
_APPSERVICE = "http://letta-matrix:29377"
_PUBLIC = ("MATRIX_PUBLIC_URL", "LETTA_PUBLIC_URL", "MCP_PUBLIC_URL")
_KEEPER_TOKEN = "keeper.token"  # noqa: S105 - the name of a file
_OWN_CERTIFICATE = "web/tls/self-signed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `.env` says; the names are the original integration's where it had one."""

    domain: str
    matrix_url: str
    urls: tuple[str, ...]
    has_runtime: bool
    admin: str
    admin_password: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Wanted":
        domain = env.get("MATRIX_SERVER_NAME") or "localhost"
        user = (env.get("MATRIX_ADMIN_USERNAME") or "admin").removeprefix("@").partition(":")[0]
        return cls(
            domain,
            (env.get("MATRIX_PUBLIC_URL") or f"https://{domain}:8443").rstrip("/"),
            tuple(env.get(name) or "" for name in _PUBLIC),
            bool(env.get("LETTA_API_URL")),
            user,
            env.get("MATRIX_ADMIN_PASSWORD") or "",
        )


def make_files(volumes: Volumes, wanted: Wanted) -> None:
    """Configuration, registration, homeserver.yaml, secrets and a certificate."""
    password = volumes.secret("postgres-secret/password", "postgres")
    token = volumes.secret("app-server-secret/token", "app-server")
    volumes.put("keeper-secret/app-server.token", token + "\n", "bridge")
    keeper = volumes.secret("keeper-secret/token", "bridge")
    volumes.secret(_ADMIN, given=wanted.admin_password)
    volumes.folder("bridge", "bridge")
    volumes.folder("synapse", "synapse")
    volumes.put(f"bridge/{_KEEPER_TOKEN}", keeper + "\n", "bridge")
    volumes.put("bridge/config.yaml", _dump(_bridge_config(wanted)), "bridge")
    known = registration_text(load_config(volumes.path("bridge/config.yaml"), {}))
    volumes.put("bridge/registration.yaml", known, "bridge")
    volumes.put("synapse/registration.yaml", known, "synapse")
    volumes.put("synapse/signing.key", new_signing_key(), "synapse")
    volumes.put("synapse/log.yaml", _dump(_LOG), "synapse")
    kept = {name: volumes.secret(f"synapse/{name}.secret", "synapse") for name in _SECRETS}
    volumes.put("synapse/homeserver.yaml", _dump(_homeserver(wanted, password, kept)), "synapse")
    _make_pages(volumes, wanted)


def _make_pages(volumes: Volumes, wanted: Wanted) -> None:
    """What nginx serves by itself, and its certificate."""
    client = {"m.homeserver": {"base_url": wanted.matrix_url}}
    server = wanted.matrix_url.partition("://")[2]
    served = server if ":" in server else f"{server}:443"
    volumes.show("web/well-known/client", json.dumps(client))
    volumes.show("web/well-known/server", json.dumps({"m.server": served}))
    element = {
        "default_server_config": client,
        "disable_guests": True,
        "disable_custom_urls": True,
    }
    volumes.show("web/element.json", json.dumps(element))
    chain, key_file = volumes.path("web/tls/fullchain.pem"), volumes.path("web/tls/privkey.pem")
    own = volumes.path(_OWN_CERTIFICATE)
    if not chain.exists() or (own.exists() and ends_soon(chain.read_text(encoding="utf-8"))):
        hosts = [urlsplit(url).hostname for url in wanted.urls]
        certificate, key = self_signed(wanted.domain, *filter(None, hosts))
        volumes.show(_OWN_CERTIFICATE, "Made anew when it ends soon; remove this to keep yours.\n")
        volumes.show("web/tls/fullchain.pem", certificate)
        write_private(key_file, key)


async def make_account(volumes: Volumes, wanted: Wanted, host: str, port: int) -> None:
    """The first person, an admin of the homeserver, unless there already. Waits two minutes for
    the homeserver: not every engine knows when a container is ready. Raises StackError."""
    synapse = Synapse(volumes.path("synapse"), port, server_name=wanted.domain, host=host)
    password = volumes.secret(_ADMIN)
    async with aiohttp.ClientSession() as http:
        for _ in range(_LOOKS):
            if await status_of(http, synapse.health_url) == 200:
                break
            await asyncio.sleep(_PAUSE)
        await synapse.create_account(http, wanted.admin, password, admin=True)


def summary(volumes: Volumes, wanted: Wanted, env: Mapping[str, str]) -> str:
    """Where to go, and as whom."""
    letta = env.get("LETTA_PUBLIC_URL") or f"https://{wanted.domain}:8004"
    return "\n".join(
        (
            f"Element and the homeserver  {wanted.matrix_url}",
            f"the chat page               {letta}/chat",
            f"user                        @{wanted.admin}:{wanted.domain}",
            f"password                    {volumes.secret(_ADMIN)}",
        )
    )


_SECRETS = ("registration", "macaroon", "form")
_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


def _bridge_config(wanted: Wanted) -> dict[str, object]:
    # Where its keeper has a container of its own, the bridge must start none.
    keeper = {"keeper": "keeper:4510", "keeper_token_file": _KEEPER_TOKEN}
    here = {"type": "app_server", "name": "local", **keeper}
    admin = f"@{wanted.admin}:{wanted.domain}"
    return {
        "homeserver": {"url": "http://synapse:8008", "domain": wanted.domain},
        "appservice": {
            "url": _APPSERVICE,
            "as_token": secrets.token_hex(32),
            "hs_token": secrets.token_hex(32),
        },
        # Of another runtime LETTA_API_URL and LETTA_TOKEN tell the bridge themselves.
        **({} if wanted.has_runtime else {"runtimes": [here]}),
        "agents": {"room_members": [admin]},
        "permissions": {wanted.domain: "user", admin: "admin"},
    }


def _homeserver(wanted: Wanted, password: str, kept: Mapping[str, str]) -> dict[str, object]:
    return {
        "server_name": wanted.domain,
        "public_baseurl": f"{wanted.matrix_url}/",
        "pid_file": "/data/homeserver.pid",
        "listeners": [
            {
                "port": 8008,
                "type": "http",
                "tls": False,
                "x_forwarded": True,
                "bind_addresses": ["0.0.0.0"],  # noqa: S104 - nginx is in another container
                "resources": [{"names": ["client", "federation"], "compress": False}],
            }
        ],
        "database": {
            "name": "psycopg2",
            "args": {
                "host": "postgres",
                "user": "synapse",
                "database": "synapse",
                "password": password,
                "cp_min": 5,
                "cp_max": 10,
            },
        },
        "log_config": "/data/log.yaml",
        "signing_key_path": "/data/signing.key",
        "media_store_path": "/data/media",
        "max_upload_size": "50M",
        "registration_shared_secret": kept["registration"],
        "macaroon_secret_key": kept["macaroon"],
        "form_secret": kept["form"],
        "enable_registration": False,
        # Nobody is federated with until the operator takes this line out.
        "federation_domain_whitelist": [],
        "suppress_key_server_warning": True,
        "report_stats": False,
        "presence": {"enabled": False},
        "app_service_config_files": ["/data/registration.yaml"],
    }


def _dump(content: Mapping[str, object]) -> str:
    return str(yaml.safe_dump(dict(content), sort_keys=False))


def main() -> None:
    """Faults are one line, exit status 1."""
    os.umask(0o077)
    env = os.environ
    volumes, wanted = Volumes(Path(env.get("VOLUMES") or "/volumes"), env), Wanted.of(env)
    try:
        match sys.argv[1:]:
            case ["files"]:
                make_files(volumes, wanted)
            case ["files", "scale"]:
                make_files(volumes, wanted)
                make_scale_secrets(volumes)
            case ["database"]:
                asyncio.run(make_database(volumes, "postgres", 5432))
            case ["account"]:
                asyncio.run(make_account(volumes, wanted, "synapse", 8008))
            case ["show"]:
                print(summary(volumes, wanted, env))  # noqa: T201 - what was asked for
            case _:
                raise StackError("say files, account or show")
    except StackError as error:
        sys.exit(f"letta-matrix: {error}")


if __name__ == "__main__":
    main()
