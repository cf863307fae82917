"""What is watched tells whoever asks what is wrong, and only admins whom it concerns."""

import re
from pathlib import Path

import pytest
from tests.builders import agent, message
from tests.stage import Stage

from letta_matrix.app import watched
from letta_matrix.app.checks import cut_off, encryption, watch_parts
from letta_matrix.store.agents import ENCRYPTED, AgentStatus
from letta_matrix.store.leases import Replica


@pytest.mark.parametrize(
    ("encrypted", "count", "who"),
    [
        (1, "1 agent", "Agent 1"),
        (5, "5 agents", "Agent 1, Agent 2, Agent 3 and 2 others"),
    ],
)
def test_encrypted_rooms(encrypted: int, count: str, who: str) -> None:
    applied = {ENCRYPTED: True}
    agents = [agent(number, applied=applied) for number in range(1, encrypted + 1)]
    gone = agent(9, applied=applied, status=AgentStatus.REMOVED)
    trouble = encryption([*agents, agent(8), gone])
    assert trouble is not None
    assert trouble.says.endswith(f"the room of {count}")
    assert trouble.who == who
    assert encryption([agent(8), gone]) is None


def test_replicas_that_would_be_of_no_use() -> None:
    def replica(host: str, state: str, reaches: bool | None) -> Replica:
        return Replica(host, host, {}, "1", state, reaches=reaches)

    well = [replica("a", "active", None), replica("b", "standby", True)]
    gone = replica("c", "silent", False)
    assert cut_off([*well, gone]) is None
    trouble = cut_off([*well, gone, replica("d", "standby", False)])
    assert trouble is not None
    assert (trouble.warns, trouble.who) == (True, "d")


async def test_accounts_of_others(stage: Stage) -> None:
    vitals = stage.vitals
    watch_parts(stage.parts, [])
    assert vitals.of("accounts") is None
    stage.parts.home.accounts.heard(message(sender="@agent_bob:test"))
    trouble = vitals.of("accounts")
    assert trouble is not None
    assert trouble.who.startswith("@agent_bob:test writes to agents")
    assert "@agent_bob" not in str(trouble)


def test_every_check_says_what_it_watches() -> None:
    folder = Path(watched.__file__).parent
    told = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    assert set(re.findall(r'vitals\.watch\(\s*"([^"]+)"', told)) == set(watched.WATCHED)
    assert watched.watched_by("runtime local") == "the agents of this runtime can be listed"
    assert watched.watched_by("another") == ""
