"""What an adapter raises: every way in which a runtime fails us, by what can be done about it."""

import re

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class RuntimeFault(Exception):
    """Base of everything an adapter raises; the text is one line an operator can act on."""


class RuntimeUnavailable(RuntimeFault):
    """The runtime cannot be reached now; trying again later can help."""


class RuntimeBusy(RuntimeUnavailable):
    """Something else runs in the conversation; the message was not taken."""


class RateLimited(RuntimeUnavailable):
    """Too many requests; the message was not taken. `retry_after` is in seconds, 0 if unknown."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RuntimeRefused(RuntimeFault):
    """The runtime understood and said no (unknown agent, bad request)."""


class CredentialsRefused(RuntimeRefused):
    """The runtime does not accept our key or token; the operator has to give a new one."""


class AgentGone(RuntimeRefused):
    """The runtime no longer has the agent."""


class ConversationGone(RuntimeRefused):
    """The runtime no longer has the conversation; a new one may be made."""


class TurnLost(RuntimeFault):
    """The runtime took the message and can no longer say what became of it.

    `tools_started` tells whether a tool may have run; without one the turn may
    be asked again once (DESIGN section 4), in `fresh_conversation` if that is set
    (the old one is wedged and was forked).
    """

    def __init__(
        self, reason: str, *, tools_started: bool, fresh_conversation: str | None = None
    ) -> None:
        super().__init__(reason)
        self.tools_started = tools_started
        self.fresh_conversation = fresh_conversation


def fault_of(error: Exception) -> str:
    """The kind of a fault in words, such as `conversation_gone`; "" for what is none."""
    return (
        _CAPITAL.sub("_", type(error).__name__).lower() if isinstance(error, RuntimeFault) else ""
    )
