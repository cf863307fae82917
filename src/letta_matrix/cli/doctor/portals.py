"""Checks of bridges to other networks, and of the phone line."""

from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError

from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, found, trouble, unknown
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.config import PortalSettings, SmsSettings
from letta_matrix.matrix.errors import why
from letta_matrix.matrix.requests import HomeserverUnavailable
from letta_matrix.portals.line_watch import not_known, trouble_of
from letta_matrix.portals.provisioning import Login, Provisioning, ProvisioningFault

_NOT_FOUND = 404
_SILENT = "no text message comes or goes"


@check(
    "other networks",
    shows="nobody there gets an answer",
    needs=("homeserver", "registration"),
)
async def bridges(subject: Subject) -> Finding | Findings:
    """Whether each bridge of `portals` and `sms` is there, and the phone is paired."""
    results: Findings = []
    for settings in subject.config.bridges:
        name = f"network {settings.name}"
        results.append(await _bot(subject, settings, name))
        if isinstance(settings, SmsSettings) and settings.provisioning is not None:
            results.append(await _phone(settings, subject.config.homeserver.domain, name))
    return results or fine("none is configured")


async def _bot(subject: Subject, settings: PortalSettings, name: str) -> Finding:
    path = ClientPath.v3.profile[settings.bot]
    try:
        await subject.homeserver.request(
            Method.GET, path, user_id=subject.config.bot_user_id, give_up_after=0
        )
    except MatrixRequestError as error:
        if error.http_status != _NOT_FOUND:
            return unknown(f"{settings.bot} cannot be looked up: {why(error)}", name=name)
        return trouble(
            f"there is no {settings.bot} on the homeserver",
            "start that bridge, with its registration in Synapse's app_service_config_files; or "
            f"write its bot's user id as `bot` of {settings.name}",
            name=name,
        )
    except HomeserverUnavailable as error:
        return unknown(f"{settings.bot} cannot be looked up: {error}", name=name)
    return fine(f"its bot {settings.bot} is there", name)


async def _phone(settings: SmsSettings, domain: str, name: str) -> Finding:
    try:
        logins = await Provisioning(settings, domain).logins()
    except ProvisioningFault as fault:
        return found(not_known(fault), shows=_SILENT, name=name)
    return judge_phone(logins, name)


def judge_phone(logins: list[Login], name: str = "") -> Finding:
    """By what the phone's bridge says of the phones of our line; what may pass by itself is no
    trouble to who looks once."""
    wrong = trouble_of(logins, lasts=False)
    if wrong is not None:
        return found(wrong, shows=_SILENT, name=name)
    return fine(f"{len(logins)} phone{'s' if len(logins) > 1 else ''} paired", name)
