"""Hand work to an offload-rt gateway: connect, send a request, get its answer.

    with Gateway("mqtt://gateway.local") as gateway:
        print(gateway.run("add", ["5", "7"]).text)
        print(gateway.offload("prog.wasm", ["5", "7"], stdin=b"...").text)

`Gateway` blocks, `AsyncGateway` is for asyncio. A request is known by its id, made up where the caller gives none: it
is sent again after a lost connection, and when no answer has come for a while, and is run once all the same.
"""

from .aio import AsyncGateway
from .answer import Answer
from .errors import (
    Build,
    Busy,
    Cancelled,
    Compile,
    ConnectionFailed,
    Error,
    Exit,
    Expired,
    Fuel,
    Internal,
    Malformed,
    Memory,
    NoAnswer,
    NotFound,
    Output,
    Timeout,
    TooLarge,
    Trap,
    Unauthorized,
    Unreachable,
)
from .gateway import Gateway
from .options import Options, Tls
from .request import Cancel, DefaultProgram, Digest, Files, Module, Program, Request, Source

__all__ = [
    "Answer",
    "AsyncGateway",
    "Build",
    "Busy",
    "Cancel",
    "Cancelled",
    "Compile",
    "ConnectionFailed",
    "DefaultProgram",
    "Digest",
    "Error",
    "Exit",
    "Expired",
    "Files",
    "Fuel",
    "Gateway",
    "Internal",
    "Malformed",
    "Memory",
    "Module",
    "NoAnswer",
    "NotFound",
    "Options",
    "Output",
    "Program",
    "Request",
    "Source",
    "Timeout",
    "Tls",
    "TooLarge",
    "Trap",
    "Unauthorized",
    "Unreachable",
]
