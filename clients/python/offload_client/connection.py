"""The connection to the broker: sends requests, sends them again until they are answered, hands out the answers.

Three threads meet here: callers', paho's, and the keeper's, which watches the time. What they share is behind one lock.
Of paho's callbacks `_on_publish` must not take it: paho holds a lock of its own there, which `publish` takes as well.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, List, Optional, Set, Tuple

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from . import answer as answers
from . import errors
from .answer import Answer, Received
from .options import DEFAULT_PORT, DEFAULT_TLS_PORT, Options
from .request import Code, Module, Request, digest_of, encode, encode_cancel, made_up_id

# Seconds without traffic after which the broker is asked whether it is there.
KEEP_ALIVE = 30

# Seconds between attempts to connect again: they double from the first to the last.
RECONNECT_FIRST, RECONNECT_LAST = 1, 5

# Connections in a row that did not hold longer than RECONNECT_LAST, after which there is no point in going on: two
# clients of one id evict each other for ever, and paho 1.x does not hear why.
MOST_EVICTIONS = 5

# Seconds after a connection was made again in which the gateway may still be missing: it lost its own, too.
GATEWAY_MAY_BE_MISSING = 10.0

# Seconds before a request that found no gateway is sent again.
GATEWAY_PAUSE = 0.25

# Seconds that closing waits until the broker has what cancels requests.
FAREWELL = 1.0

# Bytes that a packet has beside topic, payload and user properties, at most.
PACKET_OVERHEAD = 64

# Reason codes of MQTT 5.
NO_MATCHING_SUBSCRIBERS = 0x10
FAILURE = 0x80
BAD_USER_NAME_OR_PASSWORD = 0x86
NOT_AUTHORIZED = 0x87
SESSION_TAKEN_OVER = 0x8E


@dataclass(eq=False)
class Entry:
    """A request in flight."""

    request: Request
    id: str
    # What stands for the code at the moment: of a module its digest at first.
    code: Code
    future: Future[Answer]
    # When the caller no longer waits, and after how many seconds that is.
    deadline: float
    wait: float
    resend_at: float = 0.0
    # The topic of the last message, and its packet id.
    topic: str = ""
    mid: int = 0
    # What there is of an answer in pieces.
    stdout: bytearray = field(default_factory=bytearray)
    # Where the next piece of its stream begins, at least.
    streamed: int = 0

    @property
    def by_digest(self) -> bool:
        return self.code is not self.request.code


class Connection:
    """An MQTT client and its requests in flight."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._reply_id = options.client_id if options.reply_id is None else options.reply_id
        self._lock = threading.Lock()
        # In the order in which they came.
        self._entries: List[Entry] = []
        self._slots = threading.BoundedSemaphore(options.max_in_flight)
        self._max_packet: Optional[int] = None
        # Why there is no connection at the moment, and why there will be none any more.
        self._lost: Optional[str] = None
        self._closed: Optional[errors.Error] = None
        self._first = threading.Event()
        self._established = False
        self._connected_again = float("-inf")
        # Since when there is a connection, and those in a row that did not hold.
        self._connected_at: Optional[float] = None
        self._evictions = 0
        # Packet ids that the broker has acknowledged at some time. One that is used again is acknowledged too early
        # here, which costs a repetition.
        self._acknowledged: Set[int] = set()
        # What cancels requests, as long as the broker may not have it.
        self._cancelling: List[mqtt.MQTTMessageInfo] = []
        # Whether any request was streamed; the packet ids of subscriptions to streams.
        self._streams = False
        self._stream_mids: Set[int] = set()
        # What the broker has refused, for the keeper; None wakes it.
        self._inbox: queue.SimpleQueue[Optional[Tuple[int, int]]] = queue.SimpleQueue()
        self._wake_at = float("inf")
        self._client = _new_client(options)
        self._client.on_socket_open = _send_at_once
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._connect()
        self._keeper = threading.Thread(target=self._keep, name="offload-keeper", daemon=True)
        self._keeper.start()

    def _connect(self) -> None:
        options = self._options
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = options.max_answer
        try:
            if options.username is not None:
                self._client.username_pw_set(options.username, options.password)
            if options.tls is not None:
                self._client.tls_set(options.tls.cafile, options.tls.cert, options.tls.key)
            port = options.port or (DEFAULT_TLS_PORT if options.tls else DEFAULT_PORT)
            self._client.connect(options.host, port, KEEP_ALIVE, clean_start=True, properties=properties)
        # Of sockets, files and TLS; of paho.
        except (OSError, ValueError) as error:
            raise errors.ConnectionFailed(f"cannot connect to {options.address}: {error}") from error
        self._client.loop_start()
        self._first.wait(options.connect_timeout)
        if self._closed is None and not self._established:
            reason = self._lost or f"no subscription within {options.connect_timeout:g} s"
            self._close(errors.ConnectionFailed(f"cannot connect to {options.address}: {reason}"))
        if self._closed is not None:
            self._client.loop_stop()
            raise self._closed

    def submit(self, request: Request) -> Future[Answer]:
        """Sends a request; waits before that while too many are in flight."""
        self._slots.acquire()
        return self._submit(request)

    def try_submit(self, request: Request) -> Optional[Future[Answer]]:
        """Sends a request, unless too many are in flight."""
        return self._submit(request) if self._slots.acquire(blocking=False) else None

    def _submit(self, request: Request) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.add_done_callback(lambda _: self._slots.release())
        options = self._options
        wait = options.answer_timeout if request.timeout is None else request.timeout + options.transport_grace
        code = digest_of(request.code.module) if isinstance(request.code, Module) else request.code
        id = made_up_id() if request.id is None else request.id
        entry = Entry(request, id, code, future, time.monotonic() + wait, wait)
        try:
            with self._lock:
                if self._closed is not None:
                    raise self._closed
                if request.on_output is not None and not self._streams:
                    self._streams = True
                    self._subscribe_to_streams()
                self._publish(entry)
                self._entries.append(entry)
                self._wake(min(entry.deadline, entry.resend_at))
        except errors.Error as error:
            future.set_exception(error)
        else:
            # A caller that cancels it no longer waits, nor need the gateway run it.
            future.add_done_callback(lambda _: self._forget(entry))
        return future

    def cancel_all(self) -> None:
        """Cancels what is in flight."""
        with self._lock:
            entries = list(self._entries)
        for entry in entries:
            entry.future.cancel()

    def close(self) -> None:
        """Disconnects; what is in flight gets no answer any more."""
        deadline = time.monotonic() + FAREWELL
        for info in self._cancelling:
            if info.rc == mqtt.MQTT_ERR_SUCCESS:
                info.wait_for_publish(max(deadline - time.monotonic(), 0.0))
        self._close(errors.ConnectionFailed("this client was closed"))
        self._client.loop_stop()
        self._keeper.join()

    # With the lock.

    def _publish(self, entry: Entry) -> None:
        message = encode(entry.request, entry.id, entry.code, len(entry.stdout))
        topic = entry.topic = f"{message.kind}/{self._reply_id}"
        size = len(message.payload) + len(topic.encode()) + PACKET_OVERHEAD
        size += sum(len(name) + len(value) + 5 for name, value in message.user_properties)
        if self._max_packet is not None and size > self._max_packet:
            raise errors.TooLarge(f"the request makes a packet of {size} bytes, the broker takes {self._max_packet}")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = entry.id.encode()
        if message.user_properties:
            properties.UserProperty = message.user_properties
        entry.mid = self._client.publish(topic, message.payload, qos=1, properties=properties).mid
        entry.resend_at = time.monotonic() + self._options.resend

    def _cancel(self, entry: Entry) -> None:
        """Behind the request itself, which the gateway gets first."""
        info = self._client.publish(entry.topic, encode_cancel(entry.id), qos=1)
        self._cancelling = [*self._unacknowledged(), info]

    def _unacknowledged(self) -> Iterator[mqtt.MQTTMessageInfo]:
        return (info for info in self._cancelling if info.rc == mqtt.MQTT_ERR_SUCCESS and not info.is_published())

    def _subscribe_to_streams(self) -> None:
        _, mid = self._client.subscribe(f"result/{self._reply_id}/stream/#", qos=1)
        if mid is not None:
            self._stream_mids.add(mid)

    def _wake(self, due: float) -> None:
        if due < self._wake_at:
            self._inbox.put(None)

    # Paho's thread. Its callbacks have other arguments in 1.x than in 2.x.

    def _on_connect(self, *arguments: Any) -> None:
        reason, properties = arguments[3:5]
        if reason.value != 0:
            return self._refused(reason)
        with self._lock:
            self._lost = None
            self._connected_at = time.monotonic()
            self._max_packet = getattr(properties, "MaximumPacketSize", None)
            if self._established:
                self._connected_again = time.monotonic()
        # A clean start forgets subscriptions.
        self._client.subscribe(f"result/{self._reply_id}", qos=1)
        with self._lock:
            if self._streams:
                self._subscribe_to_streams()
        if self._established:
            # What is not acknowledged paho sends again.
            self._each(self._publish, lambda entry: entry.mid in self._acknowledged)

    def _refused(self, reason: Any) -> None:
        said = f"the broker refuses the connection: {reason}"
        with self._lock:
            self._lost = said
        if not self._established:
            unauthorized = reason.value in (BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED)
            failed = errors.ConnectionFailed(f"cannot connect to {self._options.address}: {said}")
            self._close(errors.Unauthorized(said) if unauthorized else failed)

    def _on_subscribe(self, *arguments: Any) -> None:
        mid, granted = arguments[2:4]
        refused = any(code.value >= FAILURE for code in granted)
        with self._lock:
            is_of_streams = mid in self._stream_mids
            self._stream_mids.discard(mid)
        if is_of_streams:
            if refused:
                self._without_streams()
            return
        if refused:
            text = f"the broker refuses the subscription to result/{self._reply_id}: {granted[0]}"
            self._close(errors.Unauthorized(f"{text} (where clients have names, the reply id is the own one)"))
        self._established = True
        self._first.set()

    def _without_streams(self) -> None:
        with self._lock:
            entries = [entry for entry in self._entries if entry.request.on_output is not None]
        for entry in entries:
            topic = f"result/{self._reply_id}/stream/#"
            self._fail(entry, errors.Unauthorized(f"the broker refuses the subscription to {topic}"))

    def _on_disconnect(self, *arguments: Any) -> None:
        reason = arguments[-2]
        if self._connected_at is not None:
            held = time.monotonic() - self._connected_at > RECONNECT_LAST
            self._evictions = 0 if held else self._evictions + 1
            self._connected_at = None
        id = self._options.client_id
        if getattr(reason, "value", reason) == SESSION_TAKEN_OVER:
            self._close(errors.ConnectionFailed(f"another client has connected with the id `{id}`"))
        elif self._evictions == MOST_EVICTIONS:
            said = f"the connection is lost again and again: is another client connected with the id `{id}`?"
            self._close(errors.ConnectionFailed(said))
        with self._lock:
            self._lost = self._lost or f"the connection is lost: {reason}"

    def _on_publish(self, *arguments: Any) -> None:
        self._acknowledged.add(arguments[2])
        # Paho 1.x does not say what became of it.
        reason = arguments[3].value if len(arguments) > 3 else 0
        if reason != 0:
            self._inbox.put((arguments[2], reason))

    def _on_message(self, *arguments: Any) -> None:
        message = arguments[2]
        id, offset = self._stream_of(message.topic)
        if id is not None:
            return self._streamed(id, offset, message.payload)
        properties = getattr(message.properties, "UserProperty", [])
        correlation = getattr(message.properties, "CorrelationData", b"")
        received = answers.decode(message.payload, properties)
        if received is None:
            return
        # What cannot be parsed is answered without an id.
        id = received.answer.id or correlation.decode(errors="replace")
        with self._lock:
            entry = self._asked(id, received)
        if entry is None:
            return
        try:
            result = self._take(entry, received)
        except errors.Error as error:
            return self._fail(entry, error)
        if result is not None:
            self._finish(entry, result)

    def _stream_of(self, topic: str) -> Tuple[Optional[str], int]:
        """Of which request this is a piece of the stream, and where it begins."""
        start = f"result/{self._reply_id}/stream/"
        id, _, offset = topic[len(start):].rpartition("/")
        return (id, int(offset)) if topic.startswith(start) and offset.isdecimal() else (None, 0)

    def _streamed(self, id: str, offset: int, piece: bytes) -> None:
        with self._lock:
            entry = next((entry for entry in self._entries if entry.id == id), None)
        # A second copy is not passed on.
        if entry is None or entry.request.on_output is None or offset < entry.streamed:
            return
        entry.streamed = offset + len(piece)
        try:
            entry.request.on_output(piece, offset)
        except Exception as error:
            # The caller's own, and the caller hears of it.
            with self._lock:
                self._cancel(entry)
            self._fail(entry, error)

    def _asked(self, id: str, received: Received) -> Optional[Entry]:
        """The oldest request that this may be an answer to."""
        for entry in self._entries:
            if entry.id != id:
                continue
            # A late answer to the digest alone, or to an earlier piece.
            stale = _misses_digest(received.error) and not entry.by_digest and isinstance(entry.code, Module)
            other = entry.request.piece is not None and received.stdout_offset not in (None, len(entry.stdout))
            if not stale and not other:
                return entry
        return None

    def _take(self, entry: Entry, received: Received) -> Optional[Answer]:
        """The whole answer; None while there is more to ask for."""
        answer, error = received.answer, received.error
        if error is not None and entry.by_digest and _misses_digest(error):
            with self._lock:
                entry.code = entry.request.code
                self._publish(entry)
            return None
        if error is not None:
            raise error
        id = entry.request.id
        if entry.request.piece is None or received.stdout_total is None:
            return _with(answer, id, answer.stdout)
        entry.stdout += answer.stdout
        if len(entry.stdout) < received.stdout_total and answer.stdout:
            with self._lock:
                self._publish(entry)
            return None
        return _with(answer, id, bytes(entry.stdout))

    # Any thread, without the lock.

    def _finish(self, entry: Entry, answer: Answer) -> None:
        try:
            entry.future.set_result(answer)
        except InvalidStateError:
            pass

    def _fail(self, entry: Entry, error: Exception) -> None:
        try:
            entry.future.set_exception(error)
        except InvalidStateError:
            pass

    def _forget(self, entry: Entry) -> None:
        with self._lock:
            if entry not in self._entries:
                return
            self._entries.remove(entry)
            if entry.future.cancelled():
                self._cancel(entry)
                # Whoever waits for many futures hears of this one.
                entry.future.set_running_or_notify_cancel()

    def _each(self, act: Callable[[Entry], None], which: Callable[[Entry], bool]) -> None:
        """Does this to those in flight; a request that cannot be sent any more fails."""
        failed = []
        with self._lock:
            for entry in filter(which, self._entries):
                try:
                    act(entry)
                except errors.Error as refused:
                    failed.append((entry, refused))
        for entry, error in failed:
            self._fail(entry, error)

    def _close(self, error: errors.Error) -> None:
        with self._lock:
            if self._closed is None:
                self._closed = error
            entries, self._entries = self._entries, []
        self._first.set()
        self._inbox.put(None)
        for entry in entries:
            self._fail(entry, error)
        # Or paho connects again.
        self._client.disconnect()

    # The keeper's thread.

    def _keep(self) -> None:
        while self._closed is None:
            with self._lock:
                due = [min(entry.deadline, entry.resend_at) for entry in self._entries]
                self._wake_at = min(due, default=float("inf"))
                # What a queue can wait, which is less than infinity.
                wait = min(max(self._wake_at - time.monotonic(), 0.0), 3600.0)
            try:
                told = self._inbox.get(timeout=wait)
            except queue.Empty:
                told = None
            if told is not None:
                self._unwanted(*told)
            self._too_late()
            now = time.monotonic()
            self._each(self._again, lambda entry: entry.resend_at <= now)

    def _again(self, entry: Entry) -> None:
        if entry.mid in self._acknowledged:
            self._publish(entry)
        else:
            # Paho still has it, and sends it when there is a connection.
            entry.resend_at = time.monotonic() + self._options.resend

    def _too_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [entry for entry in self._entries if entry.deadline <= now]
            because = f"; {self._lost}" if self._lost else ""
        for entry in late:
            self._fail(entry, errors.NoAnswer(f"no answer within {entry.wait:g} s{because}"))

    def _unwanted(self, mid: int, reason: int) -> None:
        """The broker has not passed the message on."""
        with self._lock:
            entries = (entry for entry in self._entries if entry.mid == mid)
            entry = next(entries, None)
            now = time.monotonic()
            if entry is None:
                return
            if reason == NO_MATCHING_SUBSCRIBERS and now - self._connected_again < GATEWAY_MAY_BE_MISSING:
                entry.resend_at = now + GATEWAY_PAUSE
                return
        if reason == NO_MATCHING_SUBSCRIBERS:
            advice = "is it running? `offload-rt serve --broker URL` starts one"
            error: errors.Error = errors.ConnectionFailed(f"no gateway takes requests at this broker: {advice}")
        elif reason == NOT_AUTHORIZED:
            error = errors.Unauthorized(f"client `{self._options.client_id}` may not publish this request")
        else:
            error = errors.ConnectionFailed(f"the broker refused the request: reason code {reason:#04x}")
        self._fail(entry, error)


def _misses_digest(error: Optional[errors.Error]) -> bool:
    """The gateway does not have the module, or takes no digests."""
    if isinstance(error, errors.Malformed):
        return error.message.startswith("digest")
    return isinstance(error, errors.NotFound)


def _with(answer: Answer, id: Optional[str], stdout: bytes) -> Answer:
    """With the caller's id, which is none where this client made one up, and the whole of stdout."""
    fields = dict(vars(answer), id=id, stdout=stdout)
    return Answer(**fields)


def _new_client(options: Options) -> mqtt.Client:
    if hasattr(mqtt, "CallbackAPIVersion"):
        version = mqtt.CallbackAPIVersion.VERSION2
        client = mqtt.Client(version, client_id=options.client_id, protocol=mqtt.MQTTv5)
    else:
        client = mqtt.Client(client_id=options.client_id, protocol=mqtt.MQTTv5)
    client.reconnect_delay_set(RECONNECT_FIRST, RECONNECT_LAST)
    return client


def _send_at_once(_client: Any, _userdata: Any, connection: Any) -> None:
    """Otherwise a small packet waits for the acknowledgement of the one before, which the other end delays by 40 ms."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
