"""The shape of a scenario file: every key, its type, its range and what it means.

The descriptions become the JSON Schema that editors show. What concerns more than one key (combinations, names that
must exist) is in `check`; what a version can run, in `support`. `VariantModel` is what remains of a file for one
variant after the merge; `ScenarioModel` is the file as a person writes it and exists for the schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema

from testbed.facts import Kind
from testbed.scenario import bounds, words
from testbed.scenario.fault_model import EventModel
from testbed.scenario.lesson_model import StepModel
from testbed.scenario.model_base import (
    ARGV,
    TEXT,
    Address,
    Argument,
    CommandLine,
    Duration,
    Model,
    OrBare,
    Percent,
    bare_is,
    one_as_list,
    word,
)

PROGRAMS = ("vpn", "openvpn", "wireguard", "command")
CIPHERS = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CBC")
Program = Literal["vpn", "openvpn", "wireguard", "command"]
Cipher = Literal["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-256-CBC"]
Control = Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2"]
DnsType = Literal["A", "AAAA", "TXT", "MX", "NS", "SOA", "CNAME", "PTR", "SRV", "CAA", "HTTPS"]


def _program_for_both(value: Any) -> Any:
    return value if isinstance(value, dict) else {"client": value, "server": value}


_BOUND: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*(>=|<=|==|!=|=|>|<)?\s*(none|never|[0-9.].*)$"},
        {"type": "number", "minimum": 0},
    ]
}

HostName = Annotated[str, word(words.host_name)]
Prefix = Annotated[str, word(lambda text: text if text == "all" else words.prefix(text))]
Option = Annotated[str, word(words.option_line)]
Transport = Literal["udp", "tcp", "dot", "doh"]
Server = Annotated[str, word(words.resolver)]
HttpVersion = Annotated[
    Literal["1.1", "2", "3"],
    BeforeValidator(words.http_version),
    WithJsonSchema({"enum": ["1.1", "2", "3", 1.1, 2, 3]}),
]
Count = Annotated[Any, word(bounds.count), WithJsonSchema(_BOUND | {"examples": [">= 2"]})]
Leaks = Annotated[Any, word(bounds.leaks), WithJsonSchema(_BOUND | {"examples": ["none", ">= 1"]})]
PacketNumber = Annotated[Any, word(bounds.packet), WithJsonSchema(_BOUND | {"examples": [">= 100", "never"]})]
Seconds = Annotated[Any, word(bounds.seconds), WithJsonSchema(_BOUND | {"examples": [">= 2s", "never"]})]
Octets = Annotated[Any, word(bounds.octets), WithJsonSchema(_BOUND | {"examples": ["<= 20 kB"]})]


class TopologyModel(Model):
    name: Annotated[str, word(words.topology)] = Field(
        description="A topology that ships (client-isp-server), or ./file.py:Class with a mininet Topo of your own."
    )
    params: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Parameters of the topology's class, as under Mininet."
    )


class LinkModel(Model):
    bw: Annotated[float, Field(gt=0)] | None = Field(None, description="Rate in Mbit/s.")
    delay: Duration | None = Field(None, description="One-way delay, such as 20ms.")
    jitter: Duration | None = Field(None, description="Random part of the delay, such as 2ms.")
    loss: Percent | None = Field(None, description="Packets lost, in percent.")
    duplicate: Percent | None = Field(None, description="Packets duplicated, in percent.")
    reorder: Percent | None = Field(None, description="Packets overtaken by later ones, in percent.")
    mtu: Annotated[int, Field(ge=1280, le=65535)] | None = Field(
        None, description="Largest packet in octets, 1280 or more because of IPv6."
    )
    max_queue_size: Annotated[int, Field(gt=0)] | None = Field(None, description="Packets a queue holds.")


class SiteModel(Model):
    address: Annotated[
        list[Address],
        BeforeValidator(one_as_list),
        Field(min_length=1),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = Field(description="The site's address, or a list of them (IPv4 and IPv6).")
    node: str = Field(description="The node of the topology that serves it.")
    http: bool = Field(False, description="Serve HTTP/1.1 and clear HTTP/2 (prior knowledge) at port 80.")
    https: bool = Field(
        False, description="Serve HTTPS at port 443, HTTP/2 and HTTP/1.1, with a certificate of the lab's CA."
    )
    http3: bool = Field(False, description="Serve HTTP/3 at UDP port 443; https then advertises it (Alt-Svc).")
    dns: bool = Field(False, description="Be a resolver for everybody, over UDP and TCP at port 53.")
    dot: bool = Field(False, description="Be a resolver over TLS (DoT) at port 853.")
    doh: bool = Field(False, description="Be a resolver over HTTPS (DoH) at port 443, path /dns-query.")
    private: bool = Field(False, description="Only the resolver behind the VPN knows the name.")


class ProgramModel(Model):
    client: Program = Field(description="The program at the client's end.")
    server: Program = Field(description="The program at the server's end.")


def _both_ends(value: Any) -> Any:
    return value if isinstance(value, dict) else {"client": value, "server": value}


class OptionsModel(Model):
    client: list[Option] = Field(default_factory=list, description="Lines of the client's configuration.")
    server: list[Option] = Field(default_factory=list, description="Lines of the server's configuration.")


class FilesModel(Model):
    client: dict[str, str] = Field(default_factory=dict, description="Files of the client, by name.")
    server: dict[str, str] = Field(default_factory=dict, description="Files of the server, by name.")


class ReadyModel(Model):
    client: Annotated[str, Field(min_length=1)] | None = Field(None, description="What the client says when it is up.")
    server: Annotated[str, Field(min_length=1)] | None = Field(None, description="What the server says when it is up.")


class CommandModel(Model):
    """A VPN of the user's own. `{server}`, `{client}`, `{keys}` and `{dir}` stand for what the lab knows."""

    client: CommandLine = Field(description="The client's program and its arguments; no shell.")
    server: CommandLine = Field(description="The server's program and its arguments; no shell.")
    files: FilesModel = Field(FilesModel(), description="Files written into {dir} of each end, by end and name.")
    ready: Annotated[ReadyModel, BeforeValidator(_both_ends), OrBare(TEXT)] = Field(
        ReadyModel(client=None, server=None),
        description="Words in an end's output that say it is up; one text for both, or by end.",
    )
    address: Address | None = Field(
        None, description="An address inside the tunnel that answers a ping of the client's when the tunnel is up."
    )
    device: Annotated[str, word(words.interface)] = Field("tun0", description="The client's tunnel device.")


