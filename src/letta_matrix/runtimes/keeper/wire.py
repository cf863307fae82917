"""Records between bridge and keeper, on a Unix socket or over TCP.

A record is a 4-byte big-endian length, a 1-byte kind and that many bytes:

| kind | from | bytes |
|---|---|---|
| `F` | keeper | sequence number (8), generation (4), the upstream frame's raw text |
| `S` | bridge | generation (4), raw text to send upstream |
| `B` | bridge | generation (4), raw text to send upstream on every connection |
| `A` | bridge | sequence number (8): frames up to it are no longer needed |
| `C` | both | a JSON object with a `type` |

The first one is the bridge's `attach`. Over TCP the keeper's `hello` comes before it, with a nonce
for `proofs`, and both send a `beat` now and then; a keeper that lets a bridge in no further says
why with `refused`.
"""

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from letta_matrix import __version__
from letta_matrix.common.json_fields import mapping, parse_json

PROTOCOL = 4
"""Of keeper and bridge; a bridge that finds another one in the keeper that it has started ends
that keeper."""
MAX_RECORD = 256 * 1024 * 1024
FRAME, SEND, BROADCAST, ACK, CONTROL = b"F", b"S", b"B", b"A", b"C"
_HEADER = struct.Struct(">Ic")
_FRAME = struct.Struct(">QI")
_GENERATION = struct.Struct(">I")
_SEQ = struct.Struct(">Q")


class Frame(NamedTuple):
    """An upstream frame: where it stands, which connection brought it, its raw text."""

    seq: int
    generation: int
    text: bytes


def pack(kind: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


def pack_frame(frame: Frame) -> bytes:
    size = _FRAME.size + len(frame.text)
    return _HEADER.pack(size, FRAME) + _FRAME.pack(frame.seq, frame.generation) + frame.text


def unpack_frame(payload: bytes) -> Frame:
    seq, generation = _FRAME.unpack_from(payload)
    return Frame(seq, generation, payload[_FRAME.size :])


def pack_send(generation: int, text: bytes, *, everywhere: bool) -> bytes:
    return pack(BROADCAST if everywhere else SEND, _GENERATION.pack(generation) + text)


def unpack_send(payload: bytes) -> tuple[int, bytes]:
    (generation,) = _GENERATION.unpack_from(payload)
    return generation, payload[_GENERATION.size :]


def pack_ack(seq: int) -> bytes:
    return pack(ACK, _SEQ.pack(seq))


def unpack_ack(payload: bytes) -> int:
    return cast("int", _SEQ.unpack(payload)[0])


def pack_control(message: Mapping[str, object]) -> bytes:
    return pack(CONTROL, json.dumps(message).encode())


def unpack_control(payload: bytes) -> dict[str, Any]:
    return mapping(parse_json(payload))


def versions() -> dict[str, object]:
    """What we are, for the other side."""
    return {"protocol": PROTOCOL, "version": __version__}


def refused(why: str, **more: object) -> bytes:
    """That a bridge is let in no further; `why` is `token`, `protocol` or `epoch`."""
    return pack_control({"type": "refused", "why": why, **versions(), **more})


async def read_record(reader: asyncio.StreamReader, most: int = MAX_RECORD) -> tuple[bytes, bytes]:
    """Kind and payload of the next record, of at most so many bytes.

    Raises:
        asyncio.IncompleteReadError: the other side went away.
        ValueError: the other side does not speak this protocol.
    """
    size, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if size > most:
        raise ValueError("a record longer than any the keeper protocol knows")
    return kind, await reader.readexactly(size)
