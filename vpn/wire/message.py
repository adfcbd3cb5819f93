"""Control messages: ASCII text ended by NUL, inside TLS.

Several may stand in one record. Text without its NUL, or with control characters besides CR and LF at the end, is
not a message. Source: openvpn-protocol.md section 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_MESSAGE_OCTETS = 1024  # the real server keeps each message below; its reader gives up at 2048
PUSH_REQUEST = "PUSH_REQUEST"
PUSH_REPLY = "PUSH_REPLY"
EXIT = "EXIT"
RESTART = "RESTART"
HALT = "HALT"
_TEMPORARY = re.compile(r"TEMP(?:\[([^\]]*)\])?(?::(.*))?\Z", re.DOTALL)


def parse_messages(record: bytes) -> list[str]:
    """The messages of one record."""
    *complete, _unfinished = record.split(b"\0")
    texts = [octets.decode("utf-8", "replace").rstrip("\r\n") for octets in complete]
    return [text for text in texts if text and text.isprintable()]


def build_message(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\0"  # a name in it may be no text: it is as a peer has sent it


def is_message(text: str, name: str) -> bool:
    """Whether `text` is the message `name`, with or without arguments."""
    return text == name or text.startswith(name + ",")


@dataclass(frozen=True, slots=True)
class AuthFailure:
    """AUTH_FAILED with its reason. Shape: `advance` is "", "no", "addr" or "remote". Units: backoff in seconds."""

    reason: str = ""
    temporary: bool = False
    backoff: float | None = None
    advance: str = ""

    @classmethod
    def parse(cls, text: str) -> AuthFailure:
        reason = text.partition(",")[2]
        match = _TEMPORARY.match(reason)
        if match is None:
            return cls(reason)
        backoff, advance = None, ""
        for word in (match[1] or "").split(","):
            name, _, value = word.strip().partition(" ")
            if name == "backoff" and value.isascii() and value.isdigit() and len(value) < 8:
                backoff = float(value)
            elif name == "advance" and value in ("no", "addr", "remote"):
                advance = value
        return cls(match[2] or "", True, backoff, advance)

    def build(self) -> str:
        if not self.temporary:
            return f"AUTH_FAILED,{self.reason}" if self.reason else "AUTH_FAILED"
        words = [f"backoff {self.backoff:.0f}"] if self.backoff is not None else []
        words += [f"advance {self.advance}"] if self.advance else []
        flags = f"[{','.join(words)}]" if words else ""
        return f"AUTH_FAILED,TEMP{flags}" + (f":{self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """RESTART or HALT's argument: `[flags]text`; P keeps the password, N goes on to the next remote."""

    text: str = ""
    keep_password: bool = False
    next_remote: bool = False

    @classmethod
    def parse(cls, text: str) -> RestartRequest:
        argument = text.partition(",")[2]
        if argument.startswith("[") and "]" in argument:
            flags, _, rest = argument[1:].partition("]")
            return cls(rest, "P" in flags, "N" in flags)
        return cls(argument)

    def build(self) -> str:
        flags = ("P" if self.keep_password else "") + ("N" if self.next_remote else "")
        argument = (f"[{flags}]" if flags else "") + self.text
        return f"{RESTART},{argument}" if argument else RESTART
