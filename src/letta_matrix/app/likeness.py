"""Whether a replica is as its database and the other replicas there are, so that it may act."""

import math
from collections.abc import Collection, Mapping

import structlog

from letta_matrix.app.common_settings import differing
from letta_matrix.common.vitals import Trouble
from letta_matrix.store.database import HEAD
from letta_matrix.store.faults import newer_schema
from letta_matrix.store.leases import FORGOTTEN, Beat, Replica

log = structlog.get_logger()

_WAITS = Trouble(
    "the database is as replicas of an earlier version know it, so that this one does not act",
    "end those, or let `letta-matrix run --migrate` change it under them: they stand by then",
)


class Likeness:
    """Of a replica of the homeserver `domain` that goes by `settings`, from look to look."""

    def __init__(self, domain: str, settings: Mapping[str, str]) -> None:
        self._domain = domain
        self._settings = settings
        self._others_seen_at = -math.inf
        self.is_foreign = False
        """Whether the agents live on another homeserver, and other replicas are of that."""
        self.differs: list[str] = []
        """The sections of the configuration that the replica that acts has otherwise."""

    def misfit(
        self, beat: Beat, others: Collection[Replica], at: float, *, acts: bool, alone: bool
    ) -> Trouble | None:
        """Why it is not to act on this database, if it is not: by a look that began `at` (by
        `since_boot`) and has found the `others` that were heard of lately; `acts`: it does so
        now, `alone`: none of them is there by now."""
        seen_at = (at - one.seen for one in others)
        self._others_seen_at = max(self._others_seen_at, *seen_at, -math.inf)
        if beat.schema > HEAD:
            return newer_schema(beat.schema, HEAD).trouble
        if beat.schema < HEAD and not alone:
            return _WAITS
        # As long as of those that were killed, also where they end by themselves: they may be away
        # for a moment, one after the other.
        is_known = at - self._others_seen_at < FORGOTTEN
        self.is_foreign = beat.domain not in ("", self._domain) and not acts and is_known
        return _foreign(beat.domain, self._domain) if self.is_foreign else None

    def compare(self, settings: Mapping[str, str], *, acts: bool) -> None:
        """Look what is not as in the `settings` of the one that acts, unless this one `acts`."""
        sections = [] if acts else differing(self._settings, settings)
        if sections and sections != self.differs:
            told = ", ".join(sections)
            log.warning("the replica that acts has other settings than this one", sections=told)
        self.differs = sections


def _foreign(domain: str, ours: str) -> Trouble:
    return Trouble(
        f"the agents in the database live on {domain}, and homeserver.domain of this replica is "
        f"{ours}, so that it does not act",
        "give each replica the same config.yaml; where the homeserver has another name from now "
        "on, end all of them (one that was killed counts for an hour), and then start the first "
        "one with it",
    )
