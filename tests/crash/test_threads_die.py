"""SIGKILL while two threads of one room are answered at once."""

import asyncio

from tests.crash.bridges import Bridges, Room
from tests.crash.checks import Words, assert_answered_once, assert_goes_on, growth


async def test_two_threads_in_full_stream(bridges: Bridges) -> None:
    words = [Words.held(), Words.held()]
    await bridges.start()
    main = await bridges.new_room()
    opening = [Words.quick(), Words.quick()]
    roots = [await bridges.say(main, said.text) for said in opening]
    await assert_answered_once(bridges, main, *zip(roots, opening, strict=True))
    threads = [main.thread(root) for root in roots]
    sent = [
        await bridges.say(thread, said.text) for thread, said in zip(threads, words, strict=True)
    ]

    for thread, said in zip(threads, words, strict=True):
        await growth(bridges, thread, said)
    await bridges.kill()
    cut_short = [reply for thread in threads for reply in await bridges.replies(thread)]
    assert [reply.live for reply in cut_short] == [True, True]

    await bridges.start()
    for said in words:
        bridges.steps.finish(said.text)

    async def ends(thread: Room, event_id: str, said: Words) -> None:
        await assert_goes_on(bridges, thread, (event_id, said))

    await asyncio.gather(*map(ends, threads, sent, words))
    await assert_goes_on(bridges, main, *zip(roots, opening, strict=True))
    conversations = bridges.rows(
        "SELECT DISTINCT conversation_id FROM turns WHERE room_id = ?", main.room_id
    )
    assert len(conversations) == 3
