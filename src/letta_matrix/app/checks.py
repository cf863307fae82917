"""What the bridge watches of its parts, and what an operator can do about it."""

from collections.abc import Callable, Mapping

from letta_matrix.app.assembly import Parts
from letta_matrix.common import clock
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.vitals import Trouble, Vitals, said
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.server_clock import ServerClock
from letta_matrix.operations.sms import unnumbered
from letta_matrix.store.agents import ENCRYPTED, Agent, AgentStatus

AWAY = "the homeserver cannot be reached"

_CONNECTS_FOR = 3.0
"""Seconds after which somebody who asks is told that the homeserver is still waited for."""
_NAMED = 3
_NO_RUNTIMES = Trouble(
    "no runtime is configured, so there are no agents",
    "add one under `runtimes` in config.yaml (docs/how-to/runtimes.md), or set LETTA_API_URL, and "
    "start the bridge again",
)


def watch_parts(
    vitals: Vitals,
    parts: Parts,
    connections: list[Connections],
    provisioning: Callable[[], Mapping[str, str]],
) -> None:
    """Let `vitals` ask the parts that know how they are; `provisioning` tells why agents cannot
    be set up, by their ids."""
    vitals.watch("homeserver address", lambda: said(parts.homeserver.trouble))
    vitals.watch("requests", lambda: _stuck(parts.homeserver.retries.stuck))
    vitals.watch("database", lambda: parts.stores.trouble)
    vitals.watch("missed messages", lambda: said(parts.catch_up.trouble))
    vitals.watch("what is remembered", lambda: said(parts.losses.trouble))
    vitals.watch("space", lambda: said(parts.home.trouble))
    vitals.watch("clock", lambda: _clock(parts.homeserver.clock))
    vitals.watch("runtimes", lambda: None if parts.runtimes else _NO_RUNTIMES)
    vitals.watch("models", lambda: _models(parts))
    vitals.watch("encryption", lambda: encryption(parts.stores.directory.all()))
    vitals.watch("accounts", lambda: _accounts(parts.home.accounts.troubles))
    decoration = parts.home.decoration
    vitals.watch("signed in", lambda: said("; ".join(decoration.strangers)))
    vitals.watch("decoration", lambda: said("; ".join(decoration.troubles), warns=True))
    vitals.watch("agents", lambda: _agents(len(provisioning())))
    vitals.watch("portals", lambda: _portals(list(parts.stores.portals.contested())))
    vitals.watch("texts", lambda: parts.undelivered.trouble)
    vitals.watch("numbers", lambda: _numbers(len(unnumbered(parts.portals))))
    vitals.watch("turns", lambda: said(parts.dispatcher.queues.trouble))
    vitals.watch("connections", lambda: _connections(connections))


def waits_for(homeserver: Homeserver, away: str, since: float) -> Trouble | None:
    """Why there is no connection to the homeserver: what was found last (`away`, "" for nothing),
    or what is waited for `since` a moment (`clock.now`)."""
    if away == AWAY and homeserver.foreign:
        # Who answers in its place can be reached.
        return Trouble(homeserver.foreign)
    waited = clock.now() - since
    if away or waited < _CONNECTS_FOR:
        return said(away)
    request = homeserver.retries.longest
    return Trouble(
        f"the homeserver has not answered for {waited:.0f} s" + (request and f" ({request})"),
        "see whether it hangs, and whether homeserver.url leads to it; it is waited for",
    )


def _stuck(requests: int) -> Trouble | None:
    if not requests:
        return None
    return Trouble(
        f"{requests} requests to the homeserver have failed for 30 s or longer",
        "they are tried again; the bridge's log says which, and why they fail",
    )


def _models(parts: Parts) -> Trouble | None:
    failing = parts.turn_runner.models.failing
    if not failing:
        return None
    agents = [parts.stores.directory.get(agent_id) for agent_id in failing]
    names = _names([agent.name for agent in agents if agent is not None])
    return Trouble(
        f"the model of {_counted(len(failing))} does not answer",
        "see whether the model's server or provider is up, and what it says of the key; whoever "
        "asked was told",
        f"{names}: {[*failing.values()][-1]}",
    )


def encryption(agents: list[Agent]) -> Trouble | None:
    """Whose room cannot be read by its agent."""
    active = [one for one in agents if one.status is AgentStatus.ACTIVE]
    unread = [one.name for one in active if one.applied.get(ENCRYPTED)]
    if not unread:
        return None
    return Trouble(
        f"encrypted, so that the agents cannot read it: the room of {_counted(len(unread))}",
        "set `encryption_enabled_by_default_for_room_type: off` in Synapse's homeserver.yaml and "
        "restart it; a room that is encrypted stays so: stop the bridge, and give the agent "
        "another by `letta-matrix forget AGENT --new-room`",
        _names(unread),
    )


def _portals(contested: list[str]) -> Trouble | None:
    if not contested:
        return None
    return Trouble(
        "several users of a bridge claim one identifier, so that it routes none of them",
        "`!portal routes` says which; give the right one a route by its user id",
        _names(contested),
    )


def _numbers(talks: int) -> Trouble | None:
    if not talks:
        return None
    return Trouble(
        f"the phone's bridge tells nobody's number in {talks} talks, so that nobody is answered "
        "there",
        "set `bridge.phone_numbers_in_profile` and `matrix.ghost_extra_profile_info` in its "
        "config.yaml, as `letta-matrix sms bridge-config` says",
        warns=True,
    )


def _accounts(found: list[str]) -> Trouble | None:
    if not found:
        return None
    return Trouble(
        "somebody else has, or had, an account with a user id that belongs to the bridge",
        'the log says whose, and "Accounts that were there before" in '
        "docs/how-to/own-homeserver.md what to do",
        "; ".join(found),
    )


def _counted(agents: int) -> str:
    return f"{agents} agent{'s' if agents > 1 else ''}"


def _names(names: list[str]) -> str:
    """Some of the names, and how many others there are."""
    shown, others = names[:_NAMED], len(names) - _NAMED
    return ", ".join(shown) + (f" and {others} others" if others > 0 else "")


def _clock(clock: ServerClock) -> Trouble | None:
    if not clock.is_off:
        return None
    which = "ahead of" if clock.ahead > 0 else "behind"
    return Trouble(
        f"this machine's clock is {_span(abs(clock.ahead))} {which} the homeserver's",
        "set both by the network's time (timedatectl set-ntp true); meanwhile the bridge goes by "
        "the homeserver's, but tokens end and approvals lapse by its own",
    )


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _agents(count: int) -> Trouble | None:
    if not count:
        return None
    return Trouble(
        f"agents that cannot be set up: {count}",
        "it is tried again; why stands in the bridge's log and, for a token with the scope admin, "
        "in GET /api/v1/health",
    )


def _connections(connections: list[Connections]) -> Trouble | None:
    return said("; ".join(trouble for some in connections for trouble in some.troubles))
