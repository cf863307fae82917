"""What goes wrong when the REST API is called."""


class ClientError(Exception):
    """Base of what a client raises; the text is one line for a person."""


class Unreachable(ClientError):
    """Nothing answers, or what answers is no letta-matrix."""


class ApiError(ClientError):
    """The API said no, with a problem document (RFC 9457).

    `slug` is the end of its `type` and never changes, such as `not-found`; `status` is the HTTP
    status; `retry_after` is in seconds, None where another try would not help.
    """

    def __init__(self, status: int, slug: str, detail: str, retry_after: float | None) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.retry_after = retry_after
