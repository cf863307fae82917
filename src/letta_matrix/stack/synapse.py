"""The embedded Synapse: its files, its process, its first accounts.

Bound to loopback, SQLite, registration and federation off. Everything random is
made once; what follows our settings (ports, registration) is written at every start.
"""

import base64
import hashlib
import hmac
import math
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import yaml

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.private_files import write_private
from letta_matrix.stack.errors import PasswordRefusedError, StackError
from letta_matrix.stack.files import keep_secret, write_private_if_changed
from letta_matrix.stack.homeserver_database import HomeserverDatabase
from letta_matrix.stack.supervisor import Command

SERVER_NAME = "localhost"
_ACCEPTS = "letta_matrix.stack.our_invites.OurInvites"
_LISTENS = "letta_matrix.stack.our_port.OurPort"
_UNLIMITED = {"per_second": 1000, "burst_count": 10000}
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Synapse:
    """Where the embedded homeserver keeps its files and listens."""

    directory: Path
    port: int
    registrations: tuple[Path, ...] = ()
    server_name: str = SERVER_NAME
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "homeserver.log"

    @property
    def database(self) -> HomeserverDatabase:
        return HomeserverDatabase(self.directory / "homeserver.db")

    @property
    def command(self) -> Command:
        """How to run it.

        Raises:
            StackError: Synapse is not installed.
        """
        if find_spec("synapse") is None:
            raise StackError("Synapse is not installed; pip install 'letta-matrix[embedded]'")
        settings = str(self.directory / "homeserver.yaml")
        return Command(
            name="Synapse",
            argv=(sys.executable, "-m", "synapse.app.homeserver", "--config-path", settings),
            log=self.directory / "output.log",
            cwd=self.directory,
        )

    def write_files(self, bot: str) -> None:
        """Write homeserver.yaml and what it names; secrets and the signing key only once.

        `bot` is the bridge's user: people accept what it and the agents invite them to.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = self.directory / "signing.key"
        if not key.exists():
            write_private(key, new_signing_key())
        log_config = self.directory / "log.yaml"
        write_private_if_changed(log_config, yaml.safe_dump(self._log_config()))
        text = yaml.safe_dump(self._homeserver_config(bot, key, log_config), sort_keys=False)
        write_private_if_changed(self.directory / "homeserver.yaml", text)

    def _homeserver_config(self, bot: str, key: Path, log_config: Path) -> dict[str, object]:
        return {
            "server_name": self.server_name,
            "public_baseurl": f"{self.url}/",
            "pid_file": str(self.directory / "homeserver.pid"),
            "listeners": [_listener(self.port)],
            "database": {"name": "sqlite3", "args": {"database": str(self.database.path)}},
            "log_config": str(log_config),
            "signing_key_path": str(key),
            "media_store_path": str(self.directory / "media"),
            "max_upload_size": "100M",
            "registration_shared_secret": self._secret("registration"),
            "macaroon_secret_key": self._secret("macaroon"),
            "form_secret": self._secret("form"),
            "enable_registration": False,
            "federation_domain_whitelist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "presence": {"enabled": False},
            "url_preview_enabled": False,
            "app_service_config_files": [str(path) for path in self.registrations],
            "modules": [
                {"module": _ACCEPTS, "config": {"bot": bot}},
                {"module": _LISTENS, "config": {}},
            ],
            "login_via_existing_session": {
                "enabled": True,
                "require_ui_auth": False,
                "token_timeout": "1d",
            },
            **_rate_limits(),
        }

    def _secret(self, name: str) -> str:
        return keep_secret(self.directory / f"{name}.secret")

    def _log_config(self) -> dict[str, object]:
        return {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}
            },
            "handlers": {
                "file": {
                    "class": "logging.handlers.RotatingFileHandler",
                    "formatter": "line",
                    "filename": str(self.log),
                    "maxBytes": 10_000_000,
                    "backupCount": 2,
                    "encoding": "utf8",
                }
            },
            "root": {"level": "WARNING", "handlers": ["file"]},
        }

    @property
    def health_url(self) -> str:
        return f"{self.url}/health"

    async def create_account(
        self, http: aiohttp.ClientSession, localpart: str, password: str, *, admin: bool
    ) -> bool:
        """Register a person's account with the shared secret (Synapse admin API, "Shared-Secret
        Registration"); False when the account already exists.

        Raises:
            StackError: refused.
        """
        path = "/_synapse/admin/v1/register"
        nonce = str((await self._call(http, "GET", path)).get("nonce"))
        role = "admin" if admin else "notadmin"
        signed = "\0".join((nonce, localpart, password, role)).encode()
        mac = hmac.new(self._secret("registration").encode(), signed, hashlib.sha1).hexdigest()
        account = {"username": localpart, "password": password, "admin": admin}
        answer = await self._call(http, "POST", path, {**account, "nonce": nonce, "mac": mac})
        if "errcode" in answer and answer["errcode"] != "M_USER_IN_USE":
            raise StackError(f"Synapse refused the account @{localpart}: {answer.get('error')}")
        return "errcode" not in answer

    async def login(
        self, http: aiohttp.ClientSession, localpart: str, password: str, device: str
    ) -> str:
        """Log a person in; the access token.

        Raises:
            PasswordRefusedError: it is wrong.
            StackError: refused for another reason.
        """
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": password,
            "device_id": device,
            "initial_device_display_name": "letta-matrix",
        }
        answer = await self._call(http, "POST", "/_matrix/client/v3/login", body)
        if "access_token" not in answer:
            wrong = answer.get("errcode") == "M_FORBIDDEN"
            fault = PasswordRefusedError if wrong else StackError
            raise fault(f"Synapse refused the login of @{localpart}: {answer.get('error')}")
        return str(answer["access_token"])

    async def sign_in_once(
        self,
        http: aiohttp.ClientSession,
        user: str,
        password: str,
        device: str,
        meanwhile: Callable[[str], Awaitable[None]] | None = None,
    ) -> str:
        """A token that logs a person in once; `device` is logged in only to ask for it, and
        `meanwhile` is given its access token.

        Raises:
            PasswordRefusedError: the password is wrong.
            StackError: refused for another reason, or one was made within the last minute.
        """
        access = await self.login(http, user, password, device)
        try:
            if meanwhile is not None:
                await meanwhile(access)
            return await self.one_time_login_token(http, access)
        finally:
            await self.logout(http, access)

    async def one_time_login_token(self, http: aiohttp.ClientSession, access_token: str) -> str:
        """A token that logs its person in once (client-server API, `login/get_token`).

        Raises:
            StackError: refused, or too soon: Synapse makes one a minute.
        """
        path = "/_matrix/client/v1/login/get_token"
        answer = await self._call(http, "POST", path, {}, access_token)
        if answer.get("errcode") == "M_LIMIT_EXCEEDED":
            wait = answer.get("retry_after_ms")
            seconds = wait / 1000 if isinstance(wait, int | float) else 60.0
            next_in = max(1, math.ceil(seconds))
            raise StackError(f"Synapse makes one a minute; the next one in {next_in} s")
        if "login_token" not in answer:
            raise StackError(f"Synapse made no one-time login: {answer.get('error')}")
        return str(answer["login_token"])

    async def mark_direct(
        self, http: aiohttp.ClientSession, access: str, user_id: str, rooms: Mapping[str, str]
    ) -> None:
        """Name rooms as a person's direct chats with others, by user id, beside those that are
        named already. Raises StackError."""
        path = f"/_matrix/client/v3/user/{quote(user_id)}/account_data/m.direct"
        known = await self._call(http, "GET", path, access_token=access)
        if known.get("errcode") not in (None, "M_NOT_FOUND"):
            raise StackError(f"Synapse tells no direct chats: {known.get('error')}")
        before = {} if "errcode" in known else known
        if (direct := with_rooms(before, rooms)) != before:
            answer = await self._call(http, "PUT", path, direct, access)
            if "errcode" in answer:
                raise StackError(f"Synapse keeps no direct chats: {answer.get('error')}")

    async def logout(self, http: aiohttp.ClientSession, access_token: str) -> None:
        """End a login of ours. Raises StackError when Synapse does not answer."""
        await self._call(http, "POST", "/_matrix/client/v3/logout", {}, access_token)

    async def _call(
        self,
        http: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        access_token: str | None = None,
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {access_token}"} if access_token else {}
        try:
            async with http.request(
                method, f"{self.url}{path}", json=body, headers=headers, timeout=_TIMEOUT
            ) as response:
                return cast("dict[str, Any]", await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise StackError(f"Synapse did not answer {path}: {why_unreached(error)}") from None


def new_signing_key() -> str:
    """A homeserver's key, as Synapse reads it."""
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 a_{secrets.token_hex(2)} {seed}\n"


