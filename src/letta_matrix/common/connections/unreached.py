"""Why a server is not reached, in words for people.

What aiohttp, httpx and asyncio say repeats addresses, numbers of errors and names of classes, and
each says it in another way.
"""

import errno
import re
import socket
import ssl
from typing import cast

_LONGEST = 300
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_CALLED = re.compile(r"Connect call failed \('([^']+)', (\d+)")
_AWAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_BROKEN = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN}
_USER_INFO = re.compile(r"//[^/\s]*@")
_LATE = re.compile(r"timeout|timed out", re.IGNORECASE)
_ENDED = re.compile(
    r"disconnected|closed connection|connection closed|not completed|incomplete|bytes read on a",
    re.IGNORECASE,
)


def why_unreached(error: BaseException) -> str:
    """Why there is no connection, or no answer on one: what stands behind "cannot be reached: ".

    Known are aiohttp's, httpx's and the system's errors, also as causes of others; of one that is
    not known it is what it says, without the user and the password that a URL in it has.
    """
    faults = _faults(error)
    place = _place(faults)
    for fault in faults:
        if said := _told(fault, place):
            return said
    texts = [text for fault in faults if (text := " ".join(str(fault).split()))]
    if not texts or any(_LATE.search(type(fault).__name__) for fault in faults):
        return "no answer came in time"
    is_broken = any(_ENDED.search(text) for text in texts)
    return "the connection broke off" if is_broken else _USER_INFO.sub("//", texts[0])[:_LONGEST]


def _faults(error: BaseException) -> list[BaseException]:
    """An error and what it comes from, the outermost first; of several tries the first."""
    found = list[BaseException]()
    fault: BaseException | None = error
    while fault is not None and fault not in found:
        found.append(fault)
        fault = _cause(fault)
    return found


def _cause(fault: BaseException) -> BaseException | None:
    if isinstance(fault, BaseExceptionGroup):
        return cast("tuple[BaseException]", fault.exceptions)[0]
    # httpcore's are made of what they come from, and raised from nothing.
    known: tuple[object, ...] = (fault.__cause__, getattr(fault, "os_error", None), *fault.args)
    for cause in known:
        if isinstance(cause, BaseException):
            return cause
    # What was raised as another was handled is about that one only where it says nothing itself.
    return None if fault.__suppress_context__ or str(fault) else fault.__context__


def _place(faults: list[BaseException]) -> str:
    """The address that was called, as far as it is told."""
    for fault in faults:
        host, port = getattr(fault, "host", None), getattr(fault, "port", None)
        if isinstance(host, str) and isinstance(port, int):
            return _address(host, port)
    for fault in faults:
        if called := _CALLED.search(str(fault)):
            return _address(called[1], int(called[2]))
    return ""


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _told(fault: BaseException, place: str) -> str:
    if isinstance(fault, ssl.SSLError):
        return _of_tls(fault)
    if isinstance(fault, socket.gaierror):
        host = place.rpartition(":")[0]
        return f"nobody knows the name {host}" if host else "nobody knows its name"
    if isinstance(fault, TimeoutError):
        return "no answer came in time"
    return _of_system(fault, place) if isinstance(fault, OSError) else ""


def _of_tls(fault: ssl.SSLError) -> str:
    # aiohttp's own are of these classes too, and know less than what they come from.
    if said := getattr(fault, "verify_message", ""):
        return f"its certificate is not accepted: {said}"
    reason = getattr(fault, "reason", "")
    said = f" ({reason.replace('_', ' ').lower()})" if reason else ""
    return f"TLS is not spoken there as it has to be{said}" if said else ""


def _of_system(fault: OSError, place: str) -> str:
    # Of several addresses a text alone lists what was tried.
    numbers = {*([fault.errno] if fault.errno else []), *map(int, _ERRNO.findall(str(fault)))}
    if errno.ECONNREFUSED in numbers:
        return f"nothing listens at {place}" if place else "nothing listens there"
    if numbers & _BROKEN:
        return "the connection broke off"
    if numbers & _AWAY:
        return f"no way leads to {place}" if place else "no way leads there"
    if errno.ETIMEDOUT in numbers:
        return "no answer came in time"
    return ""
