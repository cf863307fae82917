"""The keeper as a service beside its App Server, for bridges on other machines."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from letta_matrix.common.addresses import Place, is_address, names_user, place_of
from letta_matrix.common.connections.listener import bound
from letta_matrix.common.log_repeats import Line, Repeats
from letta_matrix.common.waiting import ended_by_signal
from letta_matrix.runtimes.keeper.doors import RemoteDoor
from letta_matrix.runtimes.keeper.ends import IdleEnd
from letta_matrix.runtimes.keeper.secret import checked, token_in
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.runtimes.keeper.upstream import websocket_url

APP_SERVER = "ws://127.0.0.1:4500"
TOKEN = "LETTA_MATRIX_KEEPER_TOKEN"  # noqa: S105 - the name of a variable
APP_SERVER_TOKEN = "LETTA_MATRIX_APP_SERVER_TOKEN"  # noqa: S105 - likewise


class _Unusable(Exception):
    """What was given cannot be used, and why."""


def listen(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> int:
    """Serve bridges at `options.listen` until SIGTERM, or until none was attached for
    `options.idle` seconds, if that is given. The exit status: 2 for what cannot be used, which is
    told on stderr in one line."""
    try:
        place = _place(options.listen)
        token, target = _token(options.token_file, environment), _target(options, environment)
        sockets = _bound(place)
    except _Unusable as fault:
        print(f"letta-matrix keeper: {fault}", file=sys.stderr)  # noqa: T201 - whoever started it
        return 2
    _configure_logging()
    asyncio.run(_serve(sockets, token, target, options))
    return 0


def _place(text: str) -> Place:
    try:
        place = place_of(text)
    except ValueError:
        raise _Unusable(f"--listen {text}: should be HOST:PORT") from None
    if place.tls:
        raise _Unusable("--listen: TLS is spoken by a proxy before it; give HOST:PORT")
    return place


def _token(file: Path | None, environment: Mapping[str, str]) -> str:
    given = environment.get(TOKEN, "")
    if file is None and not given:
        raise _Unusable(f"--listen wants a token: name its file by --token-file, or set {TOKEN}")
    try:
        return checked(given, TOKEN) if file is None else token_in(file)
    except OSError as error:
        raise _Unusable(f"--token-file: {error}") from None


def _target(options: argparse.Namespace, environment: Mapping[str, str]) -> Target:
    url, file = options.app_server or APP_SERVER, options.app_server_token_file
    if not is_address(url, "ws", "wss") or names_user(url):
        raise _Unusable("--app-server: should be an address such as ws://127.0.0.1:4500")
    try:
        # The App Server's operator has made it, of any length.
        token = environment.get(APP_SERVER_TOKEN) if file is None else token_in(file, least=1)
    except OSError as error:
        raise _Unusable(f"--app-server-token-file: {error}") from None
    return Target(websocket_url(url), token or None)


def _bound(place: Place) -> list[socket.socket]:
    try:
        return bound(place.host, place.port)
    except OSError as error:
        raise _Unusable(f"--listen {place}: {error.strerror or error}") from None


async def _serve(
    sockets: list[socket.socket], token: str, target: Target, options: argparse.Namespace
) -> None:
    ended = ended_by_signal()
    keeper = Keeper(options.buffer, IdleEnd(options.idle, ended).changed, ended.set)
    await keeper.aim(target)
    door = RemoteDoor(keeper, token, target)
    door.listen(sockets)
    try:
        await ended.wait()
    finally:
        await door.close()
        await keeper.close()


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Repeats(_say),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _say(line: Line) -> None:
    level = logging.getLevelNamesMapping()[str(line["level"]).upper()]
    told = {name: value for name, value in line.items() if name != "level"}
    structlog.get_logger().log(level, **told)
