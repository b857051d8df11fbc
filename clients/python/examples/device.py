"""A device that asks a gateway the same thing again and again, and prints the answers."""

import argparse
import sys
import threading
from pathlib import Path

# Beside the library's folder it need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from offload_client import Error, Gateway, Options, Tls  # noqa: E402

# Seconds for connecting and subscribing, and for the last answers to come.
PATIENCE = 30


def argument_parser(description, interval):
    """The flags that all devices have; -h is the host, as mosquitto_pub has it."""
    parser = argparse.ArgumentParser(description=description, add_help=False)
    parser.add_argument("--help", action="help", help="show this and exit")
    parser.add_argument("-h", "--host", default="127.0.0.1", help="the gateway or its broker (default: %(default)s)")
    parser.add_argument("-p", "--port", type=int, help="its port (default: 1883, with TLS 8883)")
    parser.add_argument("-i", "--id", help="the device's name (default: one that is made up)")
    parser.add_argument("-u", "--username", help="user name")
    parser.add_argument("-P", "--pw", help="password")
    parser.add_argument("--cafile", metavar="FILE",
                        help="TLS; certificates in PEM of the authorities to trust (default: the system's)")
    parser.add_argument("--cert", metavar="FILE", help="TLS; our certificate in PEM, for a broker that wants one")
    parser.add_argument("--key", metavar="FILE", help="the certificate's private key in PEM")
    parser.add_argument("--interval", type=interval_seconds, default=interval, metavar="SECONDS",
                        help="time between two requests (default: %(default)s)")
    parser.add_argument("--count", type=count, metavar="N",
                        help="end after N requests and their answers (default: go on until ctrl-c)")
    return parser


def interval_seconds(text):
    seconds = float(text)
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("expected 0 to 86400 seconds")
    return seconds


def count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def run(options, request):
    """Sends the request every options.interval seconds; returns the exit code."""
    try:
        with Gateway(connection(options)) as gateway:
            return Device(gateway, options).run(request)
    except Error as error:
        return fail(error.message)
    except KeyboardInterrupt:
        return 130


def connection(options):
    """What the flags say of the connection."""
    tls = Tls(options.cafile, options.cert, options.key) if options.cafile or options.cert else None
    known = {"client_id": options.id} if options.id else {}
    # A certificate may permit the topics of its own name alone, which is not known here, and the empty one.
    reply_id = "" if options.cert and not options.id else None
    return Options(options.host, options.port, tls, options.username, options.pw, reply_id=reply_id,
                   connect_timeout=PATIENCE, answer_timeout=PATIENCE, **known)


class Device:
    """What has been asked and answered."""

    def __init__(self, gateway, options):
        self.gateway = gateway
        self.options = options
        self.answers = 0
        self.lost = None
        self.answered = threading.Condition()

    def run(self, request):
        sent = 0
        while self.lost is None:
            self.gateway.submit(request).add_done_callback(self.show)
            sent += 1
            with self.answered:
                if sent == self.options.count:
                    self.answered.wait_for(lambda: self.lost or self.answers == sent)
                    return fail(self.lost) if self.lost else 0
                self.answered.wait_for(lambda: self.lost, self.options.interval)
        return fail(self.lost)

    def show(self, future):
        """Prints an answer, and of an error that the gateway answers one line."""
        if future.cancelled():
            # Ctrl-c.
            return
        error = future.exception()
        if error is None:
            print(future.result().text.rstrip("\n"), flush=True)
        elif getattr(error, "answer", None) is not None:
            print(f"error: {error.kind}: {first_error(error.message)}", flush=True)
        with self.answered:
            if error is not None and getattr(error, "answer", None) is None:
                self.lost = getattr(error, "message", str(error))
            self.answers += 1
            self.answered.notify_all()


def first_error(message):
    """Of a compiler's output the first line that says what is wrong."""
    lines = message.split("\n")
    return next((line for line in lines if "error" in line), lines[0])


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    return 1
