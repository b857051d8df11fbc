"""The files of a project's folder that go with a request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict

from .errors import Malformed, NotFound, TooLarge

# What is built is built at the gateway: make there must not take it for up to date.
_BUILT_ENDINGS = (".o", ".obj", ".a", ".lib", ".so", ".gch", ".d", ".exe")
_EXECUTABLES = (b"\x7fELF", b"\xcf\xfa\xed\xfe")

_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")

# No gateway takes more files of one request than this, or more bytes of source.
_MAX_FILES = 10_000
_MAX_BYTES = 64 * 1024 * 1024


def files(folder: Path) -> Dict[str, bytes]:
    """Paths and contents, without hidden files and without what was built there. A link is an error."""
    found: Dict[str, bytes] = {}
    size = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders + sorted(names):
            path = Path(parent, name)
            if path.is_symlink() and not name.startswith("."):
                raise Malformed(f"{path}: links are not followed: replace it")
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name.endswith(_BUILT_ENDINGS):
                continue
            size += path.stat().st_size
            if size > _MAX_BYTES or len(found) == _MAX_FILES:
                raise TooLarge(f"{folder}: more than {_MAX_FILES} files or {_MAX_BYTES} bytes")
            contents = path.read_bytes()
            if not contents.startswith(_EXECUTABLES):
                found[path.relative_to(folder).as_posix()] = contents
    if not found:
        raise NotFound(f"{folder}: no files in this folder that would be sent, expected one of {_MAKEFILES}")
    return found
