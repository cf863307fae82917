"""Debian's nginx in front of a homeserver, as operators have it; its answers can be replaced."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import free_port

_CONFIG = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    default_type text/html;
    client_max_body_size 50m;
    location / {{
      if (-f {directory}/maintenance) {{ return 200 "<html><h1>Back soon</h1></html>"; }}
      if (-f {directory}/login) {{ return 302 https://sso.example.org/login; }}
      proxy_pass {behind};
      proxy_http_version 1.1;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""


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
def nginx_before(behind: str, directory: Path) -> Generator[Nginx]:
    """Passes everything on to `behind`."""
    port = free_port()
    directory.chmod(0o755)
    config = directory / "nginx.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port, behind=behind))
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
        yield Nginx(f"http://127.0.0.1:{port}", directory)
    finally:
        process.terminate()
        process.wait()
