"""A homeserver of its own for the browser tests."""

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

_SHARED_SECRET = "browser-tests"  # noqa: S105


@dataclass(frozen=True)
class Homeserver:
    """A running Synapse and the way to get accounts on it."""

    url: str
    server_name: str

    async def register(self, localpart: str, admin: bool = False) -> tuple[str, str, str]:
        """A new account's user id, access token and password."""
        password = secrets.token_hex(8)
        path = f"{self.url}/_synapse/admin/v1/register"
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            async with http.get(path) as answer:
                nonce = (await answer.json())["nonce"]
            fields = (nonce, localpart, password, "admin" if admin else "notadmin")
            mac = hmac.new(_SHARED_SECRET.encode(), "\0".join(fields).encode(), hashlib.sha1)
            body = {
                "nonce": nonce,
                "username": localpart,
                "password": password,
                "admin": admin,
                "mac": mac.hexdigest(),
            }
            async with http.post(path, json=body) as answer:
                account = await answer.json()
        return account["user_id"], account["access_token"], password


def _limits() -> dict[str, object]:
    free = {"per_second": 10000, "burst_count": 10000}
    nested = {"address": free, "account": free, "failed_attempts": free}
    return {
        "rc_message": free,
        "rc_registration": free,
        "rc_login": nested,
        "rc_joins": {"local": free, "remote": free},
        "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
        "rc_reports": free,
        "rc_admin_redaction": free,
    }


def _settings(folder: Path, port: int) -> dict[str, object]:
    listener = {
        "port": port,
        "type": "http",
        "bind_addresses": ["127.0.0.1"],
        "resources": [{"names": ["client", "media"]}],
    }
    return {
        "server_name": "localhost",
        "public_baseurl": f"http://127.0.0.1:{port}/",
        "pid_file": str(folder / "synapse.pid"),
        "listeners": [listener],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "synapse.db")}},
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "registration_shared_secret": _SHARED_SECRET,
        "macaroon_secret_key": "browser-tests",
        "form_secret": "browser-tests",
        "report_stats": False,
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "federation_domain_whitelist": [],
        "presence": {"enabled": False},
        "url_preview_enabled": False,
        "enable_registration": False,
        "login_via_existing_session": {
            "enabled": True,
            "require_ui_auth": False,
            "token_timeout": "1d",
        },
        **_limits(),
    }


async def start_synapse(folder: Path, port: int) -> asyncio.subprocess.Process:
    """Starts Synapse in `folder`; it answers when this returns."""
    config = folder / "homeserver.yaml"
    config.write_text(yaml.safe_dump(_settings(folder, port)), encoding="utf-8")
    command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(config)]
    keys = await asyncio.create_subprocess_exec(*command, "--generate-keys", cwd=folder)
    assert await keys.wait() == 0
    log = os.open(folder / "synapse.log", os.O_CREAT | os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)
    finally:
        os.close(log)
    await _answering(f"http://127.0.0.1:{port}/health", process)
    return process


async def _answering(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as http:
        for _ in range(400):
            assert process.returncode is None, "Synapse ended; see synapse.log"
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("Synapse does not answer")
