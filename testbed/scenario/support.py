"""What this version can run, of everything that a scenario file may say.

One table: a value of the contract that is not in it is understood, and refused by name before anything is built. To
make something runnable, add it here.
"""

from __future__ import annotations

from collections.abc import Iterator

from testbed.scenario.errors import Mistake, shown
from testbed.scenario.model import VariantModel
from testbed.scenario.tree import Located

SUPPORTED: dict[str, tuple[str, ...]] = {
    "tunnel.program": ("vpn", "openvpn", "wireguard", "command"),
    "tunnel.mode": ("tls", "static-key"),
    "tunnel.transport": ("udp", "tcp"),
    "tunnel.cipher": ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CBC"),
    "tunnel.control": ("none", "tls-auth", "tls-crypt", "tls-crypt-v2"),
    "site": ("http", "https", "http3", "dns", "dot", "doh"),
    "link": ("bw", "delay", "jitter", "loss", "duplicate", "reorder", "mtu", "max_queue_size"),
}


def unsupported(model: VariantModel, tree: Located) -> Iterator[Mistake]:
    """Everything in a variant that is right but cannot be run by this version."""
    yield from _tunnel(model, tree)
    for name, site in model.sites.items():
        for service in ("http3", "dns", "dot", "doh"):
            if getattr(site, service) and service not in SUPPORTED["site"]:
                yield tree.at("sites", name, service).mistake(f"{service} is not served yet by this version")
    for name, link in model.links.items():
        for option in sorted(link.model_fields_set - set(SUPPORTED["link"])):
            yield tree.at("links", name, option).key_mistake("links cannot be changed yet by this version")


def _tunnel(model: VariantModel, tree: Located) -> Iterator[Mistake]:
    if model.tunnel is None:
        return
    program = model.tunnel.program
    for end, name in (("client", program.client), ("server", program.server)):
        yield from _refuse(tree.at("tunnel", "program", end), "tunnel.program", name)
    for key in ("mode", "transport", "cipher", "control"):
        value = getattr(model.tunnel, key)
        if key in model.tunnel.model_fields_set and value is not None:
            yield from _refuse(tree.at("tunnel", key), f"tunnel.{key}", value)


def _refuse(place: Located, key: str, value: str) -> Iterator[Mistake]:
    possible = SUPPORTED[key]
    if value not in possible:
        message = f"value {shown(value)}: this version cannot run it yet; it can run {', '.join(possible)}"
        yield place.mistake(message)
