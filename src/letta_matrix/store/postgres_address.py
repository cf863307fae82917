"""The address of a PostgreSQL server: as `database.url` has it, and as texts show it."""

import re
from collections.abc import Iterable
from itertools import zip_longest
from urllib.parse import unquote

from sqlalchemy import URL, make_url

_PARTS = re.compile(r"(postgres[^/@]*://(?:[^@?]*@)?+)([^/@?]+)(.*)", re.DOTALL)
"""Whatever stands before an `@` is never taken for servers: it may have a comma in a password."""
_SERVER = re.compile(r"(\[[^\[\]]*\]|[^:]*)(?::(\d*))?")


def server_url(configured: str) -> URL:
    """The address that libpq would read, for SQLAlchemy. Raises ValueError for none."""
    parts = _PARTS.fullmatch(configured)
    if parts is None or not ("," in parts[2] or "%" in parts[2]):
        return _joined(make_url(configured))
    # Several servers, and the folder of a socket, it takes in another place.
    query = _servers(parts[2].split(","))
    url = make_url(parts[1] + parts[3])
    return url.set(query={**query, **url.query})


def _joined(url: URL) -> URL:
    """The same with several servers as libpq takes them, where SQLAlchemy's form has them: each as
    a `host=HOST:PORT` behind the `?`."""
    hosts = url.query.get("host")
    if not isinstance(hosts, tuple) or not all(map(_SERVER.fullmatch, hosts)):
        return url
    servers = _servers(hosts)
    twice = "port" in servers and "port" in url.query
    return url if twice else url.update_query_dict(servers)


def _servers(written: Iterable[str]) -> dict[str, str]:
    hosts, ports = (",".join(column) for column in zip(*map(_server, written), strict=True))
    return {"host": hosts, **({"port": ports} if ports.strip(",") else {})}


def _server(written: str) -> tuple[str, str]:
    found = _SERVER.fullmatch(written)
    if found is None:
        raise ValueError(f"no server: {written}")
    return unquote(found[1]).strip("[]"), found[2] or ""


def hosts_of(url: URL) -> str:
    """The servers that an address names, "" for none; several with their ports."""
    if url.host:
        return _shown(url.host)
    hosts, ports = _listed(url, "host"), _listed(url, "port")
    if len(hosts) < 2:
        return "".join(map(_shown, hosts))
    ports = ports * len(hosts) if len(ports) == 1 else ports
    both = zip_longest(map(_shown, hosts), ports, fillvalue="")
    return ",".join(host + (f":{port}" if port else "") for host, port in both)


def place_of(url: URL) -> str:
    """What a database is called in texts: its server and its name, and nothing that is secret."""
    service, ports = _listed(url, "service"), _listed(url, "port")
    host = hosts_of(url) or (f"the service {service[0]}" if service else "localhost")
    port = url.port or (ports[0] if len(ports) == 1 and "," not in host else "")
    server = f"PostgreSQL at {host}" + (f":{port}" if port else "")
    name = url.database or "".join(_listed(url, "dbname")[:1]) or url.username
    return f"{server}, database {name}" if name else server


def _listed(url: URL, name: str) -> list[str]:
    given = url.query.get(name, "")
    return given.split(",") if isinstance(given, str) and given else []


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
