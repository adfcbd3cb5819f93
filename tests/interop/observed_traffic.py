"""Real programs talk over one wire, and our tap and tcpdump record it: the captures of `test_observer_against_tshark`.

curl, dig, openssl, ping and socat are the client's; the server's ends are openssl's and a few lines each of the
standard library, so that nothing here is code the observer shares.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.lab.two_nodes import SERVER, SERVER6, TwoNodes, main, tcpdump

PAGE = b"<html><body>account of token-8f1e77aa</body></html>"
LONG_BODY = b"".join(b"line %06d of the long body\n" % number for number in range(20_000))
ZONE = {
    ("www.example.com", 1): "www.example.com 60 IN A 93.184.216.34",
    ("www.example.com", 28): "www.example.com 60 IN AAAA 2001:db8:1::34",
    ("shop.example.com", 1): "shop.example.com 60 IN CNAME www.example.com\nwww.example.com 60 IN A 93.184.216.34",
    ("example.com", 15): "example.com 60 IN MX 10 mail.example.com",
    ("example.com", 2): "example.com 60 IN NS ns1.example.com",
    ("_sip._udp.example.com", 33): "_sip._udp.example.com 60 IN SRV 0 5 5060 sip.example.com",
    ("many.example.com", 1): "\n".join(f"many.example.com 60 IN A 203.0.113.{n}" for n in range(1, 101)),
}


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/gzip"):
            self._answer(gzip.compress(PAGE * 40), ("Content-Encoding", "gzip"))
        elif self.path.startswith("/chunked"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (PAGE, b"second chunk", LONG_BODY[:5000]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path.startswith("/close"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(PAGE)
            self.close_connection = True
        elif self.path.startswith("/missing"):
            self.send_error(404)
        else:
            self._answer(LONG_BODY if self.path.startswith("/long") else PAGE, ("Set-Cookie", 'sid="q\\uoted"; Path=/'))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"got %d octets" % len(body))

    def _answer(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def serve_http() -> None:
    for port in (80, 8000):
        server = ThreadingHTTPServer((SERVER, port), Site)
        Thread(target=server.serve_forever, daemon=port == 80).start()


def serve_dns() -> None:
    from dnslib import RR, DNSRecord
    from dnslib.server import BaseResolver, DNSServer

    class Resolver(BaseResolver):  # type: ignore[misc]  # dnslib has no types
        def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
            reply = request.reply()
            found = ZONE.get((str(request.q.qname).rstrip(".").lower(), request.q.qtype))
            for record in RR.fromZone(found) if found else ():
                reply.add_answer(record)
            if not found:
                reply.header.rcode = 3
            return reply

    DNSServer(Resolver(), address=SERVER, port=53).start_thread()
    DNSServer(Resolver(), address=SERVER, port=53, tcp=True).start()


def make_certificate(directory: Path) -> None:
    names = "subjectAltName=DNS:www.example.com,DNS:*.example.org"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=site.example.com", "-addext", names]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)


def everything(nodes: TwoNodes) -> Any:
    """Each client program does its part, one after the other."""
    make_certificate(nodes.directory)
    start_servers(nodes)
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    for port in (53, 80, 8000, 443, 4443, 7000, 7001):
        nodes.listens("server", port)
    tap = nodes.start_tap(packet_socket, "server:client")
    with tcpdump(nodes, "server", "s0", nodes.directory / "tcpdump.pcap"):
        speak_dns(nodes)
        speak_http(nodes)
        speak_tls(nodes)
        speak_plainly(nodes)
    return {"stats": tap.stop()}


def start_servers(nodes: TwoNodes) -> None:
    nodes.run("server", "sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1")
    for part in ("serve-http", "serve-dns"):
        nodes.start("server", sys.executable, __file__, part)
    certificate = [
        "-cert",
        str(nodes.directory / "cert.pem"),
        "-key",
        str(nodes.directory / "key.pem"),
        "-www",
        "-quiet",
    ]
    nodes.start("server", "openssl", "s_server", "-accept", "443", *certificate)
    nodes.start("server", "openssl", "s_server", "-accept", "4443", "-tls1_2", *certificate)
    nodes.start("server", "socat", "UDP4-RECVFROM:7000,fork", "EXEC:cat")
    nodes.start("server", "socat", "TCP6-LISTEN:7001,fork,reuseaddr", "EXEC:cat")


def speak_dns(nodes: TwoNodes) -> None:
    server = f"@{SERVER}"
    for words in (
        ("www.example.com", "A"),
        ("www.example.com", "AAAA"),
        ("WWW.Example.COM", "A"),
        ("shop.example.com", "A"),
        ("example.com", "MX"),
        ("example.com", "NS"),
        ("_sip._udp.example.com", "SRV"),
        ("nowhere.example.com", "A"),
        ("we\\032ird.example.com", "A"),
        ("many.example.com", "A", "+tcp"),
        ("www.example.com", "A", "+tcp"),
    ):
        nodes.run("client", "dig", server, *words, "+tries=1", "+time=5")


def speak_http(nodes: TwoNodes) -> None:
    resolve = [w for port in (80, 8000) for w in ("--resolve", f"www.example.com:{port}:{SERVER}")]
    curl = ("curl", "-sS", "--noproxy", "*", *resolve, "-o", "/dev/null")
    cookie = ("-b", "session=token-51aa; theme=dark", "-A", "Browser/1.0 (\u00e4)")
    nodes.run("client", *curl, *cookie, "http://www.example.com/account?id=token-77cd&x=%22y%22")
    nodes.run("client", *curl, "http://www.example.com:8000/other-port")
    nodes.run("client", *curl, "--compressed", "http://www.example.com/gzip")
    nodes.run("client", *curl, "http://www.example.com/chunked", "-o", "/dev/null", "http://www.example.com/second")
    nodes.run("client", *curl, "http://www.example.com/close")
    nodes.run("client", *curl, "http://www.example.com/missing")
    nodes.run("client", *curl, "-I", "http://www.example.com/head")
    nodes.run("client", *curl, "http://www.example.com/long")
    nodes.run("client", *curl, "-d", "user=alice&password=token-99ee", "http://www.example.com/login")
    nodes.run("client", *curl, "-H", 'X-Quoted: a "b" \\c', "http://www.example.com/quoted")
    nodes.run("client", *curl, "-x", f"http://{SERVER}:80", "http://www.example.com/by-proxy")


def speak_tls(nodes: TwoNodes) -> None:
    for port in (443, 4443):
        resolve = f"www.example.com:{port}:{SERVER}"
        nodes.run(
            "client",
            "curl",
            "-sSk",
            "--noproxy",
            "*",
            "--resolve",
            resolve,
            "-o",
            "/dev/null",
            f"https://www.example.com:{port}/",
        )
    nodes.run(
        "client", "sh", "-c", f"echo Q | openssl s_client -connect {SERVER}:443 -servername sni.example.org -alpn h2"
    )


def speak_plainly(nodes: TwoNodes) -> None:
    nodes.run("client", "ping", "-n", "-c", "2", "-i", "0.05", "-p", "746f6b656e2d61626364", SERVER)
    nodes.run("client", "ping", "-n", "-c", "2", "-i", "0.05", SERVER6)
    nodes.run("client", "ping", "-n", "-c", "1", "-s", "4000", SERVER)
    nodes.run("client", "sh", "-c", f"echo 'datagram with token-12ab' | socat -t 0.3 - UDP4:{SERVER}:7000")
    nodes.run("client", "sh", "-c", f"echo 'stream with token-34cd' | socat -t 1 - TCP6:[{SERVER6}]:7001")


if __name__ == "__main__":
    if sys.argv[1] == "serve-http":
        serve_http()
    elif sys.argv[1] == "serve-dns":
        serve_dns()
    else:
        main({"everything": everything})
