"""Runs a program that reaches only the files it is given: `python -m ... --write DIR -- PROGRAM`.

Landlock (Linux kernel documentation, "Landlock: unprivileged access control") confines the
process and all that it starts, for root too, and for good. What is confined so can also not look
into processes outside (their memory, their environment), and since version 6 of the interface
not signal them; root's capabilities, by which it could nevertheless, are given up. The network
stays open: models and the web are there.
"""

import argparse
import ctypes
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_VERSION = 1
_NO_NEW_PRIVS, _BOUNDING_DROP = 38, 24
_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522
_READ = 1 << 0 | 1 << 2 | 1 << 3
_FILES_ALONE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_BITS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_SCOPES = 0b11
_LARGEST = 10_000_000
"""Bytes of settings that are read."""
_SERVERS = "mcpServers"
_STRICT = "strict"
_SECTION = re.compile(r'[ \t]*\[([A-Za-z]+)(?: "[^"\\\n]*")?\][ \t]*')
_ENTRY = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9-]*)[ \t]*=[ \t]*[^\"\\;#\[\n]*")
_GIT_KEYS = {
    "core": {"repositoryformatversion", "filemode", "bare", "logallrefupdates", "ignorecase"}
    | {"precomposeunicode", "symlinks"},
    "user": {"name", "email"},
    "commit": {"gpgsign"},
    "branch": {"remote", "merge"},
    "remote": {"url", "fetch"},
    "letta": {"agentid", "url"},
}
"""What stays in the settings of agents' repositories, by section."""
_LIBC = ctypes.CDLL(None, use_errno=True)

SYSTEM = """
/usr /bin /sbin /lib /lib32 /lib64 /opt /nix/store /proc /sys
/etc/alternatives /etc/ca-certificates /etc/ca-certificates.conf /etc/debian_version
/etc/group /etc/hosts /etc/host.conf /etc/hostname /etc/inputrc /etc/ld.so.cache
/etc/ld.so.conf /etc/ld.so.conf.d /etc/localtime /etc/locale.alias /etc/mime.types
/etc/nsswitch.conf /etc/os-release /etc/passwd /etc/pki/ca-trust /etc/pki/tls
/etc/profile /etc/profile.d /etc/bash.bashrc /etc/protocols /etc/resolv.conf
/etc/services /etc/shells /etc/ssl/certs /etc/ssl/openssl.cnf /etc/timezone
/run/systemd/resolve /run/resolvconf
"""
"""What programs need to run, and no more: of /etc no shadow, no keys, no settings of servers."""

