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
from testbed.services.dns_server import NameServer, serve_stream, serve_udp
from testbed.services.http1 import Listener, ServedSite
from testbed.services.journal import LogDirectory
from testbed.services.request import Authority, RequestError, Resolver, ServicesRequest
from testbed.services.resolver import ForwardingResolver
from testbed.services.sockets import ListenError, Nodes
from testbed.services.zones import ZoneData, answer

DNS_PORT, HTTP_PORT, HTTPS_PORT = 53, 80, 443
LAST_WORDS_S = 0.5  # for answers under way when SIGTERM arrives


@dataclass(slots=True)
class Services:
    """Everything one request asks for, as it is opened."""

    request: ServicesRequest
    nodes: Nodes
    logs: LogDirectory
    listeners: list[Listener] = field(default_factory=list)
    closing: list[Any] = field(default_factory=list)  # servers and datagram transports

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
        busy = {task for listener in self.listeners for task in listener.connections}
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
        forwarding = ForwardingResolver(
            open_socket=functools.partial(self.nodes.open, resolver.node),
            forwards={parse_name(zone): servers for zone, servers in resolver.forwards.items()},
            cache=resolver.cache,
        )
        server = NameServer(forwarding.resolve, self.logs.journal(f"dns-{resolver.node}"))
        await self._open_name_server(server, resolver.node, resolver.addresses, freebind=resolver.freebind)

    async def _open_name_server(
        self, server: NameServer, node: str, addresses: tuple[str, ...], *, freebind: bool
    ) -> None:
        for address in addresses:
            udp = self.nodes.listen(node, address, DNS_PORT, "udp", freebind=freebind)
            self.closing.append(await serve_udp(udp, server))
            tcp = self.nodes.listen(node, address, DNS_PORT, "tcp", freebind=freebind)

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    await serve_stream(server, reader, writer)
                finally:
                    writer.close()

            self.closing.append(await asyncio.start_server(accept, sock=tcp))

    async def _open_sites(self) -> None:
        served: dict[tuple[str, str, int], dict[str, ServedSite]] = {}
        ca = self._create_authority()
        now = datetime.datetime.now(datetime.UTC)
        for site in self.request.sites:
            credentials = ca.issue(site.name, site.addresses, now) if site.https else None
            entry = ServedSite(site.name, self.logs.journal(site.name), credentials)
            for port, wanted in ((HTTP_PORT, site.http), (HTTPS_PORT, site.https)):
                for address in site.addresses if wanted else ():
                    served.setdefault((site.node, address, port), {})[site.name] = entry
        for (node, address, port), sites in served.items():
            listener = Listener(sites, tls=port == HTTPS_PORT)
            self.listeners.append(listener)
            self.closing.append(await listener.serve(self.nodes.listen(node, address, port, "tcp")))

    def _create_authority(self) -> SiteAuthority:
        ca = SiteAuthority.create(datetime.datetime.now(datetime.UTC))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self.request.ca_certificate, flags, 0o644), "wb") as file:
            file.write(ca.pem)
        return ca


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
