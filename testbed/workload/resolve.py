"""Names to addresses as programs do it: through getaddrinfo, with the lookup noted as what it is.

Where the action asks for names over TLS or HTTPS, or of a resolver of its own, it asks there instead, as a browser with
its own resolver does; IPv6 addresses come first then, unless there is no way to them.

getaddrinfo cannot be interrupted, so it runs in a thread that is abandoned at the deadline. A literal address or a
name of the hosts file is no lookup and leaves no fact.
"""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from pathlib import Path

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt

FAMILIES = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
HOSTS = Path("/etc/hosts")

_WORDS = {
    socket.EAI_NONAME: "no such name",
    socket.EAI_NODATA: "the name has no address",
    socket.EAI_AGAIN: "no answer from the name server",
    socket.EAI_FAIL: "the name server could not answer",
    socket.EAI_ADDRFAMILY: "the name has no address of that family",
}


def resolve(attempt: Attempt, host: str, tokens: tuple[str, ...]) -> list[str]:
    """The addresses of `host`, best first. Errors: ActionFailed in words."""
    if is_address(host):
        return [str(ip_address(host))]
    if not in_hosts_file(host) and (attempt.action.over != "udp" or attempt.action.server is not None):
        return _by_own_resolver(attempt, host, tokens)
    return resolve_by_system(attempt, host, tokens)


def resolve_by_system(attempt: Attempt, host: str, tokens: tuple[str, ...]) -> list[str]:
    """The addresses of `host` as getaddrinfo gives them. Errors: ActionFailed in words."""
    asks = not in_hosts_file(host)
    if asks:
        attempt.note_name(Kind.DNS_NAME, host, tokens)
    addresses = _ask(attempt, host)
    if asks:
        for address in addresses:
            attempt.note(Kind.DNS_ANSWER, address, attempt.site_of_name(host))
    return addresses


def _by_own_resolver(attempt: Attempt, host: str, tokens: tuple[str, ...]) -> list[str]:
    from testbed.workload.dns_lookup import addresses_of  # not for who asks the system

    kinds = {"any": ("AAAA", "A"), "ipv4": ("A",), "ipv6": ("AAAA",)}[attempt.action.family]
    addresses = addresses_of(attempt, host, kinds, tokens)
    return sorted(addresses, key=lambda address: not _has_way_to(address))


def _has_way_to(address: str) -> bool:
    """Whether the kernel has a route there and an address to send from; nothing is sent."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.connect_ex((address, 1)) == 0


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def in_hosts_file(host: str) -> bool:
    """Whether the hosts file has the name, so that no name server is asked."""
    try:
        lines = HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(host in line.partition("#")[0].lower().split()[1:] for line in lines)


def _ask(attempt: Attempt, host: str) -> list[str]:
    answers: list[list[str] | socket.gaierror | UnicodeError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, FAMILIES[attempt.action.family], socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (socket.gaierror, UnicodeError) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(attempt.remaining_s())
    if not answers:
        raise ActionFailed(f"{host}: no answer from the name server within {attempt.action.timeout:g} s")
    answer = answers[0]
    if isinstance(answer, list):
        return answer
    number = answer.errno if isinstance(answer, socket.gaierror) else None
    raise ActionFailed(f"{host}: {_WORDS.get(number or 0, str(answer))}")
