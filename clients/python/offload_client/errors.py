"""What goes wrong, one class for each kind of the wire contract, and those that only a client has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional, Type

if TYPE_CHECKING:
    from .answer import Answer


class Error(Exception):
    """A request that has not run to its end. `str()` is `<kind>: <message>`."""

    kind = "internal"

    def __init__(self, message: str, answer: Optional[Answer] = None) -> None:
        super().__init__(message)
        self.message = message
        # What the gateway answered; None where this client has found the error.
        self.answer = answer

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Malformed(Error):
    """The request or an option is wrong; the message names the field."""

    kind = "malformed"


class Unauthorized(Error):
    """The broker does not let this client in, or the gateway does not permit this use."""

    kind = "unauthorized"


class NotFound(Error):
    """No such program, digest or file."""

    kind = "not-found"


class TooLarge(Error):
    """A part of the request is over a limit, of the gateway or of the broker."""

    kind = "too-large"


class Busy(Error):
    """Queue or quota full, nothing was run; the message says after how long to try again."""

    kind = "busy"


class Expired(Error):
    """The request's time ran out before it was started."""

    kind = "expired"


class Timeout(Error):
    """The time of the running request ran out."""

    kind = "timeout"


class NoAnswer(Timeout):
    """No answer has come in time; the gateway may still be running the request."""


class Build(Error):
    """The compiler or make failed; the message has what it said."""

    kind = "build"


class Compile(Error):
    """The module is valid but cannot be compiled within the gateway's limits."""

    kind = "compile"


class Exit(Error):
    """The default program exited with another code than 0 and printed nothing; `Answer.check` raises it too."""

    kind = "exit"


class Trap(Error):
    """The program trapped; the message says why and where."""

    kind = "trap"


class Fuel(Error):
    """The program used up its fuel."""

    kind = "fuel"


class Memory(Error):
    """The program used more memory than it may."""

    kind = "memory"


class Output(Error):
    """The program printed more than it may."""

    kind = "output"


class Internal(Error):
    """The gateway's fault, or an answer that cannot be understood."""


class Cancelled(Error):
    """The request was cancelled."""

    kind = "cancelled"


class Unreachable(Error):
    """The site that the request is for is not there."""

    kind = "unreachable"


class ConnectionFailed(Error):
    """There is no connection and none can be made, or no gateway at this broker."""

    kind = "connection"


_BY_KIND: Dict[str, Type[Error]] = {
    error.kind: error
    for error in (
        Malformed,
        Unauthorized,
        NotFound,
        TooLarge,
        Busy,
        Expired,
        Timeout,
        Build,
        Compile,
        Exit,
        Trap,
        Fuel,
        Memory,
        Output,
        Internal,
        Cancelled,
        Unreachable,
    )
}


def of_kind(kind: str, message: str, answer: Optional[Answer] = None) -> Error:
    """The error of a kind of the contract; a kind that this version does not know keeps its name."""
    error = _BY_KIND.get(kind, Error)(message, answer)
    error.kind = kind
    return error
