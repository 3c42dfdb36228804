"""Where the server listens, who may use it, and how much they may ask for."""

import ipaddress
import secrets
from dataclasses import dataclass, field

from nanogpt.config import at_least, check_values
from nanogpt.errors import UserError

SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """How much the server does at once, and how much one request may ask for."""

    rows: int = 32  # texts that grow at the same time, for each model
    waiting: int = 256  # texts that wait for a place; a request beyond them gets status 429
    prompt_tokens: int = 8192  # longest prompt
    new_tokens: int = 1024  # largest max_tokens
    seconds: float = 120.0  # longest time for one request, the wait for a place included
    body_bytes: int = 4_000_000  # largest request

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 1, "rows", "prompt_tokens", "new_tokens", "body_bytes")
        at_least(self, 0, "waiting", "seconds")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """All of it. Raises UserError for a host that others can reach without a token."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""  # empty: anybody on this machine may ask
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port {self.port}: use 1 to 65535, or 0 for any free port")
        if not is_loopback(self.host) and not self.token:
            raise UserError(
                f"--host {self.host} lets others in: give a token that they must know, "
                f"as in --token {secrets.token_hex(16)}"
            )
        if self.token and not (len(self.token) >= SHORTEST_TOKEN and self.token.isascii()):
            raise UserError(f"--token: use at least {SHORTEST_TOKEN} letters and digits")


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach such an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
