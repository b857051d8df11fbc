"""The face for asyncio."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Optional, Sequence, Type, Union

from .answer import Answer
from .connection import Connection
from .options import Options
from .request import Cancel, OnOutput, Program, Request, code_of


class AsyncGateway:
    """As `Gateway`; connects in `connect`, or at the beginning of `async with`."""

    def __init__(self, where: Union[str, Options, None] = None) -> None:
        self._options = Options.from_url(where) if isinstance(where, str) else where or Options()
        self._connection: Optional[Connection] = None

    async def connect(self) -> AsyncGateway:
        """Connects and subscribes; raises as the constructor of `Gateway`."""
        loop = asyncio.get_running_loop()
        self._connection = await loop.run_in_executor(None, Connection, self._options)
        return self

    async def run(self, program: str, args: Sequence[str] = (), stdin: bytes = b"", **limits: Any) -> Answer:
        """Runs a program that the gateway has."""
        return await self.send(Request(Program(program), args, stdin=stdin, **limits))

    async def offload(
        self,
        path: Union[str, os.PathLike[str]],
        args: Sequence[str] = (),
        stdin: bytes = b"",
        *,
        build: Optional[str] = None,
        target: Optional[str] = None,
        **limits: Any,
    ) -> Answer:
        """Runs the code in a file or folder at the gateway."""
        loop = asyncio.get_running_loop()
        code = await loop.run_in_executor(None, code_of, path, build, target)
        return await self.send(Request(code, args, stdin=stdin, **limits))

    async def send(self, request: Request) -> Answer:
        """Sends a request and waits for its answer. Where the task is cancelled, the gateway ends the request, too."""
        if self._connection is None:
            raise RuntimeError("not connected: use `async with`, or await `connect`")
        loop = asyncio.get_running_loop()
        on_output = request.on_output
        if on_output is not None:
            request = replace(request, on_output=_in_loop(loop, on_output))
        future = self._connection.try_submit(request)
        if future is None:
            # Too many are in flight: another thread waits until there is room.
            submitted = loop.run_in_executor(None, self._connection.submit, request)
            try:
                future = await asyncio.shield(submitted)
            except asyncio.CancelledError:
                submitted.add_done_callback(_cancel_submitted)
                raise
        return await asyncio.wrap_future(future)

    async def cancel(self, id: str) -> None:
        """As `Gateway.cancel`."""
        await self.send(Request(Cancel(id)))

    async def close(self) -> None:
        """Disconnects; what is in flight gets no answer any more."""
        if self._connection is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._connection.close)

    async def __aenter__(self) -> AsyncGateway:
        return await self.connect()

    async def __aexit__(
        self,
        _kind: Optional[Type[BaseException]],
        _error: Optional[BaseException],
        _trace: Optional[TracebackType],
    ) -> None:
        await self.close()


def _in_loop(loop: asyncio.AbstractEventLoop, on_output: OnOutput) -> OnOutput:
    def call(piece: bytes, offset: int) -> None:
        loop.call_soon_threadsafe(on_output, piece, offset)

    return call


def _cancel_submitted(submitted: asyncio.Future[Future[Answer]]) -> None:
    """Nobody waits for what was submitted in the end."""
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()
