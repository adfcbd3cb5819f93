"""What tests reach through a tunnel: HTTP that gives and takes octets, and DNS with one answer. Both IP versions.

    GET /octets/N    N octets that follow from N alone        POST /    the SHA-256 of what was sent, as text

Runs as a program in a node; says `serving` once it listens.
"""

from __future__ import annotations

import hashlib
import random
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dnslib import AAAA, QTYPE, RR, A, DNSRecord

NAME, ADDRESS, ADDRESS6 = "inner.example.", "10.8.0.53", "2001:db8:8::53"


def octets(count: int) -> bytes:
    return random.Random(count).randbytes(count)


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(octets(int(self.path.rpartition("/")[2])))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


class DualStackServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


class Dns(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        question = DNSRecord.parse(data)
        answer = question.reply()
        if str(question.q.qname) == NAME and question.q.qtype == QTYPE.A:
            answer.add_answer(RR(NAME, QTYPE.A, rdata=A(ADDRESS), ttl=1))
        elif str(question.q.qname) == NAME and question.q.qtype == QTYPE.AAAA:
            answer.add_answer(RR(NAME, QTYPE.AAAA, rdata=AAAA(ADDRESS6), ttl=1))
        sock.sendto(answer.pack(), self.client_address)


class DualStackUdp(socketserver.UDPServer):
    address_family = socket.AF_INET6


def main() -> None:
    web = DualStackServer(("::", 80), Web)
    dns = DualStackUdp(("::", 53), Dns)
    threading.Thread(target=dns.serve_forever, daemon=True).start()
    print("serving", flush=True)
    web.serve_forever()


if __name__ == "__main__":
    main()
