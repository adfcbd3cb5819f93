"""The shape of `events`: what goes wrong, or is done, while the client works."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from testbed.scenario import words
from testbed.scenario.model_base import WRONG_WORD, Address, CommandLine, Duration, Model, Percent, one_as_list, word

End = Literal["vpn-server", "vpn-client"]
LINK_ITSELF = "0.0.0.0"  # noqa: S104 - no socket is bound to it
Signal = Literal["KILL", "TERM", "INT", "HUP", "USR1", "USR2", "STOP", "CONT"]


def _of_ipv4(text: str) -> str:
    if ":" in text:
        raise PydanticCustomError(WRONG_WORD, "{reason}", {"reason": "must be IPv4: DHCP carries nothing else"})
    return text


def _router(text: str) -> str:
    """A router's address; 0.0.0.0 says that the prefix is on the link itself (RFC 3442)."""
    return text if text == LINK_ITSELF else words.address(text)


Address4 = Annotated[Address, AfterValidator(_of_ipv4)]
Router4 = Annotated[str, word(_router), AfterValidator(_of_ipv4)]
Prefix4 = Annotated[str, word(words.prefix), AfterValidator(_of_ipv4)]


class EventModel(Model):
    """One event: its time, exactly one of kill, start, link, lease and run, and what belongs to that."""

    at: Duration = Field(description="When it happens, counted from the start of the workload.")
    kill: End | None = Field(None, description="Send a signal to an end of the tunnel: vpn-server or vpn-client.")
    start: End | None = Field(None, description="Start an end of the tunnel again, once it has ended.")
    link: str | None = Field(
        None, description="Change a link, such as client-isp: from then on it is as planned but for what stands here."
    )
    lease: str | None = Field(
        None, description="The client asks for a DHCP lease, and this neighbour of it gives one: an honest ISP, or not."
    )
    routes: dict[Prefix4, Router4] | None = Field(
        None,
        description="lease: routes that it brings (option 121), prefix: router; the router 0.0.0.0 is the link itself.",
    )
    dns: Annotated[list[Address4], BeforeValidator(one_as_list), Field(min_length=1)] | None = Field(
        None, description="lease: the resolvers that it brings (option 6)."
    )
    run: CommandLine | None = Field(None, description="Run a program in a node; the workload does not wait for it.")
    signal: Signal | None = Field(None, description="kill: which signal. Default: KILL, which nobody can prepare for.")
    node: str | None = Field(None, description="run: in which node. Default: client.")
    sender: str | None = Field(
        None,
        alias="from",
        description="link: only what this one of its nodes sends; the other way stays as it is. Default: both ways.",
    )
    down: bool | None = Field(None, description="link: true carries nothing; false carries again.")
    bw: Annotated[float, Field(gt=0)] | None = Field(None, description="link: rate in Mbit/s.")
    delay: Duration | None = Field(None, description="link: one-way delay, such as 20ms.")
    jitter: Duration | None = Field(None, description="link: random part of the delay.")
    loss: Percent | None = Field(None, description="link: packets lost, in percent.")
    duplicate: Percent | None = Field(None, description="link: packets duplicated, in percent.")
    reorder: Percent | None = Field(None, description="link: packets overtaken by later ones, in percent.")
    max_queue_size: Annotated[int, Field(gt=0)] | None = Field(None, description="link: packets a queue holds.")
