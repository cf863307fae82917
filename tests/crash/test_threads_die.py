"""SIGKILL while two threads of one room are answered at once."""

import asyncio

from tests.crash.bridges import Bridges, Room
from tests.crash.checks import Words, assert_answered_once, assert_goes_on
from tests.waiting import eventually


async def test_two_threads_in_full_stream(bridges: Bridges) -> None:
    words = [Words.slow(25), Words.slow(30)]
    await bridges.start()
    main = await bridges.new_room()
    opening = [Words.quick(), Words.quick()]
    roots = [await bridges.person.send(main.room_id, said.text) for said in opening]
    await assert_answered_once(bridges, main, *zip(roots, opening, strict=True))
    threads = [main.thread(root) for root in roots]
    sent = [
        await bridges.person.send(thread.room_id, said.text, thread.thread_id)
        for thread, said in zip(threads, words, strict=True)
    ]

    async def both_grow() -> bool:
        replies = [await bridges.replies(thread) for thread in threads]
        return all(said and said[-1].edits for said in replies)

    await eventually(both_grow, what="both replies grow")
    await bridges.kill()
    cut_short = [reply for thread in threads for reply in await bridges.replies(thread)]
    assert [reply.live for reply in cut_short] == [True, True]

    await bridges.start()

    async def ends(thread: Room, event_id: str, said: Words) -> None:
        await assert_goes_on(bridges, thread, (event_id, said))

    await asyncio.gather(*map(ends, threads, sent, words))
    await assert_goes_on(bridges, main, *zip(roots, opening, strict=True))
    conversations = bridges.rows(
        "SELECT DISTINCT conversation_id FROM turns WHERE room_id = ?", main.room_id
    )
    assert len(conversations) == 3
