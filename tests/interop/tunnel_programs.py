"""Tunnels and ordinary programs, all in one lab and on one wire: what `test_tunnel_detection` judges the observer by.

    client ── isp (recorded) ── transit ─┬─ vpn    servers of every tunnel, each on a port of its own
                                         └─ web    HTTPS, QUIC, DTLS, DNS, iperf3, SSH without forwarding

Everything starts at once and runs side by side, so that the whole takes some seconds. The recording program is tcpdump,
every tunnel is judged by its port alone, and nothing here imports the observer.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop.tunnel_lab import OPENVPN, OURS, READY, SERVER, WEB, Program, TunnelLab

PATIENCE_SECONDS = 120.0
PAGE_OCTETS = 140_000  # through each tunnel: with what acknowledges it, more than the 100 packets that a pattern needs
OPENVPN_PORT = 2001
WIREGUARD_PORT, TINC_PORT, FASTD_PORT, FORWARDING_PORT = 2101, 655, 2103, 2104
HTTPS_PORT, QUIC_PORT, DTLS_PORT, SHELL_PORT, COPY_PORT, DNS_PORT = 443, 4443, 4444, 2222, 2223, 53
IPERFS = {5201: (), 5202: ("-R",), 5203: ("-u", "-b", "20M", "-R")}  # by port: TCP there, back, UDP back
FORWARDED_PAGES = 12
SELF = Path(__file__)


@dataclass(frozen=True, slots=True)
class OpenVpn:
    """One pair of OpenVPN peers. Shape: `wrapping` is one of `TLS_WRAPPINGS` or `STATIC`."""

    program: str
    transport: str
    wrapping: str

    @property
    def name(self) -> str:
        return f"{self.program} {self.transport} {self.wrapping}"

    @property
    def has_clear_control(self) -> bool:
        return self.wrapping == "none" or self.wrapping.startswith("tls-auth")

    @property
    def tls(self) -> str:
        """The version inside of the control channel."""
        return "1.2" if (self.program, self.transport, self.wrapping) in WITH_TLS_1_2 else "1.3"


TLS_WRAPPINGS = ("none", "tls-auth SHA1", "tls-auth SHA256", "tls-auth SHA512", "tls-crypt", "tls-crypt-v2")
FEWER_WRAPPINGS = ("none", "tls-auth SHA256", "tls-crypt", "tls-crypt-v2")
STATIC = ("static SHA1", "static SHA256")
# Each way to have the control channel in clear with the one version of TLS or the other, UDP and TCP with both.
WITH_TLS_1_2 = frozenset(
    (
        *((OPENVPN, "udp", wrapping) for wrapping in ("tls-auth SHA1", "tls-auth SHA512")),
        (OPENVPN, "tcp", "none"),
        *((OURS, "udp", wrapping) for wrapping in ("none", "tls-auth SHA256")),
    )
)
OPENVPNS = (
    *(OpenVpn(OPENVPN, "udp", wrapping) for wrapping in (*TLS_WRAPPINGS, *STATIC)),
    *(OpenVpn(OPENVPN, "tcp", wrapping) for wrapping in (*FEWER_WRAPPINGS, *STATIC)),
    *(OpenVpn(OURS, "udp", wrapping) for wrapping in (*FEWER_WRAPPINGS, "static SHA256")),
    *(OpenVpn(OURS, "tcp", wrapping) for wrapping in ("none", "tls-crypt", "static SHA256")),
)


def openvpn_port(index: int) -> int:
    return OPENVPN_PORT + index


class Programs:
    """Starts everything and waits until each tunnel has carried its page."""

    def __init__(self, lab: TunnelLab, keys: Path) -> None:
        self.lab = lab
        self.keys = keys

    def run_all(self, capture: Path) -> None:
        self._servers()
        with recorded(self.lab, "isp", "isp-eth0", capture):
            tunnels = [self._openvpn_client(index, pair) for index, pair in enumerate(OPENVPNS)]
            tunnels += [self._tinc("client"), self._fastd("client")]
            self._wireguard("client")
            forwarding = self._forwarding()
            ordinary = self._ordinary()
            for tunnel in tunnels[: len(OPENVPNS)]:
                tunnel.wait_for(READY, PATIENCE_SECONDS)
            pages = [self._page(f"10.8.{index}.1") for index in range(len(OPENVPNS))]
            pages += [self._page(f"10.9.{number}.1") for number in (1, 2, 3)]
            for program in (*pages, *ordinary, forwarding):
                if program.wait(PATIENCE_SECONDS):
                    raise AssertionError(f"{program.name} failed:\n{program.text()[-3000:]}")

    def _servers(self) -> None:
        lab = self.lab
        self._inner_services("vpn")
        serving = []
        for index, pair in enumerate(OPENVPNS):
            serving.append(lab.tunnel(pair.program, "vpn", self._config(index, pair, "server")))
        self._tinc("vpn")
        self._fastd("vpn")
        self._wireguard("vpn")
        self._dropbear("vpn", FORWARDING_PORT)
        for port in (SHELL_PORT, COPY_PORT):
            self._dropbear("web", port)
        self._inner_services("web")
        certificate = ["-cert", f"{self.keys}/server.crt", "-key", f"{self.keys}/server.key"]
        lab.start("web", ["openssl", "s_server", "-accept", f"{WEB}:{HTTPS_PORT}", "-www", *certificate], "https")
        dtls = shlex.join(["openssl", "s_server", "-dtls", "-quiet", "-accept", f"{WEB}:{DTLS_PORT}", *certificate])
        lab.start("web", ["sh", "-c", f"while sleep 0.05; do echo an answer; done | {dtls}"], "dtls")
        for port in IPERFS:
            lab.start("web", ["iperf3", "-s", "-p", str(port)], "iperf3")
        lab.start("web", self._self("serve-quic", str(QUIC_PORT), *certificate[1::2]))
        for port in (*IPERFS, HTTPS_PORT):
            self._listens("web", "t", port)
        for port in (DTLS_PORT, QUIC_PORT):
            self._listens("web", "u", port)
        for pair, program in zip(OPENVPNS, serving, strict=True):
            is_static = pair.wrapping.startswith("static")
            bound = "link local (bound)" if pair.transport == "udp" else "isten"
            program.wait_for(bound if is_static else READY, PATIENCE_SECONDS)

    def _listens(self, node: str, kind: str, port: int) -> None:
        """Returns once a program of the node listens. Shape: `kind` is t for TCP, u for UDP."""
        test = f'[ -n "$(ss -Hln{kind} sport = :{port})" ]'
        self._until(node, test)

    def _until(self, node: str, test: str) -> None:
        self._run(node, "timeout", str(PATIENCE_SECONDS), "sh", "-c", f"until {test}; do sleep 0.05; done")

    def _inner_services(self, node: str) -> None:
        argv = [sys.executable, str(SELF.with_name("inner_services.py"))]
        self.lab.start(node, argv, "services").wait_for("serving", PATIENCE_SECONDS)

    def _run(self, node: str, *argv: str) -> str:
        return self.lab.output(node, *argv, seconds=PATIENCE_SECONDS)

    def _self(self, *words: str) -> list[str]:
        return [sys.executable, str(SELF), *words]

    def _openvpn_client(self, index: int, pair: OpenVpn) -> Program:
        return self.lab.tunnel(pair.program, "client", self._config(index, pair, "client"))

    def _config(self, index: int, pair: OpenVpn, role: str) -> str:
        kind, _, digest = pair.wrapping.partition(" ")
        is_server, is_tcp = role == "server", pair.transport == "tcp"
        lines = [f"dev tun{index}", "verb 3", f"proto {pair.transport}" + (f"-{role}" if is_tcp else "")]
        port = openvpn_port(index)
        lines += [f"local {SERVER}", f"port {port}"] if is_server else [f"remote {SERVER} {port}", "nobind"]
        if kind == "static":
            own, peer = (1, 2) if is_server else (2, 1)
            lines += [f"ifconfig 10.8.{index}.{own} 10.8.{index}.{peer}", f"secret {self.keys}/static.key"]
            lines += ["cipher AES-256-CBC", f"auth {digest}", "keepalive 1 60"]  # ready once the other end was heard
            return "\n".join(lines) + "\n"
        lines += [f"ca {self.keys}/ca.crt", f"cert {self.keys}/{role}.crt", f"key {self.keys}/{role}.key"]
        if is_server:
            lines += ["mode server", "tls-server", "topology subnet", f"server 10.8.{index}.0 255.255.255.0", "dh none"]
        else:
            lines += ["client", "remote-cert-tls server"]
        names = {
            "tls-auth": f"tls-auth {self.keys}/static.key {0 if is_server else 1}",
            "tls-crypt": f"tls-crypt {self.keys}/tls-crypt.key",
            "tls-crypt-v2": f"tls-crypt-v2 {self.keys}/tls-crypt-v2-{role}.key",
        }
        lines += [names[kind]] if kind in names else []
        lines += [f"auth {digest}"] if digest else []
        lines += ["tls-version-max 1.2"] if pair.tls == "1.2" else []
        return "\n".join(lines) + "\n"

    def _page(self, host: str) -> Program:
        """Fetches a page through a tunnel as soon as it carries one."""
        words = ["--retry", "40", "--retry-delay", "1", "--retry-all-errors", "--connect-timeout", "2", "-m", "100"]
        return self._curl(*words, f"http://{host}/octets/{PAGE_OCTETS}", name=f"page-{host}")

    def _curl(self, *words: str, name: str = "") -> Program:
        fixed = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "-o", "/dev/null"]
        return self.lab.start("client", [*fixed, *words], name)

    def _tinc(self, node: str) -> Program:
        """One daemon of tinc 1.0, with keys that both find in one folder."""
        folder = self.lab.folder / "tinc" / node
        if not (folder.parent / "done").exists():
            for name in ("vpn", "client"):
                self._tinc_folder(folder.parent / name, name)
            (folder.parent / "done").touch()
            for name, other in (("vpn", "client"), ("client", "vpn")):
                text = (folder.parent / other / "hosts" / other).read_text()
                (folder.parent / name / "hosts" / other).write_text(text)
        return self.lab.start(node, ["tincd", "-c", str(folder), "-D", "-d", "2", f"--pidfile={folder}/pid"], "tinc")

    def _tinc_folder(self, folder: Path, name: str) -> None:
        (folder / "hosts").mkdir(parents=True)
        own = {"vpn": 1, "client": 2}[name]
        connect = "ConnectTo = vpn\n" if name == "client" else ""
        (folder / "tinc.conf").write_text(f"Name = {name}\nInterface = tinc0\n{connect}")
        address = f"Address = {SERVER}\n" if name == "vpn" else ""
        (folder / "hosts" / name).write_text(f"{address}Port = {TINC_PORT}\nSubnet = 10.9.1.{own}/32\n")
        script = folder / "tinc-up"
        script.write_text(f"#!/bin/sh\nip addr add 10.9.1.{own}/24 dev $INTERFACE\nip link set $INTERFACE up\n")
        script.chmod(0o755)
        self._run("client", "sh", "-c", f"tincd -c {shlex.quote(str(folder))} -K1024 </dev/null")

    def _fastd(self, node: str) -> Program:
        keys = self.lab.folder / "fastd.keys"
        if not keys.exists():
            keys.write_text("".join(self._run("client", "fastd", "--generate-key", "--machine-readable") for _ in "12"))
        secrets = dict(zip(("vpn", "client"), keys.read_text().split(), strict=True))
        other, own = ("client", 1) if node == "vpn" else ("vpn", 2)
        path = self.lab.folder / f"fastd-{node}.conf"
        path.write_text(f'secret "{secrets[other]}";\n')
        public = self._run("client", "fastd", "--config", str(path), "--show-key", "--machine-readable").strip()
        remote = f'remote ipv4 "{SERVER}" port {FASTD_PORT};' if node == "client" else ""
        bind = f"bind any port {FASTD_PORT};" if node == "vpn" else ""
        path.write_text(
            f'log level verbose; mode tun; interface "fastd0"; method "salsa2012+umac"; mtu 1400; {bind}\n'
            f'secret "{secrets[node]}"; peer "{other}" {{ key "{public}"; {remote} }}\n'
            f'on up "ip addr add 10.9.2.{own} peer 10.9.2.{3 - own} dev $INTERFACE; ip link set $INTERFACE up";\n'
        )
        return self.lab.start(node, ["fastd", "--config", str(path)], "fastd")

    def _wireguard(self, node: str) -> None:
        """wireguard-go in the foreground, and wg to set it up."""
        lab, interface = self.lab, f"wg-{node}"
        own, other = (1, "client") if node == "vpn" else (2, "vpn")
        keys = {name: lab.folder / f"wireguard-{name}" for name in ("vpn", "client")}
        for path in keys.values():
            if not path.exists():
                path.write_text(self._run(node, "wg", "genkey"))
        public = self._run(node, "sh", "-c", f"wg pubkey <{shlex.quote(str(keys[other]))}").strip()
        lab.start(node, ["wireguard-go", "-f", interface])
        end = ["endpoint", f"{SERVER}:{WIREGUARD_PORT}"] if node == "client" else []
        port = ["listen-port", str(WIREGUARD_PORT)] if node == "vpn" else []
        peer = ["peer", public, "allowed-ips", "10.9.3.0/24", *end]
        self._until(node, f"wg show {interface} >/dev/null 2>&1")
        self._run(node, "wg", "set", interface, "private-key", str(keys[node]), *port, *peer)
        self._run(node, "ip", "addr", "add", f"10.9.3.{own}/24", "dev", interface)
        self._run(node, "ip", "link", "set", interface, "up")

    def _dropbear(self, node: str, port: int) -> None:
        """An SSH server that knows one key, in a home directory that ends with it."""
        key = self.lab.folder / "ssh.key"
        if not key.exists():
            self._run("client", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
            self._run("client", "dropbearkey", "-t", "ed25519", "-f", f"{key}.host")
        words = [shlex.quote(str(path)) for path in (f"{key}.pub", f"{key}.host")]
        home = "mount -t tmpfs -o mode=700 none /root && mkdir -m 700 /root/.ssh"
        home += f" && cp {words[0]} /root/.ssh/authorized_keys"
        serve = f"exec dropbear -F -E -p {port} -r {words[1]} -P /root/pid"
        program = self.lab.start(node, ["unshare", "-m", "sh", "-c", f"{home} && {serve}"], f"dropbear-{port}")
        program.wait_for("Not backgrounding", PATIENCE_SECONDS)

    def _ssh(self, address: str, port: int, *words: str) -> list[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        options += ["IdentitiesOnly=yes", f"IdentityFile={self.lab.folder / 'ssh.key'}", f"Port={port}"]
        fixed = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *fixed, *words, f"root@{address}"]

    def _forwarding(self) -> Program:
        """Pages one after the other over a forwarded port, as a browser's traffic through `ssh -L` is."""
        self.lab.start("client", self._ssh(SERVER, FORWARDING_PORT, "-N", "-L", f"8080:{SERVER}:80"), "ssh-L")
        self._listens("client", "t", 8080)
        header = "Cookie: " + "c" * 300
        urls = [f"http://127.0.0.1:8080/octets/{3_000 + number}" for number in range(FORWARDED_PAGES)]
        outputs = [word for _ in urls[1:] for word in ("-o", "/dev/null")]
        return self._curl(*outputs, "-H", header, *urls, name="forwarded")

    def _ordinary(self) -> list[Program]:
        """What people do without a tunnel."""
        lab, folder = self.lab, self.lab.folder
        keystrokes = "for i in $(seq 60); do echo -n x; sleep 0.02; done; echo"
        shell = shlex.join([*self._ssh(WEB, SHELL_PORT, "-tt"), "head", "-n1"])
        copy = shlex.join(self._ssh(WEB, COPY_PORT)) + " 'head -c 2000000 /dev/zero'"
        queries = " ".join(["inner.example", "A", "inner.example", "AAAA", "nothing.example", "TXT"] * 20)
        https = [f"https://{WEB}:{HTTPS_PORT}/"] * 12
        outputs = [word for _ in https[1:] for word in ("-o", "/dev/null")]
        lines = "for i in $(seq 80); do echo line $i of the talk; sleep 0.01; done"
        talk = f"({lines}) | openssl s_client -dtls -quiet -no_ign_eof -connect {WEB}:{DTLS_PORT} 2>/dev/null"
        return [
            self._curl("-k", *outputs, *https, name="https"),
            lab.start("client", ["sh", "-c", f"dig @{WEB} +tries=3 {queries} >/dev/null"], "dig"),
            lab.start("client", self._self("ask-quic", str(QUIC_PORT))),
            *(
                lab.start("client", ["iperf3", "-c", WEB, "-p", str(port), "-n", "1M", *words])
                for port, words in IPERFS.items()
            ),
            lab.start("client", ["sh", "-c", f"({keystrokes}) | {shell}"], "shell"),
            lab.start("client", ["sh", "-c", f"{copy} >{folder}/copy"], "copy"),
            lab.start("client", ["sh", "-c", talk], "talk"),
            lab.start("client", ["ping", "-n", "-c", "20", "-i", "0.05", "-s", "1000", WEB], "ping"),
        ]


