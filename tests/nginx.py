"""Debian's nginx in front of a homeserver, as operators have it; its answers can be replaced."""

import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Certificates
from tests.servers import free_port

AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {text}
}}
"""
"""A whole configuration around the servers of an example, in one process: a worker of another user
could not look into the test's folder."""
_CONFIG = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  {rest}
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port}{ssl};
    default_type text/html;
    {size}
    {tls}
    location / {{
      if (-f {directory}/maintenance) {{ return 200 "<html><h1>Back soon</h1></html>"; }}
      if (-f {directory}/login) {{ return 302 https://sso.example.org/login; }}
      {root}
      proxy_http_version 1.1;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""

_TLS = """
    ssl_certificate {chain};
    ssl_certificate_key {key};
"""
_BELOW = """
    location = /.well-known/matrix/client {{
      default_type application/json;
      return 200 '{{"m.homeserver": {{"base_url": "https://127.0.0.1:{port}{path}/"}}}}';
    }}
"""
PATH = "/chat/matrix"
"""Below which the how-to has a homeserver."""
_PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "proxies.md"
_BLOCK = re.compile(
    r"```nginx\n(map \$request_uri .*?^}\n)server {\n.*?((?:    location .*?^    }\n)+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Nginx:
    """A running one; `url` is its address."""

    url: str
    directory: Path

    def say(self, what: str = "") -> None:
        """From now on answer `maintenance` or `login` to everything, or what stands behind."""
        for name in ("maintenance", "login"):
            (self.directory / name).unlink(missing_ok=True)
        if what:
            (self.directory / what).touch()


def nginx_path() -> str | None:
    """The program, if Debian's is installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin")


@contextmanager
def nginx_before(
    behind: str, directory: Path, certificates: Certificates | None = None, path: str = ""
) -> Generator[Nginx]:
    """Passes everything on to `behind`, with TLS if it has `certificates`. With PATH as `path` it
    does so with what comes below that, by the how-to's own lines, and
    `/.well-known/matrix/client` tells of it."""
    port = free_port()
    directory.chmod(0o755)
    config = directory / "nginx.conf"
    rest = tls = ""
    if path:
        block = _BLOCK.search(_PAGE.read_text(encoding="utf-8"))
        assert block is not None
        rest, below = block[1], block[2].replace("http://127.0.0.1:8008", behind)
        tls = _BELOW.format(port=port, path=path) + below
    if certificates is not None:
        tls += _TLS.format(chain=certificates.chain, key=certificates.key)
    ssl = " ssl" if certificates is not None else ""
    root = "return 404;" if path else f"proxy_pass {behind};"
    size = "" if path else "client_max_body_size 50m;"
    parts = {"tls": tls, "ssl": ssl, "rest": rest, "root": root, "size": size}
    config.write_text(_CONFIG.format(directory=directory, port=port, **parts))
    program = nginx_path()
    assert program is not None
    # One process: a worker of another user could not look into the test's folder.
    extra = "master_process off;"
    process = subprocess.Popen(
        [program, "-c", str(config), "-p", str(directory), "-g", extra],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Nginx(f"http{ssl.strip() and 's'}://127.0.0.1:{port}{path}", directory)
    finally:
        process.terminate()
        process.wait()
