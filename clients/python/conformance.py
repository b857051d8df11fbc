"""The client as the conformance tests drive it: cases come on stdin, results go to stdout, a line of JSON each.

The first line says how to connect. Each other one is a request, known by its `case`; many may be in flight. The
fields are those of tests/README.md.
"""

import json
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

from offload_client import Cancelled, DefaultProgram, Digest, Error, Gateway, Options, Program, Request, Tls
from offload_client.request import code_of

WRITING = threading.Lock()


def main():
    asked = json.loads(sys.stdin.readline())
    tls = Tls(asked["cafile"], asked.get("cert"), asked.get("key")) if "cafile" in asked else None
    names = ("username", "password", "reply_id")
    try:
        gateway = Gateway(Options(asked["host"], asked["port"], tls, client_id=asked["client_id"], resend=2.0,
                                  **{name: asked[name] for name in names if name in asked}))
    except Error as error:
        return say(None, error=error)
    with gateway:
        say(None)
        futures = {}
        for case in map(json.loads, sys.stdin):
            if "cancel" in case:
                futures[case["cancel"]].cancel()
            else:
                futures[case["case"]] = start(gateway, case)
        wait(futures.values())


def start(gateway, case):
    limits = {name: case[name] for name in ("id", "fuel", "memory", "piece") if name in case}
    if "timeout_ms" in case:
        limits["timeout"] = case["timeout_ms"] / 1000
    if "program" in case:
        code = Program(case["program"]) if case["program"] else DefaultProgram()
    elif "digest" in case:
        code = Digest(case["digest"])
    else:
        code = code_of(Path(case["file"]), case.get("build"))
    stdin = case.get("stdin", "").encode() * case.get("stdin_repeat", 1)
    if case.get("stream"):
        limits["on_output"] = lambda piece, offset: say(case["case"], piece=(piece, offset))
    future = gateway.submit(Request(code, case.get("args", ()), stdin=stdin, **limits))
    future.add_done_callback(lambda done: finished(case, done))
    return future


def finished(case, future):
    error = Cancelled("by this client") if future.cancelled() else future.exception()
    say(case["case"], error=error) if error else say(case["case"], answer=future.result())


def say(case, answer=None, error=None, piece=None):
    result = {"case": case}
    if error is not None:
        result["error"] = {"kind": error.kind, "message": error.message}
    if answer is not None:
        fields = ("id", "status", "exit_code", "fuel", "run_us", "queue_us")
        result.update({name: getattr(answer, name) for name in fields})
        result.update(stdout=answer.text, stderr=answer.stderr.decode(errors="replace"))
    if piece is not None:
        result.update(piece=piece[0].decode(errors="replace"), offset=piece[1])
    with WRITING:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
