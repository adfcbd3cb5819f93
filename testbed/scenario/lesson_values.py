"""The steps of a lesson as frozen values: what is asked, when which answer is right, what is shown."""

from __future__ import annotations

from dataclasses import dataclass

OTHERWISE = "otherwise"


@dataclass(frozen=True, slots=True)
class Show:
    """Something captured that a step shows. Shape: as the keys of `ShowModel`."""

    variant: str
    what: str
    observer: str
    action: str | None
    protocol: str | None
    has: str | None
    most: int


@dataclass(frozen=True, slots=True)
class Condition:
    """When a choice is right. Shape: `form` is one of seen, hidden, field, layer, egress, packets, larger."""

    form: str
    value: str
    variant: str
    observer: str = "isp"
    site: str | None = None
    action: str | None = None
    protocol: str | None = None
    has: str | None = None
    than: str = ""
    equals: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Shape: `right` None is never, "otherwise" when no other choice is right."""

    says: str
    right: Condition | str | None
    but: str = ""  # why it is not this one, for whoever chose it


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    text: str
    ask: str
    choices: tuple[Choice, ...]
    shows: tuple[Show, ...]
    explain: str
