"""Media of the homeserver's content repository, read as one of our users."""

import asyncio
import re

from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.errors import is_misrouted
from letta_matrix.matrix.requests import BodyTooLarge, HomeserverUnavailable, Requests
from letta_matrix.matrix.spec_versions import is_older

_ELSEWHERE = 20.0
"""Seconds; homeservers ask another one for minutes."""
_SINCE_1_11, _BEFORE = "_matrix/client/v1/media/download", "_matrix/media/v3/download"
_FLAGS = ("org.matrix.msc3916", "org.matrix.msc3916.stable")
"""What homeservers called authenticated media before that version."""
_MXC = re.compile(
    r"mxc://(?P<server>(?:[A-Za-z0-9][A-Za-z0-9.-]{0,229}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?)"
    r"/(?P<media_id>[A-Za-z0-9_-]{1,255})"
)


class MediaFault(Exception):
    """A file could not be fetched; the text completes "could not be read: ..." for a person."""


class NoMediaAddress(MediaFault):
    """Where it is said to be is no place of Matrix."""


class MediaUnknown(MediaFault):
    """There is no such file."""


class MediaTooLarge(MediaFault):
    """The file has more bytes than were to be read."""


class MediaAway(MediaFault):
    """The homeserver does not give out the file now; later it may."""


def download_path(mxc: str) -> str:
    """Where the homeserver has what is behind an `mxc://` URI (spec v1.11). Raises
    NoMediaAddress."""
    match = _MXC.fullmatch(mxc)
    if match is None:
        raise NoMediaAddress("its address is not one of Matrix")
    return f"{_SINCE_1_11}/{match['server']}/{match['media_id']}"


async def download(
    homeserver: Requests, user_id: str, mxc: str, most: int, *, cut: bool = False
) -> bytes:
    """The bytes behind an `mxc://` URI, fetched as `user_id`; from a homeserver without
    authenticated media (spec before v1.11) as anybody gets them.

    More than `most` bytes are not read: with `cut` the first `most` of them are the answer.
    Raises MediaFault.
    """
    path, server = download_path(mxc), mxc.removeprefix("mxc://").partition("/")[0]
    away = None if server == user_id.partition(":")[2] else _ELSEWHERE
    try:
        async with asyncio.timeout(away):
            try:
                return await homeserver.read(path, user_id, most, cut=cut)
            except MatrixRequestError as error:
                if not is_misrouted(error) or not await is_older(homeserver, "v1.11", _FLAGS):
                    raise
                before = path.replace(_SINCE_1_11, _BEFORE)
                return await homeserver.read(before, user_id, most, cut=cut)
    except TimeoutError:
        raise MediaAway(f"{server}, where it is, did not answer within {away:g} s") from None
    except BodyTooLarge:
        raise MediaTooLarge(f"it is larger than {human_size(most)}") from None
    except HomeserverUnavailable:
        raise MediaAway("the homeserver does not give it out now") from None
    except MatrixRequestError as error:
        if error.errcode == "M_NOT_FOUND":
            raise MediaUnknown("the homeserver does not have it") from None
        why = error.errcode or error.http_status
        raise MediaFault(f"the homeserver refused it ({why})") from None


def human_size(size: int) -> str:
    """Bytes for a person: `812 B`, `12 kB`, `1.2 MB`."""
    if size < 1000:
        return f"{size} B"
    amount, unit = (size / 1000, "kB") if size < 999_500 else (size / 1_000_000, "MB")
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
