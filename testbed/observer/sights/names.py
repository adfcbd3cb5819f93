"""What DNS and its relatives on the local link tell: names, the addresses they stand for, and who asks.

mDNS and LLMNR speak DNS's format. A PTR record ties an address to a name as an A record does, and is an answer like it.
"""

from __future__ import annotations

from contextlib import suppress

from testbed.facts import Kind
from testbed.observer import dns, filters
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.streams import Run
from testbed.observer.wire.ech import parse_configurations

DNS_PORTS = {53: "dns", 5353: "mdns", 5355: "llmnr"}
TARGET_FIELDS = {
    dns.NS: "dns.ns",
    dns.CNAME: "dns.cname",
    dns.SOA: "dns.soa.mname",
    dns.PTR: "dns.ptr.domain_name",
    dns.MX: "dns.mx.mail_exchange",
    dns.SRV: "dns.srv.target",
    dns.DNAME: "dns.dname",
    dns.SVCB: "dns.svcb.targetname",
    dns.HTTPS: "dns.svcb.targetname",
}


def sight_dns(message: dns.DnsMessage, via: str, place: Place, findings: Findings, raw_field: str) -> None:
    """Shape: `raw_field` is the field to search for names that Wireshark would spell differently."""

    def sight_name(name: dns.DnsName, field: str) -> None:
        if name.labels:
            known = findings.spellings.get((name.labels, field, raw_field))
            if known is None:
                known = findings.know_spelling(
                    (name.labels, field, raw_field), name.text, _filter(name, field, raw_field)
                )
            text, display_filter = known
            findings.sight(Kind.DNS_NAME, text, place.frame, place.time_ns, display_filter, via)
            findings.name(text, via, place.frame, display_filter)

    def sight_answer(address: str, display_filter: str, name: dns.DnsName) -> None:
        findings.sight(Kind.DNS_ANSWER, address, place.frame, place.time_ns, display_filter, via, name=name.text)

    for question in message.questions:
        sight_name(question, "dns.qry.name")
    asked = {question.labels for question in message.questions}
    for record in message.records:
        if record.address is not None:
            field = "dns.a" if record.type == dns.A else "dns.aaaa"
            sight_answer(record.address, f"{field} == {record.address}", record.owner)
        if record.target is not None:
            sight_name(record.target, TARGET_FIELDS[record.type])
        if record.type == dns.PTR and record.target is not None:
            address = dns.reversed_address(record.owner)
            if address:
                sight_answer(address, filters.equals("dns.resp.name", record.owner.spelled), record.target)
        if record.service is not None:
            for address in record.service.addresses:
                field = "ipv6hint" if ":" in address else "ipv4hint"
                sight_answer(address, f"dns.svcb.svcparam.{field}.ip == {address}", record.owner)
            _hint_service(record.owner, record.service, place, findings)
        if record.type != dns.OPT and record.owner.labels not in asked:
            apart = record.type == dns.SRV and len(record.owner.labels) > 2
            sight_name(record.owner, "dns.srv.name" if apart else "dns.resp.name")


def _filter(name: dns.DnsName, field: str, raw_field: str) -> str:
    """The filter for a name that stands in Wireshark's `field`."""
    if not name.plain:
        return f"{raw_field} contains {filters.octets(name.wire)}"
    spelled = name.spelled  # exactly so: names are compared to the letter
    display_filter = filters.equals(field, spelled)
    if field == "dns.srv.name":  # Wireshark takes a service's name apart
        service, protocol, rest = spelled.split(".", 2)
        terms = (("dns.srv.service", service), ("dns.srv.proto", protocol), (field, rest))
        display_filter = " && ".join(filters.equals(part, value) for part, value in terms)
    if field in ("dns.srv.name", "dns.resp.name"):  # else it would find every ordinary answer again
        display_filter += f" && !({filters.equals('dns.qry.name', spelled)})"
    return display_filter


