"""What the bridge watches of its parts, and what an operator can do about it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from letta_matrix.app.seat import SILENT
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.vitals import Trouble, said
from letta_matrix.matrix.server_clock import ServerClock
from letta_matrix.operations.sms import unnumbered, unread
from letta_matrix.store.agents import ENCRYPTED, Agent, AgentStatus
from letta_matrix.store.leases import Replica

if TYPE_CHECKING:
    from letta_matrix.app.assembly import App

_NAMED = 3
NO_RUNTIMES = Trouble(
    "no runtime is configured, so there are no agents",
    "add one under `runtimes` in config.yaml (docs/how-to/runtimes.md), or set LETTA_API_URL, and "
    "start the bridge again",
)
NO_PING = Trouble(
    "the homeserver has no ping (Matrix 1.7), so that the bridge cannot ask whether it is reached: "
    "it sees that by what comes back, a minute or two later",
    "nothing, or upgrade it; docs/how-to/other-homeservers.md tells what else it lacks",
    warns=True,
)


def watch_parts(app: "App", connections: list[Connections]) -> None:
    """Let the vitals ask the parts that know how they are."""
    vitals, home = app.vitals, app.home
    vitals.watch("homeserver address", lambda: said(app.homeserver.trouble))
    vitals.watch("requests", lambda: _stuck(app.homeserver.retries.stuck))
    vitals.watch("database", lambda: app.stores.trouble)
    if (seat := app.seat) is not None:
        vitals.watch("replicas", lambda: seat.trouble or cut_off(seat.replicas))
    vitals.watch("missed messages", lambda: said(app.catch_up.trouble))
    vitals.watch("what is remembered", lambda: said(app.losses.trouble))
    vitals.watch("space", lambda: said(home.trouble))
    vitals.watch("clock", lambda: clock_trouble(app.homeserver.clock))
    vitals.watch("runtimes", lambda: None if app.runtimes else NO_RUNTIMES)
    vitals.watch("models", lambda: _models(app))
    vitals.watch("encryption", lambda: encryption(app.stores.directory.all()))
    accounts = home.accounts
    vitals.watch("accounts", lambda: other_accounts(accounts.troubles) or accounts.doubt)
    decoration = home.decoration
    vitals.watch("signed in", lambda: said("; ".join(decoration.strangers)))
    vitals.watch("decoration", lambda: said("; ".join(decoration.troubles), warns=True))
    vitals.watch("agents", lambda: _agents(len(app.provisioner.trouble)))
    vitals.watch("portals", lambda: _portals(list(app.stores.portals.contested())))
    vitals.watch("texts", lambda: app.undelivered.trouble)
    if (line := app.phone_line.watch) is not None:
        vitals.watch("phone line", lambda: line.trouble)
    vitals.watch("numbers", lambda: _numbers(len(unnumbered(app.portals))))
    vitals.watch("encrypted portals", lambda: _unread(len(unread(app.portals))))
    vitals.watch("turns", lambda: said(app.dispatcher.queues.trouble))
    vitals.watch("connections", lambda: _connections(connections))


def cut_off(replicas: Sequence[Replica]) -> Trouble | None:
    """That some could not do much in the place of the one that acts."""
    hosts = [one.host for one in replicas if one.reaches is False and one.state != SILENT]
    if not hosts:
        return None
    return Trouble(
        "a replica that stands by does not reach the homeserver, or is not let in there, so that "
        "it is of no use",
        "see what is in between, and whether its homeserver and appservice sections are as "
        "elsewhere",
        some_of(hosts),
        warns=True,
    )


def _stuck(requests: int) -> Trouble | None:
    if not requests:
        return None
    return Trouble(
        f"{requests} requests to the homeserver have failed for 30 s or longer",
        "they are tried again; the bridge's log says which, and why they fail",
    )


def _models(app: "App") -> Trouble | None:
    failing = app.turn_runner.models.failing
    if not failing:
        return None
    agents = [app.stores.directory.get(agent_id) for agent_id in failing]
    names = some_of([agent.name for agent in agents if agent is not None])
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
        some_of(unread),
    )


def _portals(contested: list[str]) -> Trouble | None:
    if not contested:
        return None
    return Trouble(
        "several users of a bridge claim one identifier, so that it routes none of them",
        "`!portal routes` says which; give the right one a route by its user id",
        some_of(contested),
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


def _unread(talks: int) -> Trouble | None:
    if not talks:
        return None
    return Trouble(
        f"encrypted by their bridges, so that nobody is heard there: {talks} talks on other "
        "networks",
        "turn `encryption` off in the bridge's own config.yaml (`allow` and `default`), restart "
        "it, and let it make those rooms anew: mautrix bridges do after `delete-portal` in each",
    )


def other_accounts(found: list[str]) -> Trouble | None:
    """Whose accounts have user ids of the bridge's."""
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


def some_of(names: list[str]) -> str:
    """Some of several names, and how many others there are."""
    shown, others = names[:_NAMED], len(names) - _NAMED
    return ", ".join(shown) + (f" and {others} others" if others > 0 else "")


def clock_trouble(clock: ServerClock) -> Trouble | None:
    """How far this machine's clock is from the homeserver's, if that matters."""
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
