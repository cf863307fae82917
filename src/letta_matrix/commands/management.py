"""Commands with which admins create, change and remove agents."""

import difflib
from collections import Counter

from letta_matrix.commands.command import CommandContext, CommandFault
from letta_matrix.commands.overview import active, room_link
from letta_matrix.commands.settings import current_model
from letta_matrix.commands.texts import counted, label, name_of
from letta_matrix.conversations.approval_text import named, short_key
from letta_matrix.conversations.verbatim import inline_code as code
from letta_matrix.conversations.verbatim import link
from letta_matrix.matrix.identifiers import room_alias
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.store.agents import Agent

_LONGEST_NAME = 100
_CANDIDATES = 10


async def create(context: CommandContext) -> str:
    """Create an agent in a runtime."""
    name = _checked_name(context)
    runtime = _runtime_for(context)
    made = await _made_before(context, runtime, name)
    if made is None:
        before = [info.agent_id for info in await runtime.list_agents()]
        await context.remember({"runtime": runtime.name, "before": before})
        made = await _made_now(context, runtime, name)
    await _noticed(context)
    alias = room_alias(made.agent_id, context.services.config.homeserver.domain)
    shown = link(label(made.name, made.agent_id), alias)
    where = f"{code(made.agent_id)}, runtime {code(runtime.name)}"
    return f"Created {shown} ({where}). Its room is there in a moment."


async def rename(context: CommandContext) -> str:
    """Give an agent another name."""
    name = _checked_name(context)
    agent = await _fixed(context)
    runtime = _manageable(context.runtime_of(agent))
    await runtime.rename_agent(agent.agent_id, name)
    await _noticed(context)
    return f"{code(agent.agent_id)} is called {code(name)} now."


async def remove(context: CommandContext) -> str:
    """Delete an agent, after asking."""
    if not context.arguments.flag("yes"):
        return _asked_first(context, _agent_meant(context))
    agent = await _fixed(context)
    runtime = _manageable(context.runtime_of(agent))
    await runtime.delete_agent(agent.agent_id)
    await _noticed(context)
    return f"Deleted {name_of(agent)} ({code(agent.agent_id)}) from {code(runtime.name)}."


async def sync(context: CommandContext) -> str:
    """List the agents of all runtimes now."""
    faults = await context.services.sync()
    if not faults:
        raise CommandFault("No runtime is looked after: add one to `runtimes`.")
    found = Counter(agent.runtime for agent in active(context))
    lines = ["Looked for agents:", ""]
    for name, fault in faults.items():
        seen = f"could not be listed: {code(fault, limit=300)}" if fault else "listed"
        lines.append(f"- {code(name)}: {counted(found[name], 'agent')}, {seen}")
    return "\n".join(lines)


async def show(context: CommandContext) -> str:
    """All about an agent."""
    agent, services = _agent_meant(context), context.services
    rooms = {agent.room_id or "", *services.rooms.rooms_of(agent.user_id)} - {""}
    had = [len(await services.conversations.all_in(agent.agent_id, room_id)) for room_id in rooms]
    waiting = await services.approvals.store.pending(agent_id=agent.agent_id)
    lines = [
        name_of(agent),
        "",
        f"- Id: {code(agent.agent_id)}",
        f"- Runtime: {code(agent.runtime)}",
        f"- User: {code(agent.user_id)}",
        f"- Room: {room_link(context, agent) if agent.room_id else 'not made yet'}",
        f"- Model: {await _model(context, agent)}",
        f"- Conversations: {sum(had)} in {counted(len(rooms), 'room')}",
        f"- Approvals that wait: {len(waiting)}",
    ]
    for one in await services.approvals.store.kept(agent.agent_id):
        back = code(f"!deny {short_key(one)}")
        lines.append(f"- Allowed for good: {named(one)} · {back} takes it back")
    if trouble := services.trouble_of(agent.agent_id):
        lines.append(f"- Trouble: {code(trouble, limit=300)}")
    return "\n".join(lines)


