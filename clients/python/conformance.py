"""The client as the conformance tests drive it: cases come on stdin, results go to stdout, a line of JSON each.

The first line says how to connect. Each other one is a request, known by its `case`; many may be in flight. The
fields are those of tests/README.md.
"""

import json
import sys
import threading
from pathlib import Path

from offload_client import DefaultProgram, Digest, Error, Gateway, Options, Program, Request, Tls
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
        waiting = [start(gateway, json.loads(line)) for line in sys.stdin]
        for future in waiting:
            future.exception()


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
    future = gateway.submit(Request(code, case.get("args", ()), stdin=stdin, **limits))
    future.add_done_callback(lambda done: finished(case["case"], done))
    return future


def finished(case, future):
    error = future.exception()
    say(case, error=error) if error else say(case, answer=future.result())


def say(case, answer=None, error=None):
    result = {"case": case}
    if error is not None:
        result["error"] = {"kind": error.kind, "message": error.message}
    if answer is not None:
        fields = ("id", "status", "exit_code", "fuel", "run_us", "queue_us")
        result.update({name: getattr(answer, name) for name in fields})
        result.update(stdout=answer.text, stderr=answer.stderr.decode(errors="replace"))
    with WRITING:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
