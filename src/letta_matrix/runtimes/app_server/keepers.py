"""The keeper of a runtime's settings."""

from pathlib import Path

from letta_matrix.common.addresses import place_of
from letta_matrix.common.sureness import Sure
from letta_matrix.config import AppServerRuntime, Config
from letta_matrix.config.types import secret_of
from letta_matrix.runtimes.keeper.local import LocalKeeper
from letta_matrix.runtimes.keeper.places import KeeperPlace
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.secret import checked, token_in
from letta_matrix.runtimes.keeper.server import Target
from letta_matrix.runtimes.keeper.upstream import websocket_url


def keeper_of(settings: AppServerRuntime, config: Config, sure: Sure | None = None) -> KeeperPlace:
    """The keeper by which a bridge of this configuration reaches the App Server. One of its own it
    ends only where it is `sure`."""
    if settings.keeper is None:
        pid_file = None if settings.pid_file is None else config.path(settings.pid_file)
        return local_keeper(settings, config.path(settings.keeper_socket), pid_file, sure)
    return remote_keeper(settings, config)


def local_keeper(
    settings: AppServerRuntime,
    socket: Path,
    pid_file: Path | None = None,
    sure: Sure | None = None,
) -> LocalKeeper:
    """The one at a socket, which is started where none answers."""
    token = secret_of(settings.token) or None
    pids = None if pid_file is None else str(pid_file)
    target = Target(websocket_url(settings.url), token, pids)
    return LocalKeeper(socket, target, sure=sure)


def remote_keeper(settings: AppServerRuntime, config: Config | None = None) -> RemoteKeeper:
    """The one that `keeper` names. A relative `keeper_token_file` starts at `config`'s folder."""
    named = settings.keeper_token_file
    path = Path if config is None else config.path

    def token() -> str:
        # At each try: it may be another one by now.
        if named is not None:
            return token_in(path(named))
        return checked(secret_of(settings.keeper_token), "`keeper_token`")

    return RemoteKeeper(place_of(settings.keeper or ""), token)
