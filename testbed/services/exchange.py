"""What every HTTP version does with a request once it has been read: find the site, let it answer, log it once.

The versions differ in how requests come and answers go (`http1`, `http2`, `http3`); what is said is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.services import doh
from testbed.services.certificates import Credentials
from testbed.services.dns_server import NameServer
from testbed.services.journal import Journal
from testbed.services.pages import SET_COOKIE_HEADER, UPLOAD_OCTETS, Answer, answer_request, refusal
from testbed.services.web_log import RequestRecord

IDLE_S = 30.0
ALT_SVC = ("Alt-Svc", 'h3=":443"; ma=86400')  # RFC 9114 section 3.1.1


@dataclass(frozen=True, slots=True)
class ServedSite:
    """A site as one listening address serves it.

    Shape: `resolver` answers its DNS queries, those over HTTPS only where `queries` says so; a site without `pages`
        serves nothing else over HTTP.
    """

    name: str
    journal: Journal
    credentials: Credentials | None = None
    http3: bool = False
    resolver: NameServer | None = None
    queries: bool = False
    pages: bool = True


def find_site(sites: Mapping[str, ServedSite], host: str | None) -> ServedSite:
    """The site of a Host header or SNI: its own name, or one it is a sub-domain of; else the first."""
    name = (host or "").partition(":")[0].rstrip(".").lower()
    while name:
        if name in sites:
            return sites[name]
        name = name.partition(".")[2]
    return next(iter(sites.values()))


async def answer(sites: Mapping[str, ServedSite], record: RequestRecord) -> Answer:
    """What the site says to a request that has come in full."""
    if record.body_octets > UPLOAD_OCTETS:
        record.error = "body too long"
        return refusal(413, "Body too long")
    site = find_site(sites, record.host)
    said = await _page_or_query(site, record)
    if site.http3 and record.connection.tls and record.protocol != "HTTP/3":
        said = Answer(said.status, (*said.headers, ALT_SVC), said.body, said.pattern_octets)
    return said


async def _page_or_query(site: ServedSite, record: RequestRecord) -> Answer:
    method, target = record.method or "", record.target or ""
    if site.resolver is not None and site.queries and record.connection.tls and doh.is_query(target):
        kind, body = record.header("content-type"), bytes(record.body)
        said, record.dns = await doh.answer_query(site.resolver, method, target, kind, body)
        return said
    if not site.pages:
        return refusal(404, f"Only {doh.PATH} is served here")
    cookie, visitor = record.header(SET_COOKIE_HEADER), record.connection.source[0]
    return answer_request(site.name, method, target, cookie, visitor, record.body_octets)


def log(sites: Mapping[str, ServedSite], record: RequestRecord) -> None:
    """Log a request once, if there was one."""
    if not record.logged and (record.method is not None or record.error):
        record.logged = True
        find_site(sites, record.host).journal.write(record.line())
