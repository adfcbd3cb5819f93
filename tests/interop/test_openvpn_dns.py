"""Resolvers and blocked traffic: what is pushed, what openvpn tells its scripts about it, and what we make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.role_pairs import ping
from tests.interop.tunnel_configs import Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, WEB, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

WEB6 = "2001:db8:4::34"
FORMS = {
    "dhcp-option": (
        "dhcp-option DNS 10.8.0.1",
        "dhcp-option DNS6 2001:db8:8::1",
        "dhcp-option DOMAIN a.example",
        "dhcp-option DOMAIN-SEARCH b.example",
        "dhcp-option ADAPTER_DOMAIN_SUFFIX c.example",
    ),
    "dns-servers-take-the-place-of-dhcp-options": (
        "dhcp-option DNS 10.8.0.1",
        "dns server 1 address 10.8.0.7 2001:db8:8::7",
        "dns server 0 address 10.8.0.6",
        "dns search-domains x.example y.example",
        "dhcp-option DOMAIN z.example",
    ),
    "a-server-for-one-domain": (
        "dns server 0 address 10.8.0.5",
        "dns server 0 resolve-domains corp.example",
        "dhcp-option DNS 10.8.0.9",
    ),
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def told_by_openvpn(text: str) -> tuple[list[str], set[str]]:
    """Resolvers and search domains that openvpn 2.6 gives to scripts such as update-resolv-conf."""
    options = [line.partition("=")[2].split() for line in text.splitlines() if line.startswith("foreign_option_")]
    servers = [words[2] for words in options if words[1] in ("DNS", "DNS6")]
    return servers, {words[2] for words in options if words[1] not in ("DNS", "DNS6")}


def in_resolv_conf(text: str) -> tuple[list[str], set[str]]:
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    search = [word for words in lines if words[0] == "search" for word in words[1:]]
    return [words[1] for words in lines if words[0] == "nameserver"], set(search)


@pytest.mark.parametrize("name", list(FORMS))
def test_the_resolver_gets_what_openvpn_tells_its_scripts(name: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, FORMS[name])
    environment, script = tmp_path / "environment", tmp_path / "up.sh"
    script.write_text(f"#!/bin/sh\nenv | grep '^foreign_option_' | sort > {environment}\n")
    script.chmod(0o755)

    def with_openvpn(lab: TunnelLab) -> str:
        lab.connect(OPENVPN, setup.server(), OPENVPN, setup.client() + f"script-security 2\nup {script}\n")
        return environment.read_text()

    def with_us(lab: TunnelLab) -> list[str]:
        before = lab.resolv_conf()
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        during = lab.resolv_conf()
        client.stop()
        return [before, during, lab.resolv_conf()]

    before, during, after = in_lab(with_us, tmp_path)
    assert in_resolv_conf(during) == told_by_openvpn(in_lab(with_openvpn, tmp_path))
    assert after == before != during


def test_bypass_dns_keeps_the_present_resolver_outside(keys: Path, tmp_path: Path) -> None:
    """The negative control is the same push without the flag. (openvpn's flag has no effect on Linux.)"""

    def way_to_resolver(*flags: str) -> str | None:
        setup = Setup(keys, (" ".join(("redirect-gateway def1", *flags)),))

        def body(lab: TunnelLab) -> str | None:
            lab.output("client", "sh", "-c", "echo nameserver 9.9.9.9 > /etc/resolv.conf")
            lab.connect(OPENVPN, setup.server(), OURS, setup.client())
            assert lab.egress(WEB) == "tun0"
            return lab.egress("9.9.9.9")

        found: str | None = in_lab(body, tmp_path)
        return found

    assert way_to_resolver() == "tun0"
    assert way_to_resolver("bypass-dns") not in ("tun0", None)


@pytest.mark.parametrize("program", [OPENVPN, OURS])
def test_block_ipv6_lets_programs_fail_at_once_and_nothing_out(program: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, ("redirect-gateway def1 ipv6", "block-ipv6"))

    def body(lab: TunnelLab) -> None:
        watched = {"client": str(lab.egress(WEB)), "vpn": "tun0"}
        ping(lab, WEB6)
        lab.connect(OPENVPN, setup.server(), program, setup.client())
        watchers = [
            lab.start(
                node,
                [
                    "tcpdump",
                    "--immediate-mode",
                    "-i",
                    link,
                    "-U",
                    "-w",
                    str(lab.folder / f"{node}.pcap"),
                    "ip6",
                    "host",
                    WEB6,
                ],
            )
            for node, link in watched.items()
        ]
        for watcher in watchers:
            watcher.wait_for("listening on")
        failed = lab.run("client", "curl", "--silent", "--max-time", "8", f"http://[{WEB6}]/")
        assert failed.returncode == 7  # could not connect: an answer, not a timeout (28)
        ping(lab, INNER_SERVER)
        for watcher, node in zip(watchers, watched, strict=True):
            watcher.stop()
            assert lab.output("client", "tcpdump", "-n", "-r", str(lab.folder / f"{node}.pcap")) == ""

    in_lab(body, tmp_path)


def test_a_rejected_push_ends_the_connection_as_with_openvpn(keys: Path, tmp_path: Path) -> None:
    def said_by(program: str) -> str:
        setup = Setup(keys, ("route 10.20.0.0 255.255.0.0",), client_only=('pull-filter reject "route 10.20"',))

        def body(lab: TunnelLab) -> str:
            lab.tunnel(OPENVPN, "vpn", setup.server()).wait_for("Initialization Sequence Completed")
            client = lab.tunnel(program, "client", setup.client())
            client.wait_for("process restarting")
            assert "10.20.0.0" not in lab.output("client", "ip", "route")
            return client.text()

        found: str = in_lab(body, tmp_path)
        return found

    for program in (OPENVPN, OURS):
        assert "Initialization Sequence Completed" not in said_by(program)
