"""The shape of `events`: what goes wrong, or is done, while the client works."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from testbed.scenario.model_base import CommandLine, Duration, Model, Percent

End = Literal["vpn-server", "vpn-client"]
Signal = Literal["KILL", "TERM", "INT", "HUP", "USR1", "USR2", "STOP", "CONT"]


class EventModel(Model):
    """One event: its time, exactly one of kill, start, link and run, and what belongs to that."""

    at: Duration = Field(description="When it happens, counted from the start of the workload.")
    kill: End | None = Field(None, description="Send a signal to an end of the tunnel: vpn-server or vpn-client.")
    start: End | None = Field(None, description="Start an end of the tunnel again, once it has ended.")
    link: str | None = Field(
        None, description="Change a link, such as client-isp: from then on it is as planned but for what stands here."
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
