"""The whole examination: every check, and what a running bridge says of itself."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace

from letta_matrix.app.logs import secrets_of
from letta_matrix.cli.doctor.catalogue import CHECKS
from letta_matrix.cli.doctor.check import PATIENCE, Check
from letta_matrix.cli.doctor.finding import Finding, Findings, Mark, found, unknown
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.runtimes.error_lines import scrubbed


async def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> AsyncGenerator[Finding]:
    """What each check finds, as it finds it, without a secret of the configuration. What a
    running bridge says is wrong stands with the check of the same, in the bridge's words; what
    is said already is not said again."""
    secrets = secrets_of(subject.config)
    told, failed, said = subject.told(), set[str](), set[str]()

    def fresh(finding: Finding, check: Check | None = None) -> Iterator[Finding]:
        whole = _clean(_complete(finding, check), secrets)
        if whole.mark in (Mark.OK, Mark.UNKNOWN) or whole.says not in said:
            said.add(whole.says)
            yield whole

    for check in checks:
        for name, trouble in [(one, it) for one, it in told if check.is_vital(one)]:
            for finding in fresh(found(trouble, name=name), check):
                yield finding
        looked = await _look(check, failed, subject)
        if any(one.mark in (Mark.TROUBLE, Mark.UNKNOWN) for one in looked):
            failed.add(check.name)
        for one in looked:
            for finding in fresh(one, check):
                yield finding
    for name, trouble in told:
        for finding in fresh(found(trouble, name=name)):
            yield finding


async def _look(check: Check, failed: set[str], subject: Subject) -> Findings:
    missing = [name for name in check.needs if name in failed]
    if missing:
        return [unknown(f"not looked at, as `{missing[0]}` is not well")]
    try:
        async with asyncio.timeout(PATIENCE):
            return await check.look(subject)
    except TimeoutError:
        return [unknown(f"no answer within {PATIENCE:g} s")]
    except Exception as error:  # noqa: BLE001 - one defect must not hide what the others find
        return [unknown(f"the check failed, which is a defect: {type(error).__name__}: {error}")]


def _complete(finding: Finding, check: Check | None) -> Finding:
    """With what the check itself knows where the finding says nothing."""
    if check is None:
        return finding
    named = replace(finding, name=finding.name or check.name)
    if named.mark not in (Mark.WARNING, Mark.TROUBLE):
        return named
    return replace(named, shows=named.shows or check.shows, remedy=named.remedy or check.remedy)


def _clean(finding: Finding, secrets: Sequence[str]) -> Finding:
    texts = (finding.says, finding.shows, finding.remedy)
    says, shows, remedy = (scrubbed(text, *secrets) for text in texts)
    return replace(finding, says=says, shows=shows, remedy=remedy)
