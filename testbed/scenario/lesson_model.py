"""The shape of the `lesson` of a scenario file: steps that ask for a prediction, show, and say who was right.

No step says which answer is right: each choice names the condition under which it is, and the run decides.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from testbed.facts import Kind

FORMS = ("seen", "hidden", "field", "layer", "egress", "packets", "larger")


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_KINDS = tuple(kind.value for kind in Kind)


class ShowModel(_Model):
    variant: str = Field(description="The variant whose lab it comes from.")
    what: Literal["packet", "packets", "interfaces", "routes"] = Field(
        "packet", description="One packet opened, a list of packets, or the client's interfaces or routes."
    )
    observer: str = Field("isp", description="The tap that recorded it; client-tun is the client's tunnel device.")
    action: str | None = Field(None, description="Only packets from while this action ran, such as 1-dns.")
    protocol: str | None = Field(None, description="Only packets whose last layer is called so: DNS, TCP, OpenVPN.")
    has: str | None = Field(None, description="Only packets in whose line or fields this text stands.")
    most: int = Field(12, ge=1, le=60, description="packets: how many lines at the most.")


class ConditionModel(_Model):
    """Exactly one of seen, hidden, field, layer, egress, packets and larger; the other keys say where."""

    seen: Literal[_KINDS] | None = Field(None, description="A fact of this kind is seen.")  # type: ignore[valid-type]
    hidden: Literal[_KINDS] | None = Field(  # type: ignore[valid-type]
        None, description="Every fact of this kind is hidden."
    )
    field: str | None = Field(None, description="LAYER/FIELD of the packet shown is the text `is`, or contains `has`.")
    layer: str | None = Field(None, description="The packet shown has a layer of this name.")
    egress: str | None = Field(None, description="The interface by which the client's kernel sends to `site`.")
    packets: str | None = Field(None, description="How many packets there are, such as '>= 3' or '0'.")
    larger: str | None = Field(
        None, description="The variant in which the observer counted more octets than in `than`."
    )
    variant: str | None = Field(None, description="Where to look.")
    observer: str | None = Field(None, description="Who looks; default isp.")
    site: str | None = Field(None, description="Which site; egress needs it, seen and hidden may have it.")
    action: str | None = Field(None, description="Only facts of this action, or packets from while it ran.")
    protocol: str | None = Field(None, description="packets: only those whose last layer is called so.")
    has: str | None = Field(None, description="packets: only those in which this text stands; field: what it contains.")
    than: str | None = Field(None, description="larger: the other variant.")
    equals: str | None = Field(None, alias="is", description="field: what it says.")


class ChoiceModel(_Model):
    says: str = Field(min_length=1, description="The answer as it is offered.")
    right: ConditionModel | Literal["otherwise"] | None = Field(
        None, description="When it is right; `otherwise`: when no other one is. Without this key it never is."
    )
    but: str = Field("", description="What to tell a pupil who chose it where it is wrong.")


def _one_as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class StepModel(_Model):
    title: str = Field(min_length=1, description="What the step is about, in a few words.")
    text: str = Field("", description="What a pupil should know before predicting.")
    ask: str = Field(min_length=1, description="The question.")
    choices: list[ChoiceModel] = Field(min_length=2, max_length=6, description="The answers offered.")
    show: Annotated[list[ShowModel], BeforeValidator(_one_as_list), Field(min_length=1)] = Field(
        description="What is shown after the prediction; conditions on fields look at the first packet."
    )
    explain: str = Field(min_length=1, description="Why it is so.")
