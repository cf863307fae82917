"""Work in the background ends quietly where another replica has taken over."""

from types import SimpleNamespace
from typing import Any

from letta_matrix.conversations.surroundings import Surroundings
from letta_matrix.operations.toolbox.asking import AskHuman, _Asked
from letta_matrix.operations.toolbox.questions import Question
from letta_matrix.store.faults import LeaseLost


async def lost(*_: object, **__: object) -> Any:
    raise LeaseLost


def txn(*_: object) -> str:
    return "txn"


async def test_a_question_is_closed() -> None:
    caller: Any = SimpleNamespace(agent_id="", intent=SimpleNamespace(send=lost), txn=txn)
    params = AskHuman.model_validate({"question": "Really?"})
    await _Asked(caller, Question("$question", "!room:test"), params).close(None)


async def test_a_room_is_looked_at() -> None:
    parts: Any = SimpleNamespace(_looking={"!room:test": True}, look=lost)
    await Surroundings._look_again(parts, "!room:test")
    assert parts._looking == {}
