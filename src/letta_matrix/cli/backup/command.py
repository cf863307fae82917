"""`letta-matrix backup` and `restore`."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import ConfigOption, DataOption, config_path, data_directory, text_in
from letta_matrix.common.program import starting, typed

if TYPE_CHECKING:
    from letta_matrix.cli.backup.archive import Manifest
    from letta_matrix.cli.backup.restoring import PutBack, Target
    from letta_matrix.cli.backup.taking import Taken

_VARIABLE = "LETTA_MATRIX_BACKUP_PASSPHRASE"
_SHORTEST = 8

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        help=f"A file with the passphrase; without it the variable {_VARIABLE}, or you are asked.",
        show_default=False,
    ),
]


def backup(
    file: FileArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    passphrase_file: PassphraseFileOption = None,
    no_encryption: Annotated[
        bool,
        typer.Option("--no-encryption", help="Let everybody read it who gets hold of the file."),
    ] = False,
    with_servers: Annotated[
        bool | None,
        typer.Option(
            "--with-servers/--without-servers",
            help="Also what Synapse and the App Server of `up` keep; with `up` that is usual.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether FILE is whole and can be opened.")
    ] = False,
) -> None:
    """Back up a bridge into one encrypted file, while it runs: configuration, registration,
    database, and with `up` all servers. The file is read back before it gets its name."""
    _end_well()
    if check:
        _check(file, passphrase_file)
        return
    from letta_matrix.cli.backup.contents import Source
    from letta_matrix.cli.backup.taking import take
    from letta_matrix.cli.backup.unfinished import check_whole
    from letta_matrix.config import load_config

    path = config_path(config, data).absolute()
    check_whole(path)
    source = Source(path, load_config(path))
    if with_servers and not source.is_stack:
        raise BadInput(f"{source.folder} is not the folder of an `up`: there are no servers in it")
    if no_encryption and passphrase_file is not None:
        raise BadInput("--no-encryption and --passphrase-file: give one of them")
    passphrase = None if no_encryption else _new_passphrase(passphrase_file)
    servers = source.is_stack if with_servers is None else with_servers
    _told(file, take(source, file, passphrase, servers=servers), encrypted=not no_encryption)


def restore(
    file: FileArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    passphrase_file: PassphraseFileOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move aside what stands there already.")
    ] = False,
    database: Annotated[
        Path | None,
        typer.Option(help="Where the bridge's database goes, if not beside its configuration."),
    ] = None,
    keep_tokens: Annotated[
        bool,
        typer.Option(
            "--keep-tokens",
            help="Let tokens count of which nobody can tell whether they were revoked since.",
        ),
    ] = False,
) -> None:
    """Put a backup back. Stop the bridge before. All of the backup is looked at before anything
    is touched, and what stood there is moved aside, never deleted."""
    from letta_matrix.app.logs import configure_logging
    from letta_matrix.cli.backup.archive import is_encrypted
    from letta_matrix.cli.backup.restoring import Target, restore
    from letta_matrix.config import Logging

    _end_well()
    configure_logging(Logging.model_validate({}), [])
    target = Target(_place(config, data), database)
    passphrase = _passphrase(passphrase_file) if is_encrypted(file) else None
    done = restore(file, passphrase, target, replace=replace, keep_tokens=keep_tokens)
    _told_put_back(done, target, data)


def _check(file: Path, passphrase_file: Path | None) -> None:
    from letta_matrix.cli.backup.archive import is_encrypted, read

    encrypted = is_encrypted(file)
    found = read(file, _passphrase(passphrase_file) if encrypted else None)
    made, size = found.manifest, _readable(found.size)
    print(f"{file} is whole: {found.files} files, {size}")
    if not encrypted:
        print("it is NOT ENCRYPTED")
    print(f"made {_when(made)} by letta-matrix {made.version}, schema {made.schema}")
    print("with the servers of `up`" if made.servers else "without a homeserver's data")


def _told(file: Path, taken: "Taken", *, encrypted: bool) -> None:
    print(
        f"{file}: {_readable(file.stat().st_size)}, of {taken.files} files with "
        f"{_readable(taken.size)}; read back and whole"
        + ("" if encrypted else ". It is NOT ENCRYPTED, and holds every secret of the bridge")
    )
    for name in taken.left_out[:20]:
        print(f"left out, a link or not readable: {name}")
    if (more := len(taken.left_out) - 20) > 0:
        print(f"left out: {more} more")


def _told_put_back(done: "PutBack", target: "Target", data: Path | None) -> None:
    from letta_matrix.matrix.verbatim import visible

    print(f"put back as of {_when(done.manifest)}: {visible(', '.join(done.names))}")
    for folder in done.aside:
        print(f"what stood there is in {folder}")
    if done.ended.tokens:
        why = (
            "were revoked since, or are not known to the database that stood there"
            if done.ended.seen
            else "may have been revoked since, which nobody can tell"
        )
        print(
            f"{done.ended.tokens} tokens do not count any more: they {why}. Make others by "
            f"`{typed(['tokens', 'create'])}`"
        )
    if done.manifest.servers:
        print(f"start it: {starting() if data is None else typed(['up', '--data', str(data)])}")
        return
    print(
        "The homeserver has to have the tokens of this registration.yaml: where they were others "
        "since, let it read the file and restart it."
    )
    if server := _server_in(target.config):
        file = target.database or target.config.with_name("letta-matrix.db")
        copying = typed(["database", "copy", f"sqlite:///{file}", server])
        print(
            f"The configuration names PostgreSQL: bring the database into an empty one there by "
            f"`{copying}`"
        )
    print(f"start the bridge: {typed(['run', '-c', str(target.config)])}")


def _server_in(config: Path) -> str:
    """The address of PostgreSQL that a configuration names, "" for none."""
    from letta_matrix.common.json_fields import mapping, string_of
    from letta_matrix.config.database import without_password
    from letta_matrix.config.sources import read_file

    url = string_of(mapping(read_file(config).get("database")), "url")
    return without_password(url) if url.startswith("postgres") else ""


def _place(config: Path | None, data: Path | None) -> Path:
    if config is None and data is None:
        usual = data_directory(None)
        raise BadInput(f"say where to: by -c config.yaml, or --data DIR (of `up`: {usual})")
    return config_path(config, data).expanduser()


def _passphrase(file: Path | None) -> str:
    """The one of a backup that is there. Raises BadInput."""
    given = _given(file)
    return typer.prompt("Passphrase", hide_input=True) if given is None else given


def _new_passphrase(file: Path | None) -> str:
    """The one of a new backup. Raises BadInput."""
    given = _given(file)
    if given is None:
        if not sys.stdin.isatty():
            raise BadInput(
                f"a backup wants a passphrase: by --passphrase-file, or {_VARIABLE}; "
                "--no-encryption does without one"
            )
        given = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
    if len(given) < _SHORTEST:
        raise BadInput(f"the passphrase should have at least {_SHORTEST} characters")
    return given


def _given(file: Path | None) -> str | None:
    """What a file or the environment says, None for neither. Raises BadInput."""
    if file is None:
        return os.environ.get(_VARIABLE) or None
    try:
        lines = text_in(file).splitlines()
    except UnicodeError:
        lines = []
    if len(lines) != 1 or not lines[0]:
        raise BadInput(f"{file}: expected one line with the passphrase and nothing else")
    return lines[0]


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _when(manifest: "Manifest") -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.made_at))


def _end_well() -> None:
    """Let what is half done be taken back by whoever ends us, too."""

    def end(*_: object) -> NoReturn:
        sys.exit(143)

    # Signals are the main thread's alone.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
