"""The way to the homeserver, as configured."""

import ssl

from letta_matrix.common.connections.known_servers import server_at
from letta_matrix.config import Config, ConfigError
from letta_matrix.matrix.route import Route


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
