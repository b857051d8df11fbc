"""The answer to a request, with the fields of the contract's envelope."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from . import errors


@dataclass(frozen=True)
class Answer:
    """What a program has done. `status` is `ok`, or `exit` for an exit code other than 0."""

    id: Optional[str]
    status: str
    exit_code: Optional[int]
    stdout: bytes
    stderr: bytes
    # Units of fuel; 0 for a native program.
    fuel: int
    # Microseconds that it ran, and that it waited before.
    run_us: int
    queue_us: int

    @property
    def text(self) -> str:
        """What it printed, as text."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Answer:
        """Itself, if the exit code is 0; raises `Exit` otherwise."""
        if self.status == "exit":
            said = self.stderr.decode(errors="replace").strip().split("\n")[0]
            text = f"program exited with code {self.exit_code}"
            raise errors.Exit(f"{text}: {said}" if said else text, self)
        return self


@dataclass(frozen=True)
class Received:
    """An answer as it came: maybe a piece of stdout, maybe an error."""

    answer: Answer
    error: Optional[errors.Error]
    stdout_offset: Optional[int] = None
    stdout_total: Optional[int] = None


def decode(payload: bytes, properties: List[Tuple[str, str]]) -> Optional[Received]:
    """The answer in a message; None where it is none that this client understands."""
    try:
        if payload.startswith(b"{"):
            return _envelope(json.loads(payload))
        return _line(payload, dict(properties))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _envelope(fields: Dict[str, Any]) -> Received:
    answer = Answer(
        id=fields["id"],
        status=fields["status"],
        exit_code=fields["exit_code"],
        stdout=base64.b64decode(fields["stdout"], validate=True),
        stderr=base64.b64decode(fields["stderr"], validate=True),
        fuel=int(fields["fuel"]),
        run_us=int(fields["run_us"]),
        queue_us=int(fields["queue_us"]),
    )
    told = fields["error"]
    error = errors.of_kind(told["kind"], told["message"], answer) if told else None
    return Received(answer, error, fields.get("stdout_offset"), fields.get("stdout_total"))


def _line(payload: bytes, properties: Dict[str, str]) -> Received:
    """Stdout alone, with the rest in user properties: the default program's answer."""
    kind = properties.get("error-kind")
    exit_code = properties.get("exit-code")
    answer = Answer(
        id=properties["id"],
        status=properties["status"],
        exit_code=int(exit_code) if exit_code is not None else None,
        stdout=b"" if kind else payload,
        stderr=b"",
        fuel=int(properties.get("fuel", 0)),
        run_us=int(properties.get("run-us", 0)),
        queue_us=0,
    )
    if kind is None:
        return Received(answer, None)
    message = payload.decode(errors="replace")
    start = f"error: {kind}: "
    message = message[len(start):] if message.startswith(start) else message
    return Received(answer, errors.of_kind(kind, message, answer))