def _hint_service(owner: dns.DnsName, service: dns.Service, place: Place, findings: Findings) -> None:
    """How else the host can be reached: what its HTTPS record offers."""
    named = filters.equals("dns.resp.name", owner.spelled)
    if service.alpn:
        protocols = ",".join(as_text(protocol) for protocol in service.alpn)
        findings.hint("alpn-offered", protocols, owner.text, place, f"{named} && dns.svcb.svcparam.alpn")
    if service.encrypted_client_hello:
        offers = parse_configurations(service.encrypted_client_hello)
        for offer in offers:
            findings.know_ech_offer(as_text(offer.public_name).lower(), offer.config_id, owner.text)
        words = ",".join(f"{as_text(offer.public_name)} (configuration {offer.config_id})" for offer in offers)
        findings.hint("ech-offered", words or "yes", owner.text, place, f"{named} && dns.svcb.svcparam.echconfig")


def hint_edns(edns: dns.Edns, client: str, place: Place, findings: Findings) -> None:
    """What the question's extensions tell of who asks."""
    if edns.subnet:
        address = edns.subnet.split("/")[0]
        field = "dns.opt.client.addr6" if ":" in address else "dns.opt.client.addr4"
        findings.hint("edns-client-subnet", edns.subnet, client, place, f"{field} == {address}")
    if edns.client_cookie:
        cookie = edns.client_cookie
        findings.hint("edns-cookie", cookie.hex(), client, place, f"dns.opt.cookie.client == {cookie.hex(':')}")


def dissect_names(flow: FlowState, via: str, data: bytes, place: Place, findings: Findings) -> bool:
    """A datagram of a port of DNS, mDNS or LLMNR. Returns whether it is such a message."""
    try:
        message = dns.parse_message(data)
    except dns.Malformed as error:
        findings.warn(f"a datagram of a DNS port is no DNS message: {error}", place.frame)
        return False
    _sight_message(flow, message, via, place, findings, "udp.payload")
    return True


def dissect_name_streams(flow: FlowState, findings: Findings) -> bool:
    """DNS over TCP: messages with two octets of length before each. Returns whether there was any."""
    read = [
        _dissect_run(flow, side, run, findings) for side in (flow.client, flow.server) for run in side.recorder.runs()
    ]
    return any(read)


def _dissect_run(flow: FlowState, side: Side, run: Run, findings: Findings) -> bool:
    """Octets without a hole. Returns whether they have any message; what has more nonsense than messages is left."""
    at = _first_message(side, run) if run.start in side.recorder.gaps else 0
    read = nonsense = 0
    while at + 2 <= len(run.data):
        start, end = at + 2, at + 2 + int.from_bytes(run.data[at : at + 2], "big")
        if end > len(run.data):
            break
        at = end
        if start == end:
            continue
        place = Place(*side.recorder.completed(run.start + end))
        try:
            message = dns.parse_message(run.data[start:end])
        except dns.Malformed as error:
            findings.warn(f"a message of a DNS port is no DNS message: {error}", place.frame)
            nonsense += 1
            if nonsense > read:
                break
            continue
        _sight_message(flow, message, "dns", place, findings, "tcp.payload")
        read += 1
    return read > 0


def _first_message(side: Side, run: Run) -> int:
    """Where the first whole message begins behind a hole, which may end in the middle of one: where a segment does."""
    for at in side.recorder.segments_of(run):
        end = at + 2 + int.from_bytes(run.data[at : at + 2], "big")
        if end <= len(run.data):
            with suppress(dns.Malformed):
                dns.parse_message(run.data[at + 2 : end])
                return at
    return len(run.data)


def _sight_message(
    flow: FlowState, message: dns.DnsMessage, via: str, place: Place, findings: Findings, raw_field: str
) -> None:
    flow.application = via
    if message.broken:
        findings.warn(f"a DNS message cannot be read to its end: {message.broken}", place.frame)
    if via == "dns" and message.is_response and message.recursion_available:
        findings.resolvers.add(flow.server.endpoint.address)
    sight_dns(message, via, place, findings, raw_field)
    if message.edns.subnet or message.edns.client_cookie:
        hint_edns(message.edns, flow.client.endpoint.address, place, findings)