DEVICES = """
/dev/null /dev/zero /dev/full /dev/random /dev/urandom
/dev/tty /dev/ptmx /dev/pts /dev/fd /dev/shm
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """Folders and files that a confined program may read and run, and those it may change."""

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()

    def around(
        self,
        argv: Sequence[str],
        clean: Sequence[Path] = (),
        repositories: Path | None = None,
    ) -> tuple[str, ...]:
        """The command line that runs `argv` so confined, after what would let tools run unasked is
        taken out of the settings in `clean`, and what git would run out of all repositories below
        the folder `repositories`."""
        options = [f"--read={path}" for path in self.read]
        options += [f"--write={path}" for path in self.write]
        options += [f"--clean={path}" for path in clean]
        options += [f"--repositories={repositories}"] if repositories is not None else []
        # By its path and isolated: nothing of ours, nor of the environment, is needed to start it.
        # Nor what is installed: that could be run before anything is confined.
        return (sys.executable, "-I", "-S", str(Path(__file__)), *options, "--", *argv)


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock, 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    found = _LIBC.syscall(_CREATE_RULESET, None, 0, _VERSION)
    return max(int(found), 0)


def confine(reach: Reach) -> None:
    """Confine this process and those it will start.

    Raises:
        OSError: the kernel cannot, or a path is not there.
    """
    known = version()
    if not known:
        raise OSError("this kernel has no Landlock")
    handled = (1 << _BITS_BY_VERSION[min(known, max(_BITS_BY_VERSION))]) - 1
    attributes = _Attributes(handled, 0, _SCOPES if known >= 6 else 0)
    size = ctypes.sizeof(attributes) if known >= 6 else 16 if known >= 4 else 8
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    for path in _there((*SYSTEM.split(), *reach.read)):
        _allow(ruleset, path, _READ & handled)
    for path in _there((*DEVICES.split(), *reach.write)):
        _allow(ruleset, path, handled)
    if _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    _give_up_capabilities()


def _give_up_capabilities() -> None:
    """Leave nothing for the program to have (capabilities(7), "Transformation of capabilities
    during execve()"). Only root has any, and may drop what is to be inherited."""
    if os.geteuid() != 0:
        return
    for number in range(_CAPABILITIES):
        _LIBC.prctl(_BOUNDING_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if _LIBC.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _there(paths: Iterable[str | Path]) -> list[Path]:
    return [path for path in map(Path, paths) if path.exists()]


def _allow(ruleset: int, path: Path, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights if path.is_dir() else rights & _FILES_ALONE
        rule = _Beneath(allowed, parent)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


def _call(number: int, *arguments: object) -> int:
    result = int(_LIBC.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def own_rules(path: Path) -> list[str]:
    """What in a file of settings lets tools run unasked: its rules and its mode, "hooks", and
    "mcpServers", which are programs too."""
    settings = _settings(path)
    permissions = _object(settings.get("permissions"))
    allowed, mode = permissions.get("allow"), permissions.get("mode")
    rules = cast("list[object]", allowed) if isinstance(allowed, list) else []
    found = [*map(str, rules), *([f"mode {mode}"] if mode else [])]
    found += ["hooks"] if settings.get("hooks") else []
    return found + (["mcpServers"] if any(one.get(_SERVERS) for one in _parts(settings)) else [])


def _clean(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_file() or path.is_symlink():
        path.unlink()
    elif own_rules(path) or _lax(_settings(path)):
        settings = _settings(path)
        for mode in _lax(settings):
            mode["mode"] = _STRICT
        settings.pop("hooks", None)
        for key in ("allow", "mode"):
            _object(settings.get("permissions")).pop(key, None)
        for part in _parts(settings):
            part.pop(_SERVERS, None)
        path.write_text(json.dumps(settings, indent=2))


def _lax(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The modes of conversations in which some tools would not ask. Whoever uses a conversation
    names its mode anew; what runs by itself, such as schedules, goes by what stands here."""
    modes = map(_object, _object(settings.get("permissionModeMap")).values())
    return [mode for mode in modes if mode.get("mode") != _STRICT]


def _parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings, and those of each agent in them."""
    agents = settings.get("agents")
    listed = cast("list[object]", agents) if isinstance(agents, list) else []
    return [settings, *map(_object, listed)]


def _clean_repositories(folder: Path) -> None:
    """Leave in git's settings below a folder what names things, and nothing that names programs:
    filters, drivers, hooks, other files of settings."""
    for at, folders, files in os.walk(folder):
        here = Path(at)
        if ".git" in files or (here / ".git").is_symlink():
            # A link, or a file that names another folder; the App Server makes a repository anew.
            here.chmod(0o700)
            (here / ".git").unlink()
        if "HEAD" not in files or "objects" not in folders:
            continue
        here.chmod(0o700)
        for name in ("config.worktree", "commondir"):
            (here / name).unlink(missing_ok=True)
        config = here / "config"
        if config.is_symlink() or (config.exists() and not config.is_file()):
            config.unlink()
        elif config.exists():
            text = config.read_text(errors="replace") if _is_small(config) else ""
            if (kept := _harmless(text)) != text:
                config.write_text(kept)


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= _LARGEST


def _harmless(config: str) -> str:
    """The lines of a git configuration that only name things. What is not as plain as git itself
    writes it, such as a value that goes on in the next line, is none of them."""
    kept, section = list[str](), ""
    for line in config.split("\n"):
        if header := _SECTION.fullmatch(line):
            section = header[1].lower()
            kept += [line] if section in _GIT_KEYS else []
        elif section in _GIT_KEYS and (entry := _ENTRY.fullmatch(line)):
            keys = _GIT_KEYS[section]
            kept += [line] if not keys or entry[1].lower() in keys else []
        elif line.strip():
            # What is no entry may be the beginning of one: nothing more of this section.
            section = ""
    return "\n".join(kept) + "\n" if kept else ""


def _settings(path: Path) -> dict[str, Any]:
    """The settings in a file, {} where it holds none or is none: a pipe would never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return {}
            return _object(json.loads(file.read(_LARGEST)))
    except (OSError, ValueError, RecursionError):
        return {}


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def main() -> None:
    """Confine ourselves and become the program. Ends with 126 where it cannot be confined: what
    was to be confined does not run without it."""
    parser = argparse.ArgumentParser(description="runs a program with few files in its reach")
    parser.add_argument("--read", type=Path, action="append", default=[])
    parser.add_argument("--write", type=Path, action="append", default=[])
    parser.add_argument("--clean", type=Path, action="append", default=[])
    parser.add_argument("--repositories", type=Path, action="append", default=[])
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args()
    argv: list[str] = options.argv
    try:
        confine(Reach(options.read, options.write))
        # Only now: links in there lead nowhere else.
        for path in options.clean:
            _clean(path)
        for folder in options.repositories:
            _clean_repositories(folder)
        os.execv(argv[0], argv)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]} confined: {error}\n")
        sys.exit(126)


if __name__ == "__main__":
    main()
