"""Notices that the homeserver went away and came back, without polling it.

A restarted Synapse hands out what it had not delivered only at the next event of
interest (FACTS 2), so somebody has to notice the restart and wake it.
"""

import asyncio
import contextlib
import time

from yarl import URL

from letta_matrix.matrix.homeserver import Homeserver

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_LONG_LIVED = 5.0


async def homeserver_returned(homeserver: Homeserver) -> None:
    """Return once the homeserver has been away and accepts connections again.

    An idle connection shows at once that a homeserver died; behind a reverse proxy it does not,
    and our own failed requests (`Homeserver.outage`) tell instead.
    """
    holding = asyncio.create_task(_until_refused(URL(homeserver.url)))
    failing = asyncio.create_task(homeserver.outage.wait())
    try:
        await asyncio.wait({holding, failing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (holding, failing):
            task.cancel()
        await asyncio.gather(holding, failing, return_exceptions=True)
    homeserver.outage.clear()
    await _until_accepted(URL(homeserver.url))


async def _until_refused(url: URL) -> None:
    pause = _FIRST_PAUSE
    while True:
        started = time.monotonic()
        try:
            await _hold(url)
        except OSError:
            return
        # Idle connections are closed now and then; a server that does so at once gets fewer.
        short = time.monotonic() - started < _LONG_LIVED
        pause = min(pause * 2, _LONGEST_PAUSE) if short else _FIRST_PAUSE
        await asyncio.sleep(pause if short else 0)


async def _hold(url: URL) -> None:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        with contextlib.suppress(ConnectionResetError):
            await reader.read(1)
    finally:
        writer.close()


async def _until_accepted(url: URL) -> None:
    pause = _FIRST_PAUSE
    while True:
        try:
            _, writer = await asyncio.open_connection(url.host, url.port)
        except OSError:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE / 10)
        else:
            writer.close()
            return