class TunnelModel(Model):
    program: Annotated[
        ProgramModel,
        BeforeValidator(_program_for_both),
        OrBare({"enum": list(PROGRAMS)}),
    ] = Field(
        ProgramModel(client="vpn", server="vpn"),
        description="Who runs it: vpn (this project's), openvpn, wireguard, command; or {client: …, server: …}.",
    )
    mode: Literal["tls", "static-key"] = Field(
        "tls", description="How keys are agreed; static-key is for teaching only."
    )
    transport: Literal["udp", "tcp"] = Field("udp", description="What the tunnel's own packets travel in.")
    cipher: Cipher | None = Field(
        None, description="The data channel's cipher. Default: AES-256-GCM; with static-key AES-256-CBC."
    )
    control: Control | None = Field(
        None, description="What protects the control channel. Default: tls-crypt; with static-key none."
    )
    routes: Annotated[
        list[Prefix],
        BeforeValidator(one_as_list),
        WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(
        ["all"],
        description="What goes through the tunnel: all, or a list of prefixes (split tunnel); [] sets no route.",
    )
    dns: Literal["tunnel", "isp"] = Field(
        "tunnel", description="Which resolver the client asks: the one behind the VPN, or the ISP's."
    )
    options: Annotated[
        OptionsModel, BeforeValidator(_both_ends), OrBare({"type": "array", "items": {"type": "string"}})
    ] = Field(
        OptionsModel(),
        description="Further lines of OpenVPN's configuration, for vpn and openvpn: a list for both ends, or by end.",
    )
    command: CommandModel | None = Field(None, description="The programs of `program: command`.")


class LookupModel(Model):
    over: Transport = Field("udp", description="udp, tcp, dot (over TLS, port 853) or doh (over HTTPS, HTTP/2).")
    server: Server | None = Field(
        None,
        description="The resolver: a site's name (looked up in clear first), an address, or address#name. "
        "Default: the one that the client's node has, known by its address.",
    )


class ActionOptions(Model):
    timeout: Duration = Field(5.0, description="When to give up, such as 5s.")
    at: Duration | None = Field(None, description="When to start, counted from the start of the workload.")


class DnsOptions(ActionOptions):
    name: HostName = Field(description="The name to look up.")
    types: list[DnsType] = Field(["A", "AAAA"], min_length=1, description="The record types to ask for.")
    over: Transport | None = Field(None, description="Ask over udp, tcp, dot or doh. Default: the variant's `dns`.")
    server: Server | None = Field(None, description="The resolver to ask. Default: the variant's `dns`.")


class FetchOptions(ActionOptions):
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] = Field(
        "GET", description="HTTP method."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Header lines to send besides the usual ones.")
    body: str | None = Field(None, description="What to send as the body; needs a method that has one.")
    family: Literal["any", "ipv4", "ipv6"] = Field("any", description="Which of the site's addresses to use.")
    version: HttpVersion = Field("1.1", description="HTTP version: 1.1, 2 (in clear by prior knowledge) or 3.")


class HttpOptions(FetchOptions):
    url: Annotated[str, word(words.url, "http")] = Field(description="The page to open, http://…")


class HttpsOptions(FetchOptions):
    url: Annotated[str, word(words.url, "https")] = Field(description="The page to open, https://…")


class PingOptions(ActionOptions):
    host: str = Field(description="The site or address to ping.")
    count: int = Field(1, ge=1, le=1000, description="Echo requests to send.")
    interval: Duration = Field(0.2, description="Time between two of them.")
    family: Literal["any", "ipv4", "ipv6"] = Field("any", description="Which of the site's addresses to use.")


class RunOptions(ActionOptions):
    argv: list[Argument] = Field(min_length=1, description="The program and its arguments; no shell.")


class ActionModel(Model):
    """One item of the workload: exactly one of these keys."""

    dns: Annotated[DnsOptions, bare_is("name"), OrBare(TEXT)] | None = Field(None, description="Look a name up.")
    http: Annotated[HttpOptions, bare_is("url"), OrBare(TEXT)] | None = Field(None, description="Open a page.")
    https: Annotated[HttpsOptions, bare_is("url"), OrBare(TEXT)] | None = Field(None, description="Open a page.")
    ping: Annotated[PingOptions, bare_is("host"), OrBare(TEXT)] | None = Field(None, description="Ping a site.")
    run: Annotated[RunOptions, bare_is("argv"), OrBare(ARGV)] | None = Field(
        None, description="Run any program in the client's node."
    )


class TapModel(Model):
    name: Annotated[str, word(words.tap_name)] = Field(description="The observer's name; also names the capture file.")
    node: str = Field(description="The node that listens.")
    interface: Annotated[str, word(words.interface)] | None = Field(
        None, description="At which of its interfaces; default: the one towards the client."
    )
    ring_octets: Annotated[int, Field(ge=1, le=1 << 30)] | None = Field(
        None, description="Room for packets not yet written. A tiny ring overflows: a negative control."
    )
    snap_octets: Annotated[int, Field(ge=64, le=1 << 18)] | None = Field(
        None, description="How much of each packet to keep; with less than all, nothing can be called hidden."
    )


def _tap_from_name(value: Any) -> Any:
    return {"name": value, "node": value} if isinstance(value, str) else value


Tap = Annotated[
    TapModel,
    BeforeValidator(_tap_from_name),
    OrBare(TEXT),
]


class SelectorModel(Model):
    kind: Literal[tuple(kind.value for kind in Kind)] = Field(description="What the fact is about.")  # type: ignore[valid-type]
    site: str | None = Field(None, description="Only facts about this site.")
    action: str | None = Field(None, description="Only facts of this action, such as 2-http.")
    value: str | None = Field(None, description="Only this value.")
    count: Count | None = Field(
        None, description='How many different facts: of sees, how many are seen; of hides, how many there are, ">= 2".'
    )


Selector = Annotated[
    SelectorModel,
    bare_is("kind"),
    OrBare({"enum": [kind.value for kind in Kind]}),
]


class ExpectModel(Model):
    variant: str = Field(description="The variant this is about.")
    observer: str = Field(description="A tap's name, or server:<site> for what that site's log recorded.")
    sees: list[Selector] = Field(default_factory=list, description="At least one fact of each of these is seen.")
    hides: list[Selector] = Field(default_factory=list, description="Every fact of each of these is hidden.")
    leaks: Leaks | None = Field(
        None, description="How many things leaked beside the tunnel here: none, or a comparison."
    )
    first_leak_after: Seconds | None = Field(
        None, description="When the first leak came, counted from the start of the workload; no leak is later than any."
    )
    tunnel_detected_at_packet: PacketNumber | None = Field(
        None,
        description="At which packet of the tunnel's conversation a rule recognised it; never is beyond any number.",
    )
    volume: Octets | None = Field(None, description="How many octets of frames this tap recorded.")
    packets: Count | None = Field(None, description="How many frames this tap recorded.")
    overhead: Octets | None = Field(
        None, description="Octets of outer IP packets beyond the inner packet's own, on average."
    )
    client_address: (
        Annotated[
            list[Address],
            BeforeValidator(one_as_list),
            Field(min_length=1),
            WithJsonSchema({"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}),
        ]
        | None
    ) = Field(
        None, alias="client-address", description="Of server:<site>: the addresses from which alone requests came."
    )


class VariantModel(Model):
    """The keys that a variant may change; what a variant is once everything is merged."""

    title: str | None = Field(None, min_length=1, description="One line for people.")
    topology: Annotated[
        TopologyModel,
        bare_is("name"),
        OrBare(TEXT),
    ] = Field(TopologyModel(name="client-isp-server"), description="The network to build.")
    sites: dict[str, SiteModel] = Field(default_factory=dict, description="The lab's Internet, by host name.")
    tunnel: TunnelModel | None = Field(None, description="The tunnel; null = none.")
    workload: list[ActionModel] = Field(default_factory=list, description="What the client does, in order.")
    taps: list[Tap] = Field(
        [TapModel.model_validate({"name": "isp", "node": "isp"})], description="Who listens, and where."
    )
    links: dict[str, LinkModel] = Field(default_factory=dict, description="Changes to links, such as client-isp.")
    events: list[EventModel] = Field(
        default_factory=list, description="Faults on a timeline that begins with the workload: kill, start, link, run."
    )
    dns: Annotated[LookupModel, bare_is("over"), OrBare({"enum": ["udp", "tcp", "dot", "doh"]})] = Field(
        LookupModel(over="udp", server=None), description="How the client asks for names."
    )


class ScenarioModel(VariantModel):
    """A scenario file of the VPN testbed."""

    title: str = Field(min_length=1, description="The question this scenario asks, in one line.")
    description: str = Field("", description="What it is about, in a paragraph.")
    seed: int = Field(1, ge=0, lt=1 << 63, description="Makes every made-up value repeatable.")
    variants: dict[str, dict[str, JsonValue] | None] = Field(
        default_factory=dict, description="Ways to run the workload: each overrides the keys above."
    )
    expect: list[ExpectModel] = Field(default_factory=list, description="What must be seen and what must be hidden.")
    lesson: list[StepModel] = Field(default_factory=list, description="Steps for `testbed lesson`: predict, see, know.")


class HeadModel(Model):
    """The keys of a file that no variant changes."""

    title: str | None = Field(None, min_length=1)  # `load` asks for it, so that the rest is checked without it
    description: str = ""
    seed: int = Field(1, ge=0, lt=1 << 63)
    expect: list[ExpectModel] = Field(default_factory=list)
    lesson: list[StepModel] = Field(default_factory=list)
