"""Checks of what the operator has written: the configuration, and the registration made of it."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from letta_matrix.app.checks import NO_RUNTIMES, some_of
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, found, trouble, warning
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.json_fields import as_list, mapping
from letta_matrix.common.loopback import is_loopback
from letta_matrix.config import Config
from letta_matrix.config.original import replaced
from letta_matrix.config.yaml_text import read
from letta_matrix.stack.data import check_folders
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.registration import registration

REGISTRATION = "registration.yaml"
_NEW_FILE = (
    "`letta-matrix init --registration-only` writes it anew with the tokens of config.yaml; copy "
    "it to the homeserver, and restart that and the bridge"
)
_ENCRYPTION = {
    "de.sorunome.msc2409.push_ephemeral": "typing, receipts and presence",
    "receive_ephemeral": "typing, receipts and presence",
    "org.matrix.msc3202": "keys for encryption",
    "io.element.msc4190": "devices for encryption",
}
"""Flags of a registration by which the homeserver pushes, or lets us do, what we have no use
for."""


@check("configuration", shows="the bridge does not start, or answers nobody", vital="runtimes")
async def configuration(subject: Subject) -> Finding | Findings:
    """It is valid: it was read. What is odd in it all the same."""
    config = subject.config
    odd = [
        *await asyncio.to_thread(_odd_files, subject),
        *odd_settings(config),
        *(warning(line, "unset it") for line in replaced(subject.environment)),
    ]
    agents = f"{len(config.runtimes)} runtime{'s' if len(config.runtimes) != 1 else ''}"
    return odd or fine(f"{subject.path} is valid: {config.bot_user_id}, {agents}")


def odd_settings(config: Config) -> Iterator[Finding]:
    """What is allowed, and hardly meant."""
    if not config.runtimes:
        yield found(NO_RUNTIMES)
    if not any(role != "block" for role in config.permissions.values()):
        yield warning(
            "`permissions` lets nobody talk to agents",
            "name people, servers or `*` there, such as `example.org: user`",
            shows="agents are silent to everybody",
        )
    blocked = [one for one in config.agents.room_members if config.role_of(one) == "block"]
    if blocked:
        yield warning(
            f"invited to every agent's room, and not allowed to talk there: {some_of(blocked)}",
            "name them in `permissions`, or take them out of `agents.room_members`",
            shows="agents do not answer them",
        )
    if config.agents.dev_mode and config.agents.passwords:
        yield warning(
            "every agent's account has the password `password` (DEV_MODE)",
            "turn `agents.dev_mode` off beyond this machine",
            shows="whoever reaches the homeserver can log in as an agent",
        )
    yield from odd_address(config)


def odd_address(config: Config) -> Iterator[Finding]:
    """Where the homeserver is told to find us, against where we listen."""
    service, parts = config.appservice, urlsplit(config.appservice.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if is_loopback(service.hostname) and not is_loopback(parts.hostname or ""):
        yield warning(
            f"appservice.url is {service.url}, and the bridge listens on {service.hostname} alone",
            "let `appservice.hostname` be 0.0.0.0, unless a proxy on this machine passes requests "
            "on",
            shows="the homeserver cannot reach the bridge",
        )
    elif port != service.port:
        yield warning(
            f"appservice.url names port {port}, and the bridge listens on {service.port}",
            "write the same into `appservice.port`, unless a proxy stands in between",
            shows="the homeserver cannot reach the bridge",
        )
    if parts.path not in ("", "/"):
        yield warning(
            f"appservice.url has a path behind it: {service.url}",
            "leave it off, unless a proxy takes it away: the bridge listens without one",
            shows="the homeserver cannot reach the bridge",
        )
    mine = [one for one in config.agents.room_members if is_ours(one, config.bot_user_id)]
    if mine:
        yield trouble(
            f"in `agents.room_members`, with a user id that belongs to the bridge: {some_of(mine)}",
            "name people there, whose user ids begin neither with @agent_ nor with @letta_",
            shows="they are taken for agents, and never answered",
        )


def _odd_files(subject: Subject) -> Findings:
    odd: Findings = []
    # The homeserver may read the registration as one of a group.
    for file, others in ((subject.path, 0o077), (subject.config.directory / REGISTRATION, 0o007)):
        if file.is_file() and file.stat().st_mode & others:
            odd.append(
                warning(
                    f"{file} holds secrets, and other users of this machine may read it",
                    f"`chmod o-rwx {file}`" if others == 0o007 else f"`chmod 600 {file}`",
                    shows="who knows the tokens in it can act as every agent",
                )
            )
    try:
        file = subject.database_file
        folders = {subject.config.directory, *([] if file is None else [file.parent])}
        check_folders(folders, lambda text: odd.append(_folder(text)))
    except StackError as error:
        says, _, remedy = str(error).partition(": ")
        odd.append(trouble(f"{says} is open to all", remedy, shows="the bridge does not start"))
    return odd


def _folder(text: str) -> Finding:
    says, _, remedy = text.partition("; ")
    return warning(
        says, remedy, shows="they see which files are there, and when the bridge is used"
    )


@check("registration file", shows="the homeserver refuses the bridge, or does not reach it")
async def registration_file(subject: Subject) -> Finding:
    """That the file beside the configuration is what `init` would write."""
    file = subject.config.directory / REGISTRATION
    try:
        told = mapping(await asyncio.to_thread(read, file))
    except FileNotFoundError:
        return fine(f"there is none beside {subject.path.name}: what is loaded shows below")
    except (OSError, ValueError) as error:
        # Without the words of a parser, which may repeat a line with a token.
        why = error.strerror or "" if isinstance(error, OSError) else "it is no YAML"
        return trouble(f"{file} cannot be read: {why}", _NEW_FILE)
    return judge_registration(told, registration(subject.config))


def judge_registration(told: Mapping[str, Any], ours: Mapping[str, Any]) -> Finding:
    """What a registration has, against what our configuration makes of it. Tokens are compared,
    and never shown."""
    wrong = [key for key in _MUST_FIT if told.get(key) != ours[key]]
    wrong += [f"namespaces.{kind}" for kind in ("users", "aliases") if _lacks(told, ours, kind)]
    if wrong:
        return trouble(f"{REGISTRATION} differs from config.yaml in {', '.join(wrong)}", _NEW_FILE)
    return fine(f"{REGISTRATION} is as config.yaml says")


@check("rate limits", shows="answers come late when several agents speak, and stop growing")
async def rate_limits(subject: Subject) -> Finding:
    """Whether the homeserver may slow agents down."""
    return judge_rate_limits(await _registered(subject))


def judge_rate_limits(told: Mapping[str, Any]) -> Finding:
    """By a registration, empty where there is none to be read."""
    if told and told.get("rate_limited") is not False:
        return warning(
            f"{REGISTRATION} lets the homeserver limit how much agents may say",
            f"it needs `rate_limited: false`: {_NEW_FILE}",
        )
    return fine("none for agents" if told else f"no {REGISTRATION} here tells of any")


@check("encryption flags", shows="the homeserver sends more than is needed, and answers are slower")
async def encryption_flags(subject: Subject) -> Finding:
    """Whether the registration has what only an encrypting bridge needs."""
    return judge_encryption_flags(await _registered(subject))


def judge_encryption_flags(told: Mapping[str, Any]) -> Finding:
    """By a registration, empty where there is none to be read."""
    if needless := [flag for flag in _ENCRYPTION if told.get(flag) is True]:
        what = ", ".join(dict.fromkeys(_ENCRYPTION[flag] for flag in needless))
        return warning(
            f"{REGISTRATION} has {', '.join(needless)}, and the bridge has no use for {what}",
            f"take it out, or: {_NEW_FILE}",
        )
    return fine("the bridge does not encrypt, and needs none of them")


async def _registered(subject: Subject) -> Mapping[str, Any]:
    try:
        return mapping(await asyncio.to_thread(read, subject.config.directory / REGISTRATION))
    except (OSError, ValueError):
        # Told by `registration file`.
        return {}


_MUST_FIT = ("id", "url", "as_token", "hs_token", "sender_localpart")


def _lacks(told: Mapping[str, Any], ours: Mapping[str, Any], kind: str) -> bool:
    """Whether one of our namespaces is missing there; more than ours is nobody's harm."""
    regexes = [
        {one.get("regex") for one in as_list(mapping(it.get("namespaces")).get(kind))}
        for it in (told, ours)
    ]
    return not regexes[1] <= regexes[0]