@contextmanager
def recorded(lab: TunnelLab, node: str, device: str, path: Path) -> Iterator[None]:
    """What crosses a link, recorded by tcpdump."""
    argv = ["tcpdump", "-i", device, "-w", str(path), "-U", "-s", "0", "--immediate-mode", "-B", "65536", "-Z", "root"]
    program = lab.start(node, argv, f"tcpdump-{device}")
    program.wait_for("listening on", PATIENCE_SECONDS)
    try:
        yield
    finally:
        program.stop()


def serve_quic(port: int, certificate: str, key: str) -> None:
    """A QUIC server that answers each stream with as many octets as its text says."""
    import asyncio

    from aioquic.asyncio.server import serve
    from aioquic.quic.configuration import QuicConfiguration

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(int(await reader.read())))
        writer.write_eof()

    answers = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.ensure_future(answer(reader, writer)))

    async def main() -> None:
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["octets"])
        configuration.load_cert_chain(certificate, key)
        await serve(WEB, port, configuration=configuration, stream_handler=begin)
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def ask_quic(port: int) -> None:
    import asyncio
    import ssl

    from aioquic.asyncio.client import connect
    from aioquic.quic.configuration import QuicConfiguration

    async def main() -> None:
        configuration = QuicConfiguration(
            alpn_protocols=["octets"], verify_mode=ssl.CERT_NONE, server_name="web.example"
        )
        async with connect(WEB, port, configuration=configuration) as connection:
            for _ in range(5):
                reader, writer = await connection.create_stream()
                writer.write(b"50000")
                writer.write_eof()
                if len(await reader.read()) != 50_000:
                    raise SystemExit("the answer is short")

    asyncio.run(main())


def main(words: Sequence[str]) -> None:
    if words[0] == "serve-quic":
        serve_quic(int(words[1]), words[2], words[3])
    else:
        ask_quic(int(words[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
