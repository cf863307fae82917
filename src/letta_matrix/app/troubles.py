"""What is wrong with single agents, for operators."""

from collections.abc import Mapping

from letta_matrix.agents.provisioner import Provisioner
from letta_matrix.agents.remembered import Remembered
from letta_matrix.common.parts import part
from letta_matrix.conversations.voices import Voices


@part
class Troubles:
    """Why agents cannot be set up, are not in their rooms, or are mute there."""

    _provisioner: Provisioner
    _remembered: Remembered
    _voices: Voices

    def all(self) -> Mapping[str, str]:
        """By agent id."""
        # A room in which an agent is mute is its people's affair: the bridge works.
        return {
            **self._voices.troubles,
            **self._remembered.troubles,
            **self._provisioner.trouble,
        }

    def of(self, agent_id: str) -> str:
        """That of an agent, "" for none."""
        why = self._provisioner.trouble.get(agent_id) or self._remembered.troubles.get(agent_id)
        return why or self._voices.trouble_of(agent_id)
