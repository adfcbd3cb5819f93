"""`python -m testbed.services`: read the request from stdin, serve until SIGTERM. See `request` for the JSON."""

from __future__ import annotations

import asyncio
import datetime
import functools
import gc
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any

from testbed.lab.namespaces import die_with_parent
from testbed.services.certificates import SiteAuthority
from testbed.services.dns_message import parse_name
from testbed.services.dns_server import NameServer, Responds, SiteResolver, serve_stream, serve_udp
from testbed.services.exchange import ServedSite
from testbed.services.journal import LogDirectory
from testbed.services.listener import (
    DOT_PROTOCOLS,
    HTTPS_PROTOCOLS,
    Listener,
    converse_dot,
    converse_http,
)
from testbed.services.request import Authority, RequestError, Resolver, ServicesRequest, Site
from testbed.services.resolver import ForwardingResolver
from testbed.services.sockets import ListenError, Nodes
from testbed.services.web_log import Connection
from testbed.services.zones import ZoneData, answer

DNS_PORT, HTTP_PORT, HTTPS_PORT, DOT_PORT = 53, 80, 443, 853
LAST_WORDS_S = 0.5  # for answers under way when SIGTERM arrives


@dataclass(slots=True)
class Services:
    """Everything one request asks for, as it is opened."""

    request: ServicesRequest
    nodes: Nodes
    logs: LogDirectory
    listeners: list[Listener] = field(default_factory=list)
    closing: list[Any] = field(default_factory=list)  # servers and datagram transports
    answering: list[set[asyncio.Task[None]]] = field(default_factory=list)  # over HTTP/3

    async def open(self) -> None:
        """Open every socket. Errors: ListenError; ValueError for zones that do not fit together."""
        for authority in self.request.authorities:
            await self._open_authority(authority)
        for resolver in self.request.resolvers:
            await self._open_resolver(resolver)
        await self._open_sites()

    async def close(self) -> None:
        """Stop listening, let answers under way end, then drop what is left."""
        for server in self.closing:
            server.close()
        busy = {task for tasks in self.answering for task in tasks}
        busy |= {task for listener in self.listeners for task in listener.connections}
        if busy:
            _, late = await asyncio.wait(busy, timeout=LAST_WORDS_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _open_authority(self, authority: Authority) -> None:
        zones = tuple(ZoneData.of(zone) for zone in authority.zones)

        async def respond(query: Any) -> Any:
            return answer(zones, query)

        server = NameServer(respond, self.logs.journal(f"dns-{authority.node}"))
        await self._open_name_server(server, authority.node, authority.addresses, freebind=False)

    async def _open_resolver(self, resolver: Resolver) -> None:
        server = NameServer(self._forwarding(resolver).resolve, self.logs.journal(f"dns-{resolver.node}"))
        await self._open_name_server(server, resolver.node, resolver.addresses, freebind=resolver.freebind)

    def _forwarding(self, resolver: Resolver | Site) -> ForwardingResolver:
        return ForwardingResolver(
            open_socket=functools.partial(self.nodes.open, resolver.node),
            forwards={parse_name(zone): servers for zone, servers in resolver.forwards.items()},
            cache=isinstance(resolver, Resolver) and resolver.cache,
        )

    async def _open_name_server(
        self, server: Responds, node: str, addresses: tuple[str, ...], *, freebind: bool
    ) -> None:
        for address in addresses:
            udp = self.nodes.listen(node, address, DNS_PORT, "udp", freebind=freebind)
            self.closing.append(await serve_udp(udp, server))
            tcp = self.nodes.listen(node, address, DNS_PORT, "tcp", freebind=freebind)

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                ends = (writer.get_extra_info(key)[:2] for key in ("peername", "sockname"))
                try:
                    await serve_stream(server, Connection(*ends), reader, writer)
                finally:
                    writer.close()

            self.closing.append(await asyncio.start_server(accept, sock=tcp))

    async def _open_sites(self) -> None:
        served: dict[tuple[str, str, int], dict[str, Site]] = {}
        entries: dict[str, ServedSite] = {}
        ca, now = self._create_authority(), datetime.datetime.now(datetime.UTC)
        for site in self.request.sites:
            entries[site.name] = self._served_site(site, ca, now)
            for port, wanted in _stream_ports(site):
                for address in site.addresses if wanted else ():
                    served.setdefault((site.node, address, port), {})[site.name] = site
            resolver = entries[site.name].resolver
            if site.dns and resolver is not None:
                await self._open_name_server(SiteResolver(resolver), site.node, site.addresses, freebind=site.freebind)
        listeners: dict[tuple[int, tuple[str, ...]], Listener] = {}  # a TLS context costs as much as all else together
        for (node, address, port), sites in served.items():
            key = (port, tuple(sites))
            listener = listeners.get(key) or _listener(port, {name: entries[name] for name in sites})
            listeners[key] = listener
            freebind = any(site.freebind for site in sites.values())
            self.closing.append(await listener.serve(self.nodes.listen(node, address, port, "tcp", freebind=freebind)))
        self.listeners.extend(listeners.values())
        await self._open_http3(ca, now, entries)

    def _served_site(self, site: Site, ca: SiteAuthority, now: datetime.datetime) -> ServedSite:
        journal = self.logs.journal(site.name)
        encrypted = site.https or site.dot or site.doh
        return ServedSite(
            name=site.name,
            journal=journal,
            credentials=ca.issue((site.name,), site.addresses, now) if encrypted else None,
            http3=site.http3,
            resolver=NameServer(self._forwarding(site).resolve, journal) if site.resolves else None,
            queries=site.doh,
            pages=site.http or site.https or site.http3,
        )

    async def _open_http3(self, ca: SiteAuthority, now: datetime.datetime, entries: dict[str, ServedSite]) -> None:
        """Serve every site over QUIC that asks for it; those at one address share a certificate."""
        shared: dict[tuple[str, str], list[Site]] = {}
        for site in self.request.sites:
            for address in site.addresses if site.http3 else ():
                shared.setdefault((site.node, address), []).append(site)
        if not shared:
            return
        from testbed.services import http3  # aioquic takes longer to import than all the rest

        for (node, address), sites in shared.items():
            names = [site.name for site in sites]
            own = entries[names[0]].credentials if len(names) == 1 else None
            credentials = own or ca.issue(names, [address], now)
            sock = self.nodes.listen(node, address, HTTPS_PORT, "udp")
            server, tasks = await http3.serve(sock, {site.name: entries[site.name] for site in sites}, credentials)
            self.closing.append(server)
            self.answering.append(tasks)

    def _create_authority(self) -> SiteAuthority:
        ca = SiteAuthority.create(datetime.datetime.now(datetime.UTC))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self.request.ca_certificate, flags, 0o644), "wb") as file:
            file.write(ca.pem)
        return ca


def _stream_ports(site: Site) -> tuple[tuple[int, bool], ...]:
    return (HTTP_PORT, site.http), (HTTPS_PORT, site.https or site.doh), (DOT_PORT, site.dot)


def _listener(port: int, sites: dict[str, ServedSite]) -> Listener:
    if port == DOT_PORT:
        return Listener(sites, converse_dot, DOT_PROTOCOLS)
    return Listener(sites, converse_http, HTTPS_PROTOCOLS if port == HTTPS_PORT else ())


async def serve(request: ServicesRequest) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    services = Services(request, Nodes(request.nodes), LogDirectory.open(request.log_directory))
    try:
        await services.open()
        gc.freeze()  # what start made lives as long as the process: not worth scanning again
        _say({"ready": True, "sockets": len(services.closing), "ca_certificate": request.ca_certificate})
        await stop.wait()
    finally:
        await services.close()


def main() -> int:
    die_with_parent()
    try:
        asyncio.run(serve(ServicesRequest.from_json(sys.stdin.buffer.read())))
    except ListenError as error:
        _say({"ready": False, "error": str(error), **error.place})
        return 1
    except (RequestError, ValueError, OSError) as error:
        _say({"ready": False, "error": str(error)})
        return 1
    return 0


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
