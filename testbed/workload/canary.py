"""Canaries: tokens nobody could guess, one for every value that the workload makes up.

A token is the first 128 bits of HMAC-SHA256(secret, variant | action | field) in lower-case hexadecimal: it survives
the case folding of DNS and fits a label. The same secret gives the same tokens, so a run repeats exactly; knowing one
tells nothing of another.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

PLACEHOLDER = "{canary}"
TOKEN_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Canaries:
    """The tokens of one action in one variant."""

    secret: bytes = field(repr=False)
    variant: str
    action: str

    def token(self, name: str) -> str:
        """The token of the value called `name`, such as `cookie` or `argv-2`."""
        message = "|".join((self.variant, self.action, name)).encode()
        return hmac.digest(self.secret, message, "sha256").hex()[:TOKEN_DIGITS]

    def expand(self, text: str, name: str) -> tuple[str, tuple[str, ...]]:
        """`text` with its placeholders replaced, and the tokens now in it (none or one)."""
        if PLACEHOLDER not in text:
            return text, ()
        token = self.token(name)
        return text.replace(PLACEHOLDER, token), (token,)
