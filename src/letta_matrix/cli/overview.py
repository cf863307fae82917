"""`letta-matrix agents` and `letta-matrix status`."""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import typer

from letta_matrix.cli.options import ConfigOption, DataOption, JsonOption, settings_in

if TYPE_CHECKING:
    from letta_matrix.config import Config
    from letta_matrix.store.agents import Agent

_TIMEOUT = 5.0
_WHY = (
    "Why agents are in trouble is in the bridge's log, and in /api/v1/health for a token with the "
    "scope admin."
)

_NEAREST = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound

_SILENT = 10.0
"""Seconds after which a replica that tells nothing is said to."""

_EMPTY = {"runtimes": "nothing odd has come from it"}
"""What a part of the report means by holding nothing."""


def agents(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the agents with their Matrix users and rooms."""
    from letta_matrix.cli.database import load_agents
    from letta_matrix.common.identifiers import room_alias
    from letta_matrix.common.lenient_json import printable

    settings = settings_in(config, data)
    kinds = {runtime.name: str(runtime.type) for runtime in settings.runtimes}
    found = asyncio.run(load_agents(settings))
    if as_json:
        domain = settings.homeserver.domain
        print(json.dumps([_fields(agent, kinds, domain) for agent in found], indent=2))
        return
    if not found:
        print("no agents yet")
    for agent in found:
        removed = "" if agent.status == "active" else f"  ({agent.status})"
        print(f"{printable(agent.name)}{removed}")
        print(f"  agent  {agent.agent_id}")
        print(f"  lives  {agent.runtime} ({kinds.get(agent.runtime, 'no longer configured')})")
        print(f"  user   {agent.user_id}")
        print(f"  room   {agent.room_id or '(not created yet)'}")
        if agent.room_id:
            print(f"  alias  {room_alias(agent.agent_id, settings.homeserver.domain)}")


def status(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show whether the bridge runs and is healthy; exit status 1 when it is not."""
    health = asyncio.run(_health(settings_in(config, data)))
    if as_json:
        print(json.dumps(health, indent=2))
    else:
        print(for_people(health))
    if health["status"] != "ok":
        raise typer.Exit(1)


def for_people(report: Mapping[str, object]) -> str:
    """What /health says, as short lines."""
    # The checks say what the troubles do, and what to do.
    shown = {**report, **_of_checks(report)} if "checks" in report else {**report}
    if isinstance(replica := report.get("replica"), Mapping):
        shown["replica"] = _of_replicas(cast("Mapping[str, object]", replica))
    parts = (
        _lines(name.replace("_", " "), part, _EMPTY.get(name))
        for name, part in shown.items()
        if name != "checks"
    )
    lines = [line for part in parts for line in part]
    if report.get("agents_in_trouble"):
        lines.append(_WHY)
    return "\n".join(lines)


def _of_checks(report: Mapping[str, object]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"trouble": [], "warning": []}
    for check in cast("list[Mapping[str, str]]", report["checks"]):
        if check["state"] not in found:
            continue
        found[check["state"]].append(f"{check['name']}: {check['says']}")
        if check["remedy"]:
            found[check["state"]].append(f"  what to do: {check['remedy']}")
    return {f"{state}s": lines for state, lines in found.items()}


def _of_replicas(told: Mapping[str, object]) -> dict[str, object]:
    replicas = cast("list[Mapping[str, object]]", told["replicas"])
    return {**told, "replicas": [_replica(one, told["replica"]) for one in replicas]}


def _replica(one: Mapping[str, object], this: object) -> str:
    at = f" at {one['address']}" if "address" in one else ""
    cut = ", does not reach the homeserver" if one["reaches_homeserver"] is False else ""
    seen = cast("float", one["seen_seconds_ago"])
    heard = f", last heard of {seen:.0f} s ago" if seen > _SILENT else ""
    here = " (this one)" if one["replica"] == this else ""
    return f"{one['replica']}{at}: {one['state']}, version {one['version']}{cut}{heard}{here}"


def _lines(name: str, value: object, empty: str | None = None) -> list[str]:
    """A part of the report for people: its name, and below it what it holds; `empty` is what a
    part of it that holds nothing means."""
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value).items()
        below = [line for key, part in parts for line in _part(key, part, empty)]
    elif isinstance(value, list):
        below = [str(item) for item in cast("list[object]", value)]
    else:
        shown = ("no", "yes")[value] if isinstance(value, bool) else value
        return [f"{name}: {'none' if shown is None else shown}"]
    return [f"{name}:", *(f"  {line}" for line in below)] if below else [f"{name}: none"]


def _part(name: str, value: object, empty: str | None) -> list[str]:
    return [f"{name}: {empty}"] if empty and not value else _lines(name, value)


def _fields(agent: "Agent", kinds: Mapping[str, str], domain: str) -> dict[str, object]:
    from letta_matrix.common.identifiers import room_alias

    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "runtime": agent.runtime,
        "runtime_type": kinds.get(agent.runtime),
        "user_id": agent.user_id,
        "room_id": agent.room_id,
        "room_alias": room_alias(agent.agent_id, domain) if agent.room_id else None,
        "status": str(agent.status),
    }


async def _health(config: "Config") -> dict[str, object]:
    """What /health says, with `ready` from /ready."""
    if (report := await report_of(config)) is not None:
        return report
    base = _base(config.api.hostname, config.api.port)
    return {"status": "down", "detail": f"nothing answers at {base}; is it running?"}


async def report_of(config: "Config") -> dict[str, object] | None:
    """What a running bridge says of itself, None where none answers."""
    from letta_matrix.client import ClientError, LettaMatrix

    base = _base(config.api.hostname, config.api.port)
    try:
        async with LettaMatrix(base, timeout=_TIMEOUT) as bridge:
            # First: it has the bridge look what the report then tells.
            ready = await bridge.is_ready()
            return {**await bridge.health(), "ready": ready}
    except ClientError:
        return None


def _base(hostname: str, port: int) -> str:
    """The address of a server that listens on `hostname`, as one of this machine reaches it."""
    host = _NEAREST.get(hostname, hostname)
    # An IPv6 address stands in brackets, its zone quoted (RFC 6874).
    return f"http://[{host.replace('%', '%25')}]:{port}" if ":" in host else f"http://{host}:{port}"
