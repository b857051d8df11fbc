#!/usr/bin/env python3
"""What the gateway replaces: a subscriber that starts a process for each request and compiles each source.

On localCode/<id> the payload's words are the arguments of one program. On inputCode/<id> the payload is
name----args----source----command: the source is written to a file, the command builds it, the program is run.
Answers go to result/<id>.
"""

import argparse
import pathlib
import shlex
import socket
import subprocess
import tempfile

import paho.mqtt.client as mqtt

TIMEOUT_SECONDS = 30


def run(program, args):
    return subprocess.run([program, *args.split()], stdout=subprocess.PIPE, timeout=TIMEOUT_SECONDS, check=True).stdout


def build_and_run(payload):
    name, args, rest = payload.split("----", 2)
    source, command = rest.rsplit("----", 1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / name).with_suffix(".c").write_text(source)
        subprocess.run(shlex.split(command), cwd=folder, timeout=TIMEOUT_SECONDS, check=True)
        return run(folder / name, args)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="runs the requests on localCode/")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    options = parser.parse_args()

    def on_message(client, _userdata, message):
        kind, reply_id = message.topic.split("/", 1)
        payload = message.payload.decode()
        answer = run(options.program, payload) if kind == "localCode" else build_and_run(payload)
        client.publish("result/" + reply_id, answer, qos=1)

    def on_socket_open(_client, _userdata, connection):
        # Without it each answer waits for the acknowledgement of the packet before: 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_subscribe(*_):
        print("ready", flush=True)

    def on_connect(client, *_):
        client.subscribe([("localCode/#", 1), ("inputCode/#", 1)])

    # paho-mqtt 2 wants to be told which arguments the callbacks take; 1 does not know the question.
    versions = getattr(mqtt, "CallbackAPIVersion", None)
    client = mqtt.Client(versions.VERSION2) if versions else mqtt.Client()
    client.on_message, client.on_subscribe = on_message, on_subscribe
    client.on_connect, client.on_socket_open = on_connect, on_socket_open
    client.connect(options.host, options.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
