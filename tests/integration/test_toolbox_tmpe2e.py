import asyncio, json
from tests.integration.bridge_world import *
from letta_matrix.runtimes.memory import MemoryRuntime, echo
from letta_matrix.runtimes.protocol import *

async def test_e2e(homeserver, tmp_path):
    ann = await new_person(homeserver)
    runtime = MemoryRuntime()
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada, bob = await world.meet(new_agent("Ada")), await world.meet(new_agent("Bob"))
        await ann.send(ada.room_id, "hello")
        print(await ann.answers(ada, 1))
        conv = runtime.asked[-1].conversation_id
        r = await runtime.call_tool(ada.agent.agent_id, conv, "message_agent", {"agent": "Bob", "message": "are you there?", "wait_seconds": 10})
        print(r)
        assert json.loads(r.text)["answer"]
        task = asyncio.create_task(runtime.call_tool(ada.agent.agent_id, conv, "ask_human", {"question": "Tea?", "options": ["a", "b"], "timeout_seconds": 10}))
        async def q():
            return [e for e in await ann.timeline(ada.room_id) if e["content"].get("org.letta.matrix", {}).get("tool")]
        (e,) = await eventually(q, bool)
        await ann.send_content(ada.room_id, {"m.relates_to": {"rel_type": "m.annotation", "event_id": e["event_id"], "key": "2️⃣"}}, "m.reaction")
        r = await task
        print(r)
        assert json.loads(r.text)["option"] == 2
        await asyncio.sleep(1)
        print(await ann.bodies(bob.room_id, bob.ghost), await ann.bodies(bob.room_id, ada.ghost), await ann.bodies(ada.room_id, ada.ghost))
        print([ (e["type"], e["sender"], e["content"].get("m.relates_to")) for e in await ann.timeline(bob.room_id)][-4:])
