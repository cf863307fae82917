"""Images made fit for a model or a phone: decoded, turned upright, made smaller, written anew.

That happens in a process of its own. A large image takes 300 MB, which the bridge would keep,
and what a stranger's file does to a decoder ends there.
"""

import asyncio
import json
import sys
from dataclasses import dataclass

from letta_matrix.common.json_fields import mapping

_TIMEOUT = 30.0
_TWO_AT_A_TIME = asyncio.Semaphore(2)
_WORKER = "letta_matrix.common.picture_worker"


class PictureFault(Exception):
    """An image cannot be used; the text completes "could not be read: ..." for a person."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or JPEG and its size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


async def prepare(data: bytes, most_side: int, most_bytes: int = 0) -> Picture:
    """The first frame of a PNG, JPEG, GIF or WebP, no side above `most_side` pixels, upright and
    without metadata; no more than `most_bytes` of it, unless that is 0. Takes a second at most
    for what people send. Raises PictureFault."""
    async with _TWO_AT_A_TIME:
        head, _, made = (await _work(data, most_side, most_bytes)).partition(b"\n")
    try:
        told = mapping(json.loads(head))
    except ValueError:
        told = {"fault": "its decoder gave up"}
    if "fault" in told:
        raise PictureFault(str(told["fault"]))
    return Picture(made, str(told["media_type"]), int(told["width"]), int(told["height"]))


async def _work(data: bytes, *most: int) -> bytes:
    # Nothing of our environment: there are secrets in it.
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _WORKER, *map(str, most)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            answer, _ = await worker.communicate(data)
    except TimeoutError:
        raise PictureFault("decoding it takes too long") from None
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    return answer
