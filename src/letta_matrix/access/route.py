"""The way to the homeserver, and the homeserver itself, as configured."""

import ssl
from collections.abc import Callable

from letta_matrix.common.connections.known_servers import server_at
from letta_matrix.common.sureness import Sure
from letta_matrix.config import Config, ConfigError
from letta_matrix.config.types import secret_of
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.route import Route
from letta_matrix.matrix.server_clock import ServerClock


def homeserver_of(
    config: Config,
    clock: ServerClock | None = None,
    on_refusal: Callable[[str], None] = lambda _: None,
    sure: Sure | None = None,
) -> Homeserver:
    """The homeserver of a configuration, which may know only the earlier of two tokens. Raises
    ConfigError as `route_to`."""
    service, pacer = config.appservice, Pacer(config.conversations.edits_per_second)
    return Homeserver(
        config.homeserver.url,
        service.as_token.get_secret_value(),
        pacer,
        route_to(config),
        clock,
        on_refusal,
        secret_of(service.earlier_as_token),
        sure,
    )


def route_to(config: Config) -> Route:
    """The way to the homeserver of a configuration. Raises ConfigError for a `ca_file` that has
    no certificates."""
    settings = config.homeserver
    pid_file = None if settings.pid_file is None else config.path(settings.pid_file)
    return Route(server_at(settings.url, pid_file, "homeserver"), _tls(config))


def _tls(config: Config) -> ssl.SSLContext | None:
    named = config.homeserver.ca_file
    if named is None:
        return None
    path = config.path(named)
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(
            f"{path}: `homeserver.ca_file` should hold certificates in PEM, as `-----BEGIN "
            "CERTIFICATE-----` begins one"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: `homeserver.ca_file` cannot be read: {error.strerror}"
        ) from None
    return context
