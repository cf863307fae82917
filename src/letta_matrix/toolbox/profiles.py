"""The tool that tells who a user is."""

from typing import NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.toolbox.agent_tools import known_to
from letta_matrix.toolbox.results import UNTRUSTED, cut
from letta_matrix.toolbox.tool import Caller, Params, Result, UserRef, tool

_NAME = 200
_ADDRESS = 500


class GetProfile(Params):
    user_id: UserRef = Field(description="the user (@name:server)")


class Profile(TypedDict):
    """Who a user is; `agent_id` if it is an agent that the caller may know of."""

    user_id: str
    untrusted: str
    name: NotRequired[str]
    avatar: NotRequired[str]
    agent_id: NotRequired[str]


class Profiles:
    """The tool; `directory` tells agents."""

    def __init__(self, directory: AgentDirectory) -> None:
        self._directory = directory

    @tool("matrix_get_profile", "Get a profile", Scope.READ, Profile, read_only=True)
    async def get_profile(self, caller: Caller, params: GetProfile) -> Result:
        """Tell a Matrix user's display name and avatar, and whether it is an agent."""
        try:
            told = await caller.intent.profile(params.user_id)
        except MatrixRequestError as error:
            if error.http_status != 404:
                raise
            raise ToolError(f"There is no user {params.user_id}.", Fault.NOT_FOUND) from error
        profile: dict[str, object] = {"user_id": params.user_id, **UNTRUSTED}
        name, avatar = told.get("displayname"), told.get("avatar_url")
        profile |= {"name": cut(clean_text(name), _NAME)} if isinstance(name, str) else {}
        profile |= {"avatar": cut(avatar, _ADDRESS)} if isinstance(avatar, str) else {}
        known = known_to(caller, self._directory)
        found = [one.agent_id for one in known if one.user_id == params.user_id]
        return profile | ({"agent_id": found[0]} if found else {})
