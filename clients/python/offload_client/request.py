"""A request: which code to run, with which input, within which limits; and its message."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from . import folder
from .errors import Malformed, NotFound

WASM_MAGIC = b"\0asm"

# What the id of a request whose output is streamed may have: it is a level of a topic.
_LEVEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@dataclass(frozen=True)
class Program:
    """A program that the gateway has, by name."""

    name: str


@dataclass(frozen=True)
class DefaultProgram:
    """The gateway's default program. Its arguments hold no white space, and it takes neither stdin nor variables."""


@dataclass(frozen=True)
class Digest:
    """A module that the gateway has: `sha256:` and 64 hexadecimal digits."""

    digest: str


@dataclass(frozen=True)
class Module:
    """A wasm module or component. Only its digest is sent to a gateway that has it."""

    module: bytes = field(repr=False)


@dataclass(frozen=True)
class Source:
    """One file of C or C++. `build` is a compiler command or a makefile; `<name>` is the program's path in it."""

    source: str = field(repr=False)
    build: str
    name: str = "program"


@dataclass(frozen=True)
class Files:
    """A project: paths and contents. `target` is the program to run, the makefile's first by default."""

    files: Mapping[str, bytes] = field(repr=False)
    makefile: Optional[str] = None
    target: Optional[str] = None


@dataclass(frozen=True)
class Cancel:
    """No code: the request of this client that has this id, and waits or runs, is cancelled."""

    id: str


Code = Union[Program, DefaultProgram, Digest, Module, Source, Files, Cancel]

# Gets what a program has written to stdout, and where in the whole that is, in bytes. In order; what could not be sent
# in time is left out, so that the next one begins later.
OnOutput = Callable[[bytes, int], None]


@dataclass(frozen=True)
class Request:
    """What to run. Limits may lower the gateway's own, never raise them."""

    code: Code
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = field(default=b"", repr=False)
    # The same id within the gateway's retention time is run once. Made up where there is none.
    id: Optional[str] = None
    fuel: Optional[int] = None
    # Bytes.
    memory: Optional[int] = None
    # Seconds, from the arrival at the gateway.
    timeout: Optional[float] = None
    # Fetches stdout in messages of at most this many bytes of it, for receivers of small packets; whole by default.
    piece: Optional[int] = None
    # Called with stdout as it is written, on a thread of the client (in asyncio in its loop). The answer has all of it.
    on_output: Optional[OnOutput] = field(default=None, repr=False)


def code_of(path: Union[str, os.PathLike[str]], build: Optional[str] = None, target: Optional[str] = None) -> Code:
    """The code in a file or folder: a module by its first bytes, a folder with its makefile, else C or C++ source."""
    path = Path(path)
    try:
        if path.is_dir():
            return Files(folder.files(path), makefile=build, target=target)
        contents = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror or error}") from error
    if contents.startswith(WASM_MAGIC):
        return Module(contents)
    try:
        source = contents.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{path}: expected a wasm module or source in UTF-8") from None
    is_cpp = path.suffix in (".cpp", ".cc", ".cxx", ".C")
    usual = "g++ -O2 <name>.cpp -o <name>" if is_cpp else "gcc -O2 <name>.c -o <name>"
    return Source(source, build or usual, path.stem)


@dataclass(frozen=True)
class Message:
    """A request as it is published."""

    # `localCode` or `inputCode`.
    kind: str
    payload: bytes
    user_properties: List[Tuple[str, str]]


def made_up_id() -> str:
    """128 random bits."""
    return secrets.token_hex(16)


def digest_of(module: bytes) -> Digest:
    """The name of a module."""
    return Digest("sha256:" + hashlib.sha256(module).hexdigest())


def _check(request: Request) -> None:
    """What the gateway could not even answer as this request's error."""
    if request.id is not None and not 1 <= len(_utf8(request.id)) <= 64:
        raise Malformed("id: expected 1 to 64 bytes")
    if request.piece is not None and request.piece < 1:
        raise Malformed("piece: expected at least 1 byte")
    if request.on_output is not None and request.id is not None and not _LEVEL.issuperset(request.id):
        raise Malformed("id: with on_output expected letters, digits, `_`, `-` and `.`")


def encode(request: Request, id: str, code: Code, offset: int = 0) -> Message:
    """The message of a request with this id and code, for stdout from this offset on."""
    _check(request)
    if isinstance(code, DefaultProgram):
        return _arguments(request, id)
    kind, fields = _code(code)
    fields["id"] = id
    if request.args:
        fields["args"] = list(request.args)
    if request.env:
        fields["env"] = dict(request.env)
    if request.stdin:
        fields["stdin"] = _bytes(request.stdin)
    fields.update(_limits(request))
    if request.piece is not None:
        fields.update(stdout_offset=offset, stdout_length=request.piece)
    if request.on_output is not None:
        fields["reply"] = "stream"
    # Where a module goes its digest goes, too: a client may be permitted that topic alone.
    return Message(kind, _envelope(fields), [])


def encode_cancel(id: str) -> bytes:
    """The envelope that cancels the request with this id, and is answered to nobody."""
    return _envelope({"cancel": id})


def _envelope(fields: Dict[str, Any]) -> bytes:
    return _utf8(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def _code(code: Code) -> Tuple[str, Dict[str, Any]]:
    if isinstance(code, Program):
        return "localCode", {"program": code.name}
    if isinstance(code, Digest):
        return "inputCode", {"digest": code.digest}
    if isinstance(code, Module):
        return "inputCode", {"module": _bytes(code.module)}
    if isinstance(code, Source):
        return "inputCode", {"source": code.source, "makefile": code.build, "name": code.name}
    if isinstance(code, Files):
        fields: Dict[str, Any] = {"files": {path: _bytes(contents) for path, contents in code.files.items()}}
        if code.makefile is not None:
            fields["makefile"] = code.makefile
        if code.target is not None:
            fields["target"] = code.target
        return "inputCode", fields
    if isinstance(code, Cancel):
        return "localCode", {"cancel": code.id}
    raise Malformed(f"code: expected a Program, Digest, Module, Source or Files, got {type(code).__name__}")


def _arguments(request: Request, id: str) -> Message:
    if request.stdin or request.env:
        raise Malformed("the default program takes arguments alone: name the program")
    if request.piece is not None:
        raise Malformed("piece: the default program answers in one piece: name the program")
    if request.on_output is not None:
        raise Malformed("on_output: the default program's answer is not streamed: name the program")
    if request.args and request.args[0].startswith("{"):
        raise Malformed("args: the default program's begin with no `{`: name the program")
    for arg in request.args:
        if not arg or len(arg.split()) != 1 or arg.split()[0] != arg:
            raise Malformed("args: the default program's hold no white space and are not empty: name the program")
    properties = [("id", id)] + [(name.replace("_", "-"), str(value)) for name, value in _limits(request).items()]
    return Message("localCode", _utf8(" ".join(request.args)), properties)


def _limits(request: Request) -> Dict[str, int]:
    limits: Dict[str, int] = {}
    if request.fuel is not None:
        limits["fuel"] = request.fuel
    if request.memory is not None:
        limits["memory"] = request.memory
    if request.timeout is not None:
        limits["timeout_ms"] = round(request.timeout * 1000)
    return limits


def _bytes(contents: bytes) -> str:
    return base64.b64encode(contents).decode("ascii")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"a text of the request is not Unicode: {error.reason}") from None
