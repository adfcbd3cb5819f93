"""A client of HTTP/3 as aioquic's users write it: `http3_client.py CA ADDRESS HOST PATH [FILE to POST]`.

Prints the status, then the body as text; on stderr the SHA-256 of the body.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent


class Client(QuicConnectionProtocol):
    status = b""
    body = b""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
            self.ended = asyncio.Event()
        if hasattr(self, "http"):
            for one in self.http.handle_event(event):
                if isinstance(one, HeadersReceived):
                    self.status = dict(one.headers)[b":status"]
                elif isinstance(one, DataReceived):
                    self.body += one.data
                if isinstance(one, HeadersReceived | DataReceived) and one.stream_ended:
                    self.ended.set()

    async def fetch(self, host: str, path: str, sent: bytes) -> None:
        stream = self._quic.get_next_available_stream_id()
        method = b"POST" if sent else b"GET"
        headers = [(b":method", method), (b":scheme", b"https")]
        headers += [(b":authority", host.encode()), (b":path", path.encode())]
        self.http.send_headers(stream, headers, end_stream=not sent)
        if sent:
            self.http.send_data(stream, sent, end_stream=True)
        self.transmit()
        await self.ended.wait()


async def main(ca: str, address: str, host: str, path: str, file: str = "") -> None:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, cafile=ca, server_name=host)
    async with connect(address, 443, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        await client.fetch(host, path, Path(file).read_bytes() if file else b"")
        print(client.status.decode())
        print(client.body.decode("utf-8", "replace"), end="")
        print(hashlib.sha256(client.body).hexdigest(), file=sys.stderr)


asyncio.run(main(*sys.argv[1:]))