def find_agent(wanted: str, agents: list[Agent]) -> Agent:
    """The agent with this id, user id or name; capitals count only where it matters.

    Raises CommandFault, which names those that could be meant.
    """
    for fits in (
        [agent for agent in agents if wanted in (agent.agent_id, agent.user_id)],
        [agent for agent in agents if agent.name == wanted],
        [agent for agent in agents if agent.name.lower() == wanted.lower()],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise CommandFault(_ambiguous(wanted, fits))
    near = difflib.get_close_matches(wanted, [agent.name for agent in agents], n=1, cutoff=0.5)
    meant = f" Did you mean {code(near[0])}?" if near else ""
    raise CommandFault(f"There is no agent {code(wanted)}.{meant} `!agents` lists them.")


def _ambiguous(wanted: str, agents: list[Agent]) -> str:
    lines = [
        f"{len(agents)} agents are called {code(wanted)}; give the id of the one you mean:",
        "",
    ]
    lines += [
        f"- {code(one.agent_id, limit=255)} · {code(one.runtime)}" for one in agents[:_CANDIDATES]
    ]
    return "\n".join(lines)


def _agent_meant(context: CommandContext) -> Agent:
    wanted = context.arguments.text("AGENT")
    return find_agent(wanted, active(context)) if wanted else context.agent


async def _fixed(context: CommandContext) -> Agent:
    """The agent that is meant, which stays the same one through a crash and its own renaming."""
    known = context.remembered.get("agent")
    agent = context.services.directory.get(known) if isinstance(known, str) else None
    if agent is None:
        agent = _agent_meant(context)
        await context.remember({"agent": agent.agent_id})
    return agent


def _checked_name(context: CommandContext) -> str:
    name = " ".join(context.arguments.text("NAME").split())
    if not name:
        raise CommandFault("An agent's name cannot be empty: give it one.")
    if len(name) > _LONGEST_NAME:
        raise CommandFault(f"An agent's name may have {_LONGEST_NAME} characters at most.")
    return name


def _runtime_for(context: CommandContext) -> AgentRuntime:
    """Where an agent is to be created."""
    runtimes = context.services.runtimes
    wanted = context.arguments.text("runtime")
    if wanted:
        if (named := runtimes.get(wanted)) is None:
            have = ", ".join(code(name) for name in runtimes)
            raise CommandFault(f"There is no runtime {code(wanted)}, only {have or 'none at all'}.")
        return _manageable(named)
    able = [runtime for runtime in runtimes.values() if runtime.capabilities.manage]
    if not able:
        raise CommandFault(
            "No runtime lets me create agents: those made in one appear by themselves."
        )
    if len(able) > 1:
        choices = " or ".join(code(f"--runtime {runtime.name}") for runtime in able)
        raise CommandFault(f"Say where: {choices}.")
    return able[0]


def _manageable(runtime: AgentRuntime) -> AgentRuntime:
    if not runtime.capabilities.manage:
        raise CommandFault(
            f"The runtime {code(runtime.name)} does not let me create, rename or remove agents: do "
            "that there, and I follow."
        )
    return runtime


async def _made_now(context: CommandContext, runtime: AgentRuntime, name: str) -> AgentInfo:
    try:
        return await runtime.create_agent(name, model=context.arguments.text("model"))
    except RuntimeUnavailable as error:
        # Perhaps only its answer was lost.
        try:
            made = await _made_before(context, runtime, name)
        except RuntimeFault:
            raise CommandFault(
                f"Whether {code(name)} was created cannot be known now "
                f"({code(str(error), limit=300)}): `!agents` shows it once {code(runtime.name)} "
                "answers."
            ) from None
        if made is None:
            raise
        return made


async def _made_before(
    context: CommandContext, runtime: AgentRuntime, name: str
) -> AgentInfo | None:
    """The agent that the same command made before a crash."""
    before = context.remembered.get("before")
    if not isinstance(before, list):
        return None
    listing = await runtime.list_agents()
    return next((i for i in listing if i.name == name and i.agent_id not in before), None)


def _asked_first(context: CommandContext, agent: Agent) -> str:
    _manageable(context.runtime_of(agent))
    return (
        f"This deletes {name_of(agent)} from {code(agent.runtime)} with all it remembers, for "
        f"good. To do it: {code(f'!remove {agent.agent_id} --yes', limit=300)}"
    )


async def _noticed(context: CommandContext) -> None:
    """Let the bridge see the change at once; if it cannot now, its next listing will."""
    await context.services.sync()


async def _model(context: CommandContext, agent: Agent) -> str:
    try:
        return code(await current_model(context, agent) or "unknown")
    except (CommandFault, RuntimeFault) as error:
        return f"unknown ({code(str(error), limit=300)})"
