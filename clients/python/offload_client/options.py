"""Where to connect, as whom, and within which bounds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import unquote, urlsplit

from .errors import Malformed

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883


@dataclass(frozen=True)
class Tls:
    """Files in PEM. Without a cafile the system's authorities are trusted."""

    cafile: Optional[str] = None
    # This client's own certificate and its key, for a broker that asks for one.
    cert: Optional[str] = None
    key: Optional[str] = None


def _made_up() -> str:
    return f"offload-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Options:
    """How a gateway is connected to; the defaults are right for one on this machine. Times are in seconds."""

    host: str = DEFAULT_HOST
    # 1883 by default, with TLS 8883.
    port: Optional[int] = None
    tls: Optional[Tls] = None
    username: Optional[str] = None
    password: Optional[str] = field(default=None, repr=False)
    # The MQTT client id.
    client_id: str = field(default_factory=_made_up)
    # Answers come on `result/<reply id>`: the client id by default. Where clients have certificates it is the name in
    # this client's own, or empty.
    reply_id: Optional[str] = None
    # For the connection and the subscription to the answers.
    connect_timeout: float = 5.0
    # For the answer to a request that has no timeout of its own.
    answer_timeout: float = 300.0
    # What is added to a request's own timeout, which counts from its arrival at the gateway, for both ways.
    transport_grace: float = 10.0
    # Without an answer for this long a request is sent again; its id keeps it from running twice.
    resend: float = 30.0
    # Requests without an answer; whoever sends one more waits.
    max_in_flight: int = 1024
    # The largest packet to receive, in bytes: instead of a larger one the gateway answers with an `output` error.
    max_answer: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, what in (("client_id", self.client_id), ("reply_id", self.reply_id or "")):
            if any(letter in what for letter in "+#\0"):
                raise Malformed(f"{name}: expected text without `+`, `#` and NUL")
        if not self.host:
            raise Malformed("host: expected a name or an address, got nothing")
        if not self.client_id:
            raise Malformed("client_id: expected text, got nothing")
        if self.password is not None and self.username is None:
            raise Malformed("password: expected a username beside it")
        for number, least in ((self.max_in_flight, 1), (self.max_answer, 256), (self.resend, 0.1)):
            if number < least:
                raise Malformed(f"an option is {number}, the least is {least}")

    @staticmethod
    def from_url(url: str) -> Options:
        """`mqtt[s]://[user[:password]@]host[:port]`; user and password are percent-decoded."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Malformed("expected mqtt[s]://[user[:password]@]host[:port], got another text") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise Malformed("expected mqtt[s]://[user[:password]@]host[:port], got another scheme or no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise Malformed("expected mqtt[s]://[user[:password]@]host[:port], got more after the port")
        return Options(
            host=parts.hostname,
            port=port,
            tls=Tls() if parts.scheme == "mqtts" else None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    @property
    def address(self) -> str:
        """Host and port, as messages name them."""
        port = self.port or (DEFAULT_TLS_PORT if self.tls else DEFAULT_PORT)
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
