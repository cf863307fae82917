"""What has to be known of a turn to follow it again."""

from dataclasses import dataclass, field

from letta_matrix.common.json_fields import as_texts
from letta_matrix.runtimes.protocol import SaveTurnState, TurnState


@dataclass(slots=True)
class Trail:
    """A turn's `place` in the keeper's stream, saved, with the calls in it that wait for an
    approval. `unanswered` are those asked for in this process, less those answered."""

    save: SaveTurnState
    place: TurnState
    unanswered: set[str] = field(default_factory=set[str])

    async def remember(self, place: TurnState) -> None:
        """Save where it begins; what waits in it still does."""
        waiting = self.place.get("waiting")
        place = {**place, "waiting": waiting} if waiting else place
        await self.save(place)
        self.place = place

    async def note(self, approval_id: str, *, waits: bool) -> None:
        """Save that a call waits for its approval, or no longer does."""
        waiting = set(as_texts(self.place.get("waiting")))
        now = waiting | {approval_id} if waits else waiting - {approval_id}
        if now != waiting:
            self.place = {**self.place, "waiting": sorted(now)}
            await self.save(self.place)
