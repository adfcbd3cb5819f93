"""The servers' ends of `observed_programs`: each a few lines around a library, so that nothing here is the observer's.

python observed_servers.py http1 | http2 | http3 CERTIFICATE KEY | dns
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import brotli
import h2.config
import h2.connection
import h2.events
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from aioquic.quic.packet import QuicProtocolVersion

from tests.lab.two_nodes import SERVER, SERVER6

PAGE = b"<html><body>page of token-2f2f</body></html>\n"
LONG_BODY = b"".join(b"line %06d of the long body\n" % number for number in range(5_000))
RAW_DEFLATE = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
RAW_DEFLATED = RAW_DEFLATE.compress(PAGE * 9) + RAW_DEFLATE.flush()
CODED = {
    "/br": ("br", brotli.compress(PAGE * 8)),
    "/gzip": ("gzip", gzip.compress(PAGE * 7)),
    "/twice": ("gzip, gzip", gzip.compress(gzip.compress(PAGE * 6))),
    "/both": ("br, gzip", gzip.compress(brotli.compress(PAGE * 5))),
    "/deflate": ("deflate", zlib.compress(PAGE * 4)),
    "/raw-deflate": ("deflate", RAW_DEFLATED),
    "/no-br": ("br", PAGE * 3),  # not what it claims to be
}
LONG_HEADER = "long-" + "0123456789" * 2_500  # more than one frame holds


class Site(BaseHTTPRequestHandler):
    """HTTP/1.1 with every way to end a message."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in CODED:
            self._answer(200, CODED[path][1], ("Content-Encoding", CODED[path][0]))
        elif path == "/trailers":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Digest")
            self.end_headers()
            self.wfile.write(b"5;note=1\r\nhello\r\n6\r\n again\r\n0\r\nX-Digest: token-3a3a\r\n\r\n")
        elif path in ("/204", "/304"):
            self.send_response(int(path[1:]))
            self.send_header("X-Empty", "token-4b4b")
            if path == "/304":
                self.send_header("Content-Length", "4000")  # of what would have been sent
            self.end_headers()
        else:
            self._answer(200, PAGE)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class ClearHttp2(asyncio.Protocol):
    """HTTP/2 without TLS: by its preface, or by an upgrade from HTTP/1.1."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2: h2.connection.H2Connection | None = None
        self.held = b""
        self.bodies: dict[int, bytes] = {}
        self.paths: dict[int, str] = {}
        self.unsent: dict[int, bytes] = {}

    def data_received(self, data: bytes) -> None:
        if self.h2 is None:
            self.held += data
            if self.held.startswith(b"PRI") or b"\r\n\r\n" not in self.held:
                if len(self.held) < 24:
                    return
                self._begin().initiate_connection()
                data, self.held = self.held, b""
            else:
                self._upgrade()
                return
        assert self.h2 is not None
        for event in self.h2.receive_data(data):
            self._take(event)
        self._flush()

    def _begin(self) -> h2.connection.H2Connection:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
        return self.h2

    def _upgrade(self) -> None:
        head = self.held.decode().split("\r\n")
        settings = next(line.split(": ")[1] for line in head if line.lower().startswith("http2-settings"))
        self.held = b""
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        connection = self._begin()
        connection.initiate_upgrade_connection(settings.encode())
        self._respond(1, head[0].split(" ")[1])
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        assert self.h2 is not None
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers or [])
            self.paths[event.stream_id or 0] = headers[b":path"].decode()
        elif isinstance(event, h2.events.DataReceived):
            stream = event.stream_id or 0
            self.bodies[stream] = self.bodies.get(stream, b"") + (event.data or b"")
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.StreamEnded):
            stream = event.stream_id or 0
            self._respond(stream, self.paths[stream])
        elif isinstance(event, h2.events.WindowUpdated):
            for stream in list(self.unsent):
                self._send(stream)

    def _respond(self, stream: int, path: str) -> None:
        assert self.h2 is not None
        coding, body = CODED.get(path, ("", PAGE))
        if stream in self.bodies:
            body = b"got %d octets" % len(self.bodies[stream])
        elif path == "/long":
            body = LONG_BODY
        headers = [(":status", "200"), ("x-stream", f"token-5c5c-{stream}")]
        headers += [("content-encoding", coding)] if coding else []
        headers += [("x-long", LONG_HEADER)] if path == "/long-header" else []
        self.h2.send_headers(stream, headers)
        if path == "/padded":
            self.h2.send_data(stream, body, pad_length=37, end_stream=True)
        elif path == "/trailers":
            self.h2.send_data(stream, body)
            self.h2.send_headers(stream, [("x-digest", "token-6d6d")], end_stream=True)
        else:
            self.unsent[stream] = body
            self._send(stream)

    def _send(self, stream: int) -> None:
        """As much as the client's windows take, in frames smaller than they need be."""
        assert self.h2 is not None
        while stream in self.unsent:
            room = min(self.h2.local_flow_control_window(stream), 9_000)
            if room <= 0:
                return
            piece, self.unsent[stream] = self.unsent[stream][:room], self.unsent[stream][room:]
            self.h2.send_data(stream, piece, end_stream=not self.unsent[stream])
            if not self.unsent[stream]:
                del self.unsent[stream]

    def _flush(self) -> None:
        assert self.h2 is not None
        self.transport.write(self.h2.data_to_send())


