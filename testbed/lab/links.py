"""What a request changes about a topology's links, and what is wrong with each direction of each link in the end. Pure.

A link whose options all amount to a plain cable gets no engine, unless the request names it: then it can be changed
while the lab runs.
"""

from __future__ import annotations

from testbed.lab.draft import Draft, EndDraft
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.options import OPTIONS, impairment_of
from testbed.lab.model import LabRequest, LinkRequest

Impairments = tuple[Impairment, Impairment] | None


def impair_links(draft: Draft, request: LabRequest) -> list[Impairments]:
    """Apply the request to the draft's links; return, per link, what is wrong from its first end and back."""
    asked = [_apply(draft, link) for link in request.links]
    named = {id(ends[0]) for ends in asked if ends is not None}
    return [_impairments(draft, ends, id(ends[0]) in named) for ends in draft.links]


def _apply(draft: Draft, link: LinkRequest) -> tuple[EndDraft, EndDraft] | None:
    """Apply one request; return the link that it says something about besides its MTU."""
    # Compared joined: a scenario writes client-isp, and a node's name may itself contain a hyphen.
    wanted = f"{link.a}-{link.b}"
    found = [ends for ends in draft.links if wanted in (_joined(*ends), _joined(*reversed(ends)))]
    if len(found) != 1:
        known = ", ".join(_joined(*ends) for ends in draft.links)
        what = "there is no such link" if not found else "there are several such links"
        draft.problem(f"link {wanted}", f"{what}; there are {known}")
        return None
    options = {key: float(value) for key in OPTIONS if (value := getattr(link, key)) is not None}
    for end in found[0]:
        end.impairments.update(options)
        end.mtu_octets = link.mtu_octets or end.mtu_octets
    return found[0] if options or link.mtu_octets is None else None


def _joined(end1: EndDraft, end2: EndDraft) -> str:
    return f"{end1.node}-{end2.node}"


def _impairments(draft: Draft, ends: tuple[EndDraft, EndDraft], named: bool) -> Impairments:
    if not named and not any(end.impairments for end in ends):
        return None
    found = []
    for end in ends:
        try:
            found.append(impairment_of(end.impairments))
        except ValueError as error:
            draft.problem(f"link {end.node} - {end.peer}, from {end.node}", str(error))
            found.append(Impairment())
    return found[0], found[1]
