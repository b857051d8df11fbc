"""A device that asks a gateway the same thing again and again, and prints the answers.

As the deployed devices do it: MQTT 3.1.1, an empty client id (the broker chooses one and does not tell), a clean
session, answers at QoS 0. So the reply id is empty too, and the topics end in "/". Works with paho-mqtt 1.x and 2.x.
"""

import argparse
import socket
import sys
import threading

import paho.mqtt.client as mqtt

RESULT_TOPIC = "result/"

# Seconds for connecting and subscribing, and for the last answers to come.
PATIENCE = 30


def argument_parser(description, interval):
    """The flags that all devices have; -h is the host, as mosquitto_pub has it."""
    parser = argparse.ArgumentParser(description=description, add_help=False)
    parser.add_argument("--help", action="help", help="show this and exit")
    parser.add_argument("-h", "--host", default="127.0.0.1", help="the gateway or its broker (default: %(default)s)")
    parser.add_argument("-p", "--port", type=int, help="its port (default: 1883, with TLS 8883)")
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


def run(options, topic, payload):
    """Publishes payload on topic every options.interval seconds; returns the exit code."""
    device = Device(options)
    try:
        return device.run(topic, payload)
    except KeyboardInterrupt:
        return 130
    finally:
        device.stop()


class Device:
    def __init__(self, options):
        self.options = options
        self.subscribed = threading.Event()
        self.failure = None
        self.answers = 0
        self.answered = threading.Condition()
        self.client = new_client()
        self.client.on_socket_open = send_at_once
        if options.username is not None:
            self.client.username_pw_set(options.username, options.pw)
        self.tls = bool(options.cafile or options.cert)
        self.port = options.port or (8883 if self.tls else 1883)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message

    def run(self, topic, payload):
        where = f"{self.options.host}:{self.port}"
        try:
            if self.tls:
                self.client.tls_set(self.options.cafile, self.options.cert, self.options.key)
            self.client.connect(self.options.host, self.port)
        # Of sockets, files and TLS; of paho.
        except (OSError, ValueError) as error:
            return fail(f"cannot connect to {where}: {error}")
        self.client.loop_start()
        if not self.subscribed.wait(PATIENCE):
            return fail(f"no subscription at {where} within {PATIENCE} s")
        sent = 0
        while self.failure is None:
            self.client.publish(topic, payload)
            sent += 1
            if sent == self.options.count:
                return self.wait_for_answers(sent)
            with self.answered:
                self.answered.wait_for(lambda: self.failure, self.options.interval)
        return fail(self.failure)

    def wait_for_answers(self, sent):
        with self.answered:
            if self.answered.wait_for(lambda: self.answers >= sent, PATIENCE):
                return 0
        return fail(f"{self.answers} of {sent} answers within {PATIENCE} s")

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()

    # The callbacks run on paho's thread. In paho 2.x they get one more argument than in 1.x.

    def on_connect(self, client, _userdata, _flags, reason, *_properties):
        if reason != 0:
            return self.fail_later(f"the broker refuses the connection: {reason}")
        # Also after a lost connection: a clean session forgets subscriptions.
        client.subscribe(RESULT_TOPIC, qos=0)

    def on_subscribe(self, _client, _userdata, _mid, granted, *_properties):
        if any((code if isinstance(code, int) else code.value) >= 0x80 for code in granted):
            return self.fail_later("the broker refuses the subscription to the answers")
        self.subscribed.set()

    def on_message(self, _client, _userdata, message):
        print(message.payload.decode(errors="replace").rstrip("\n"), flush=True)
        with self.answered:
            self.answers += 1
            self.answered.notify_all()

    def fail_later(self, reason):
        with self.answered:
            self.failure = reason
            self.answered.notify_all()
        self.subscribed.set()


def send_at_once(_client, _userdata, connection):
    """Otherwise a small packet waits for the acknowledgement of the one before, which the other end delays by 40 ms."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def new_client():
    arguments = {"client_id": "", "clean_session": True, "protocol": mqtt.MQTTv311}
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
    return mqtt.Client(**arguments)


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    return 1