def _listener(port: int) -> dict[str, object]:
    return {
        "port": port,
        "type": "http",
        "tls": False,
        "bind_addresses": ["127.0.0.1"],
        "x_forwarded": False,
        "resources": [{"names": ["client"], "compress": False}],
    }


def _rate_limits() -> dict[str, object]:
    """Limits guard public servers; here they would only slow the one person and their agents.
    Passwords are guessed on loopback too, by programs that may reach it and little else."""
    plain = ("message", "registration", "admin_redaction", "room_creation", "profile")
    return {
        **{f"rc_{name}": _UNLIMITED for name in plain},
        "rc_media_create": _UNLIMITED,
        # All come from one address here, and each start of ours logs in a few times.
        "rc_login": {
            # Wide, or any of those programs could keep the owner out; the passwords are long.
            "address": {"per_second": 5, "burst_count": 200},
            "account": {"per_second": 1, "burst_count": 100},
            "failed_attempts": {"per_second": 1, "burst_count": 100},
        },
        "rc_joins": dict.fromkeys(("local", "remote"), _UNLIMITED),
        "rc_joins_per_room": _UNLIMITED,
        "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _UNLIMITED),
    }


def with_rooms(content: Mapping[str, Any], rooms: Mapping[str, str]) -> dict[str, Any]:
    """The content of `m.direct` (spec: Direct Messaging) with these rooms by user id, too."""
    direct = dict(content)
    for user_id, room_id in rooms.items():
        known: object = direct.get(user_id)
        listed = cast("list[object]", known) if isinstance(known, list) else []
        if room_id not in listed:
            direct[user_id] = [room_id, *listed]
    return direct
