"""The blocking face."""

from __future__ import annotations

import os
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Optional, Sequence, Type, Union

from .answer import Answer
from .connection import Connection
from .options import Options
from .request import Cancel, Program, Request, code_of


class Gateway:
    """A connection to a gateway, by a URL or `Options`. Any number of threads may use it.

    The constructor connects and subscribes; it raises `ConnectionFailed` or `Unauthorized` where that does not succeed
    at the first attempt. A connection that is lost later is made again.
    """

    def __init__(self, where: Union[str, Options, None] = None) -> None:
        options = Options.from_url(where) if isinstance(where, str) else where or Options()
        self._connection = Connection(options)

    def run(self, program: str, args: Sequence[str] = (), stdin: bytes = b"", **limits: Any) -> Answer:
        """Runs a program that the gateway has. `limits` are further fields of `Request`: `id`, `fuel`, `timeout` …"""
        return self.send(Request(Program(program), args, stdin=stdin, **limits))

    def offload(
        self,
        path: Union[str, os.PathLike[str]],
        args: Sequence[str] = (),
        stdin: bytes = b"",
        *,
        build: Optional[str] = None,
        target: Optional[str] = None,
        **limits: Any,
    ) -> Answer:
        """Runs the code in a file (a wasm module, C or C++) or folder (with its makefile) at the gateway.

        `build` is a compiler command or a makefile; `target` is the program of a folder to run.
        """
        return self.send(Request(code_of(path, build, target), args, stdin=stdin, **limits))

    def send(self, request: Request) -> Answer:
        """Sends a request and waits for its answer.

        Raises an `Error` by its kind where the program has not run to its end; an exit code other than 0 is an answer.
        """
        future = self.submit(request)
        try:
            return future.result()
        except BaseException:
            # Ctrl-c: nobody waits any more, and the gateway ends it.
            future.cancel()
            raise

    def submit(self, request: Request) -> Future[Answer]:
        """Sends a request; its answer comes in the future, whose callbacks must not block.

        `future.cancel()` has the gateway end the request, too: queued, it never starts; running, it is stopped.
        """
        return self._connection.submit(request)

    def cancel(self, id: str) -> None:
        """Cancels the request of this reply id that has this id, whoever has sent it; its answer is `Cancelled`.

        Raises `NotFound` where none of this id waits or runs.
        """
        self.send(Request(Cancel(id)))

    def close(self) -> None:
        """Disconnects; what is in flight gets no answer any more."""
        self._connection.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        _error: Optional[BaseException],
        _trace: Optional[TracebackType],
    ) -> None:
        if kind is not None:
            # Ctrl-c, or an error: what is in flight is of no use any more.
            self._connection.cancel_all()
        self.close()
