"""The account of the human whom the embedded stack was made for."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.cli.faults import Failure
from letta_matrix.common.program import starting


def human_of(state: Mapping[str, Any]) -> tuple[str, str]:
    """The user id and the password in the contents of `stack.json`.

    Raises:
        Failure: the password is not known any more.
    """
    human = state["users"]["admin"]
    if "password" not in human:
        raise Failure(
            f"the password of {human['user_id']} was changed: write the new one into "
            f"admin.password in the data folder, then start `{starting()}` again"
        )
    return human["user_id"], human["password"]
