"""Programs of today talk over one wire, and our tap records it, for `test_observer_protocols_against_tshark`.

curl with HTTP/1.1 and HTTP/2 in clear, dig with EDNS, openssl with TLS and DTLS, Chromium and aioquic with QUIC,
and a few lines of the standard library where no client is at hand (STUN). No octet on the wire is the project's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab.two_nodes import SERVER, SERVER6, TwoNodes, main

SERVERS = str(Path(__file__).with_name("observed_servers.py"))
NAME = "www.example.com"


def make_certificate(directory: Path) -> str:
    """A certificate of openssl's, and the hash of its key by which Chromium is told to trust it."""
    names = f"subjectAltName=DNS:{NAME},DNS:*.example.org"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "9", "-subj", "/CN=site.example.com", "-addext", names]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    public = subprocess.run(
        ["sh", "-c", "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform DER"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return base64.b64encode(hashlib.sha256(public.stdout).digest()).decode()


def everything(nodes: TwoNodes) -> Any:
    key_hash = make_certificate(nodes.directory)
    start_servers(nodes)
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    for port in (53, 80, 443, 444, 445, 1443, 1444, 2443, 3478, 8080):
        nodes.listens("server", port)
    tap = nodes.start_tap(packet_socket, "server:client")
    for speak in (speak_dns, speak_http1, speak_http2, speak_tls, speak_quic, speak_plainly):
        speak(nodes)
    browse(nodes, key_hash)
    return {"stats": tap.stop()}


def start_servers(nodes: TwoNodes) -> None:
    nodes.run("server", "sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1")
    certificate, key = str(nodes.directory / "cert.pem"), str(nodes.directory / "key.pem")
    for words in (("http1",), ("http2",), ("dns",), ("http3", certificate, key)):
        nodes.start("server", sys.executable, SERVERS, *words)
    tls = ["openssl", "s_server", "-cert", certificate, "-key", key, "-quiet"]
    nodes.start("server", *tls, "-www", "-accept", "1443", "-tls1_2", "-alpn", "h2")
    # A group the client has no key share for at first: the server asks for another hello.
    nodes.start("server", *tls, "-www", "-accept", "1444", "-groups", "P-384")
    nodes.start("server", *tls, "-dtls", "-accept", "2443", stdin=subprocess.PIPE)


def speak_dns(nodes: TwoNodes) -> None:
    server = f"@{SERVER}"
    for words in (
        (NAME, "A", "+subnet=198.51.100.0/24"),
        (NAME, "A", "+subnet=2001:db8:77::/48", "+nocookie"),
        (NAME, "A", "+cookie=0123456789abcdef"),
        (NAME, "HTTPS"),
        ("-x", "93.184.216.34"),
        ("many.example.com", "A", "+tcp"),
        ("after.example.com", "A", "+tcp", "+noedns"),
    ):
        nodes.run("client", "dig", server, *words, "+tries=1", "+time=5")
    # Nobody answers there: the error that comes back quotes the question.
    nodes.run("client", "dig", f"@{SERVER}", "-p", "5353", "quoted.example.com", "+tries=1", "+time=5", check=False)


def speak_http1(nodes: TwoNodes) -> None:
    curl = ("curl", "-sS", "--noproxy", "*", "--resolve", f"{NAME}:80:{SERVER}")
    paths = (
        "/br",
        "/gzip",
        "/twice",
        "/both",
        "/deflate",
        "/raw-deflate",
        "/no-br",
        "/trailers",
        "/204",
        "/304",
        "/end",
    )
    urls = [word for path in paths for word in ("-o", "/dev/null", f"http://{NAME}{path}")]
    nodes.run("client", *curl, *urls)
    # HEAD and GET over one connection: an answer of HEAD has a length and no body.
    nodes.run("client", *curl, "-I", f"http://{NAME}/head", "--next", "-sS", f"http://{NAME}/behind-head")


def speak_http2(nodes: TwoNodes) -> None:
    curl = ("curl", "-sS", "--noproxy", "*", "--resolve", f"{NAME}:8080:{SERVER}")
    base = f"http://{NAME}:8080"
    cookie = ("-b", "session=token-8f8f", "-A", "Browser/2.0")
    for path in ("page?id=token-7e7e", "br", "gzip", "twice", "padded", "trailers", "long", "long-header"):
        # One connection each: this curl spoils a second request on a connection of prior knowledge.
        nodes.run("client", *curl, "--http2-prior-knowledge", *cookie, "-o", "/dev/null", f"{base}/{path}")
    nodes.run("client", *curl, "--http2-prior-knowledge", "-d", "user=alice&password=token-9a9a", f"{base}/login")
    long_cookie = "wide=" + "abcdefghij" * 2_000
    nodes.run("client", *curl, "--http2-prior-knowledge", "-b", long_cookie, f"{base}/continued")
    nodes.run("client", *curl, "--http2", f"{base}/upgraded", "-o", "/dev/null", f"{base}/after-upgrade")


def speak_tls(nodes: TwoNodes) -> None:
    for port, *words in (
        ("1443", "-alpn", "h2,http/1.1"),
        ("1444",),
        ("1444", "-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
    ):
        argv = ["openssl", "s_client", "-connect", f"{SERVER}:{port}", "-servername", f"port{port}.example.org", *words]
        nodes.run("client", "sh", "-c", 'echo Q | "$@"', "sh", *argv)
    argv = ["openssl", "s_client", "-dtls", "-connect", f"{SERVER}:2443", "-servername", "dtls.example.org"]
    nodes.run("client", "sh", "-c", '(echo hello; sleep 0.3; echo Q) | "$@"', "sh", *argv)


def speak_quic(nodes: TwoNodes) -> None:
    for words in (("443", "1"), ("444", "1"), ("443", "2"), ("445", "1"), ("443", "both")):
        nodes.run("client", sys.executable, __file__, "quic-client", *words)


def speak_plainly(nodes: TwoNodes) -> None:
    request = "000100002112a442" + "c0ffee" * 4
    program = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(9); "
    program += f"s.sendto(bytes.fromhex({request!r}), ({SERVER6!r}, 3478)); s.recv(999)"
    nodes.run("client", sys.executable, "-c", program)


def browse(nodes: TwoNodes, key_hash: str) -> None:
    """Chromium opens a page over HTTP/3; its hello fills more than one datagram."""
    profile = nodes.directory / "chromium"
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    argv += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-quic"]
    argv += [f"--origin-to-force-quic-on={NAME}:443", f"--host-resolver-rules=MAP {NAME} {SERVER}"]
    argv += [f"--ignore-certificate-errors-spki-list={key_hash}", f"--user-data-dir={profile}", "--dump-dom"]
    done = nodes.run("client", *argv, f"https://{NAME}/")
    if "token-2f2f" not in done.stdout:
        raise AssertionError(f"Chromium did not show the page: {done.stdout} {done.stderr}")


async def open_http3(port: int, version: str) -> None:
    """One page over HTTP/3 with aioquic's client."""
    from aioquic.asyncio.client import connect
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3_ALPN, H3Connection
    from aioquic.h3.events import DataReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import QuicEvent
    from aioquic.quic.packet import QuicProtocolVersion

    one, two = int(QuicProtocolVersion.VERSION_1), int(QuicProtocolVersion.VERSION_2)
    arrived: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    class Client(QuicConnectionProtocol):
        http: H3Connection | None = None

        def quic_event_received(self, event: QuicEvent) -> None:
            for received in self.http.handle_event(event) if self.http else ():
                if isinstance(received, DataReceived) and received.stream_ended and not arrived.done():
                    arrived.set_result(True)

    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        server_name=f"quic{port}-{version}.example.org",
        verify_mode=ssl.CERT_NONE,
        supported_versions={"1": [one, two] if port == 445 else [one], "2": [two], "both": [two, one]}[version],
        original_version=two if version == "2" else one,
    )
    async with connect(SERVER, port, configuration=configuration, create_protocol=Client) as protocol:
        client = protocol
        assert isinstance(client, Client)
        client.http = H3Connection(client._quic)
        stream = client._quic.get_next_available_stream_id()
        headers = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.encode()), (b":path", b"/")]
        client.http.send_headers(stream, headers, end_stream=True)
        client.transmit()
        await asyncio.wait_for(arrived, 20)


if __name__ == "__main__":
    if sys.argv[1] == "quic-client":
        asyncio.run(open_http3(int(sys.argv[2]), sys.argv[3]))
    else:
        main({"everything": everything})