class Http3(QuicConnectionProtocol):
    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is not None:
            for received in self.http.handle_event(event):
                if isinstance(received, HeadersReceived):
                    headers = [(b":status", b"200"), (b"content-type", b"text/html")]
                    self.http.send_headers(received.stream_id, headers)
                    self.http.send_data(received.stream_id, PAGE, end_stream=True)
            self.transmit()


async def serve_http3(certificate: str, key: str) -> None:
    """443 as usual, 444 with a Retry first, 445 for version 2 alone."""
    versions: list[int] = [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2]
    for port, retry, supported in ((443, False, versions), (444, True, versions), (445, False, versions[1:])):
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, supported_versions=supported)
        configuration.load_cert_chain(certificate, key)
        await serve(SERVER, port, configuration=configuration, create_protocol=Http3, retry=retry)
    await asyncio.Future()


async def serve_http2() -> None:
    server = await asyncio.get_running_loop().create_server(ClearHttp2, SERVER, 8080)
    await server.serve_forever()


def serve_http1() -> None:
    ThreadingHTTPServer((SERVER, 80), Site).serve_forever()


ZONE = {
    ("www.example.com", 1): "www.example.com 60 IN A 93.184.216.34",
    ("www.example.com", 65): "www.example.com 60 IN HTTPS 1 . alpn=h3,h2 ipv4hint=93.184.216.34 echconfig=AEX+DQBBpQ==",
    ("34.216.184.93.in-addr.arpa", 12): "34.216.184.93.in-addr.arpa 60 IN PTR www.example.com",
    ("many.example.com", 1): "\n".join(f"many.example.com 60 IN A 203.0.113.{n}" for n in range(1, 200)),
}


def serve_dns() -> None:
    from dnslib import RR, DNSRecord
    from dnslib.server import BaseResolver, DNSServer

    class Resolver(BaseResolver):  # type: ignore[misc]  # dnslib has no types
        def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
            reply = request.reply()
            found = ZONE.get((str(request.q.qname).rstrip(".").lower(), request.q.qtype))
            reply.header.ra = 0  # as one that is asked for its own zone only
            for record in RR.fromZone(found) if found else ():
                reply.add_answer(record)
            return reply

    DNSServer(Resolver(), address=SERVER, port=53).start_thread()
    DNSServer(Resolver(), address=SERVER, port=53, tcp=True).start()


def echo_datagrams() -> None:
    """Answers STUN requests with where they came from, as RFC 8489 has it."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as here:
        here.bind((SERVER6, 3478))
        while True:
            request, (address, port, *_) = here.recvfrom(1500)
            packed = socket.inet_pton(socket.AF_INET6, address)
            mapped = bytes(a ^ b for a, b in zip(packed, request[4:20], strict=True))
            value = b"\0\2" + (port ^ 0x2112).to_bytes(2, "big") + mapped
            attribute = b"\0\x20" + len(value).to_bytes(2, "big") + value
            here.sendto(b"\1\1" + len(attribute).to_bytes(2, "big") + request[4:20] + attribute, (address, port))


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "http3":
        asyncio.run(serve_http3(*arguments))
    elif part == "http2":
        asyncio.run(serve_http2())
    elif part == "dns":
        serve_dns()
    else:
        Thread(target=echo_datagrams, daemon=True).start()
        serve_http1()
