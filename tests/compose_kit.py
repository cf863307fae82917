"""compose.yaml and compose.scale.yaml, and the files that their containers find."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from letta_matrix.stack.compose import Wanted, make_files
from letta_matrix.stack.volumes import Volumes

HERE = Path(__file__).parents[1]
USERS = ("BRIDGE", "APP_SERVER", "SYNAPSE", "POSTGRES", "REDIS")
MINE = {f"{name}_UID": str(os.getuid()) for name in USERS}

Services = dict[str, dict[str, Any]]


def services_of(name: str) -> Services:
    """Those of one file, by their names."""
    return cast("Services", yaml.safe_load((HERE / name).read_text(encoding="utf-8"))["services"])


def made(root: Path, **env: str) -> Volumes:
    """What compose.yaml's first start makes, for the user of this test."""
    volumes = Volumes(root, MINE)
    make_files(volumes, Wanted.of(env))
    return volumes


def mounts_of(services: Services) -> dict[str, set[str]]:
    """Who has which volume."""
    found: dict[str, set[str]] = {}
    for name, service in services.items():
        for one in service.get("volumes", []):
            found.setdefault(str(one).partition(":")[0], set()).add(name)
    return found


def nginx_in(folder: Path, backends: str, places: Mapping[str, str] | None = None) -> Path:
    """nginx.conf, with what stands behind it, in the test's folder; `places` are addresses of this
    machine in place of names and ports there."""
    (folder / "tmp").mkdir()
    known = places or {}
    for name in ("nginx.conf", backends):
        text = (HERE / "deploy/compose" / name).read_text(encoding="utf-8")
        text = _PLACE.sub(lambda it: known.get(it[0], f"127.0.0.1:{it[1]}"), text)
        # In one step: the test's folder is one below /tmp.
        text = re.sub(r"/(web|tmp)/", lambda found: f"{folder}/{found[1]}/", text)
        text = text.replace("pid /run/nginx.pid", f"pid {folder}/pid")
        text = text.replace("/etc/nginx/backends.conf", str(folder / backends))
        (folder / name).write_text(text)
    return folder / "nginx.conf"


_PLACE = re.compile(r"\b(?:[a-z][a-z0-9-]*:|(?<=listen ))(\d+)(?=[; ])")
