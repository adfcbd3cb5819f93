"""The three kinds of configuration: client, server, static key. Options in, core and driver settings out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from vpn.config.errors import Place
from vpn.config.files import FileReader
from vpn.config.management import build_management
from vpn.config.model import (
    Admission,
    Configuration,
    CoreSettings,
    DriverSettings,
    Family,
    OutputSettings,
    Protocol,
    ServerAddresses,
)
from vpn.config.network import (
    build_device,
    build_local_options,
    build_remotes,
    build_retry,
    build_socket,
    server_network6,
)
from vpn.config.option import Role
from vpn.config.options import Options
from vpn.config.security import (
    build_compression,
    build_control,
    build_data,
    build_digest,
    build_mssfix,
    build_static_cipher,
    build_tls,
    key_direction,
)
from vpn.crypto.static_key import parse_static_key
from vpn.push import Route
from vpn.settings import (
    ClientCertificate,
    ClientSettings,
    Pool,
    PullFilter,
    ServerSettings,
    StaticKeySettings,
    Timers,
    TlsSettings,
    Topology,
    Transport,
)
from vpn.wire.packet import Malformed

_CLIENTS_ONLY = (
    "push", "client-config-dir", "client-to-client", "duplicate-cn", "max-clients", "auth-user-pass-verify",
    "auth-gen-token", "username-as-common-name",
)  # fmt: skip
_SERVER_PREFIX6 = range(64, 125)  # openvpn's range for server-ipv6


def build_configuration(options: Options, files: FileReader, place: Place) -> Configuration:
    """The settings that `options` come to. Mistakes go into `options.problems`; the caller raises them."""
    listens = options.role is Role.SERVER or (not options.has("remote") and not options.connections)
    socket = build_socket(options, listens=listens)
    driver = DriverSettings(
        device=build_device(options),
        socket=socket,
        remotes=build_remotes(options),
        retry=build_retry(options),
        local_options=build_local_options(options),
        set_addresses=not options.has("ifconfig-noexec"),
        set_routes=not options.has("route-noexec"),
        management=build_management(options, files),
        output=build_output(options, files),
        journal_directory=files.path(options.value("journal-dir", DriverSettings().journal_directory)),
        restart_signal_ends=options.value("remap-usr1") == "SIGTERM",
        niceness=options.value("nice", 0),
    )
    core: CoreSettings
    if options.role is Role.STATIC_KEY:
        core = _static_key(options, files, socket.protocol, listens=listens)
    elif options.role is Role.SERVER:
        core, driver = _server(options, files, driver, place)
    else:
        core, driver = _client(options, files, driver, place)
    return Configuration(core, driver, tuple(options.warnings))


def build_output(options: Options, files: FileReader) -> OutputSettings:
    append = options.last("log-append")

    def path(name: str) -> Path | None:
        word = options.value(name)
        return files.path(word) if word else None

    return OutputSettings(
        verb=options.value("verb", 1),
        log_file=path("log-append") if append else path("log"),
        append=append is not None,
        timestamps=not options.has("suppress-timestamps"),
        status_file=path("status"),
        status_seconds=options.value("status", 60, index=1),
        status_version=int(options.value("status-version", "1")),
        keylog_file=path("tls-keylog"),
        pid_file=path("writepid"),
    )


def build_timers(options: Options) -> Timers:
    """Timers of either role; `keepalive` is worked out by the caller, since it differs."""
    defaults = Timers()
    reneg = options.value("reneg-sec", int(defaults.reneg_sec))
    return Timers(
        tls_timeout=float(options.value("tls-timeout", defaults.tls_timeout)),
        hand_window=float(options.value("hand-window", defaults.hand_window)),
        tran_window=float(options.value("tran-window", defaults.tran_window)),
        reneg_sec=float(reneg),
        reneg_bytes=options.value("reneg-bytes", 0),
        reneg_pkts=options.value("reneg-pkts", 0),
        ping=float(options.value("ping", 0)),
        ping_restart=float(options.value("ping-restart", defaults.ping_restart)),
        ping_exit=float(options.value("ping-exit", 0)),
        inactive=float(options.value("inactive", 0)),
        inactive_octets=options.value("inactive", 0, index=1) or 0,
        session_timeout=float(options.value("session-timeout", 0)),
    )


def _require_identity(options: Options, tls: TlsSettings, place: Place, *, certificate: bool) -> None:
    needed = {"ca": tls.ca} | ({"cert": tls.certificate, "key": tls.private_key} if certificate else {})
    for name, text in needed.items():
        if not text and not options.has(name):
            options.lack(name, "missing: give a file name or an inline block", place)


def _client(
    options: Options, files: FileReader, driver: DriverSettings, place: Place
) -> tuple[ClientSettings, DriverSettings]:
    tls = build_tls(options, files)
    credentials = options.last("auth-user-pass")
    _require_identity(options, tls, place, certificate=credentials is None or options.has("cert"))
    if not driver.remotes:
        options.lack("remote", "missing: a client needs the server's address", place)
    pull = options.has("client") or options.has("pull")
    if not pull:
        _require_addresses(options, "client", place)
    if tls.ca and not (tls.remote_cert_tls or tls.verify_name):
        options.warnings.append(
            "WARNING: No server certificate verification method has been enabled "
            "(remote-cert-tls server, or verify-x509-name)."
        )
    username, password = _read_credentials(options, files)
    protocol = driver.remotes[0].protocol if driver.remotes else Protocol()
    timers = build_timers(options)
    if keepalive := options.last("keepalive"):
        timers = replace(timers, ping=float(keepalive.values[0]), ping_restart=float(keepalive.values[1]))
    elif not pull:
        timers = replace(timers, ping_restart=float(options.value("ping-restart", 0)))
    core = ClientSettings(
        tls=tls,
        pull=pull,
        control=build_control(options, files),
        data=build_data(options, protocol),
        timers=timers,
        transport=protocol.transport,
        transport_ipv6=protocol.family is Family.IPV6,
        username=username,
        password=password,
        peer_info=_peer_info(options),
        pull_filters=tuple(PullFilter(*entry.values) for entry in options.all("pull-filter")),
        route_nopull=options.has("route-nopull"),
        allow_pull_fqdn=options.has("allow-pull-fqdn"),
        float_server=options.has("float"),
        explicit_exit_notify=options.value("explicit-exit-notify", 1) > 0,
        max_packet_octets=options.value("max-packet-size", 1250),
        tls_key_export=options.value("key-derivation", "tls-ekm") == "tls-ekm",
    )
    driver = replace(
        driver,
        ask_credentials=credentials is not None and not (username and password),
        retry_after_auth_failure=options.value("auth-retry", "none") != "none",
        exit_on_tls_failure=options.has("tls-exit"),
    )
    return core, driver


def _require_addresses(options: Options, role: str, place: Place) -> None:
    """Point-to-point: nobody gives out addresses."""
    if not (options.has("ifconfig") or options.has("ifconfig-ipv6")):
        reason = "without it the tunnel is point-to-point, and each end needs its own address (ifconfig OWN PEER)"
        options.lack(role, f"missing: {reason}", place)


def _read_credentials(options: Options, files: FileReader) -> tuple[str, str]:
    """User name and password from the file of auth-user-pass: one line each; empty where they are to be asked for."""
    entry = options.last("auth-user-pass")
    if entry is None or entry.values[0] is None:
        return "", ""
    lines = [*files.text(options, entry, secret=True).splitlines(), "", ""]
    if not lines[0]:
        options.refuse(entry, "the first line must hold the user name")
    return lines[0], lines[1]


def _peer_info(options: Options) -> tuple[tuple[str, str], ...]:
    """Lines for the server about this client: `setenv UV_… value` and IV_… names."""
    pairs = [(e.values[0], " ".join(e.values[1] or ())) for e in options.all("setenv")]
    pairs += [(e.values[0], e.values[1] or "") for e in options.all("setenv-safe")]
    allowed = ("UV_", "IV_") if options.has("push-peer-info") else ("IV_GUI_VER", "IV_SSO")
    return tuple((name, value) for name, value in pairs if name.startswith(allowed))


def _server(
    options: Options, files: FileReader, driver: DriverSettings, place: Place
) -> tuple[ServerSettings, DriverSettings]:
    tls = build_tls(options, files)
    _require_identity(options, tls, place, certificate=True)
    equal = not (options.has("server") or options.has("server-ipv6") or options.value("mode") == "server")
    pool, addresses = _equal_addresses(options, driver, place) if equal else _pool(options, place)
    admission = build_admission(options, files)
    if tls.client_certificate is ClientCertificate.NONE and not admission.verify_command:
        options.warnings.append(
            "WARNING: POTENTIALLY DANGEROUS OPTION --verify-client-cert none|optional may accept clients which do not "
            "present a certificate"
        )
    protocol = driver.socket.protocol
    timers = build_timers(options)
    timers = replace(timers, ping_restart=float(options.value("ping-restart", 0)))
    ping, restart = (0, 0)
    if keepalive := options.last("keepalive"):
        ping, restart = keepalive.values
        timers = replace(timers, ping=float(ping), ping_restart=float(restart if equal else 2 * restart))
    token = options.last("auth-gen-token")
    core = ServerSettings(
        tls=tls,
        pool=pool,
        control=build_control(options, files),
        data=build_data(options, protocol),
        timers=timers,
        transport=protocol.transport,
        transport_ipv6=protocol.family is Family.IPV6 or ":" in driver.socket.local,
        point_to_point=equal,
        push=tuple(entry.values[0] for entry in options.all("push")),
        push_ping=ping,
        push_ping_restart=restart,
        external_admission=bool(admission.verify_command or admission.client_config_directory),
        password_required=bool(admission.verify_command) and not admission.password_optional,
        username_as_common_name=options.has("username-as-common-name"),
        client_to_client=options.has("client-to-client"),
        duplicate_cn=options.has("duplicate-cn"),
        max_clients=options.value("max-clients", 1024),
        auth_token_lifetime=float(token.values[0] or 0) if token else None,
        auth_token_renewal=_token_renewal(options),
        connect_freq_initial=_connect_frequency(options),
        explicit_exit_notify=_exit_notify(options, protocol),
        max_packet_octets=options.value("max-packet-size", 1250),
        tls_key_export=options.value("key-derivation", "tls-ekm") == "tls-ekm",
    )
    local = driver.local_options
    if pool.ipv4 is not None and pool.topology is not Topology.SUBNET:
        # in net30 and p2p no address of the interface brings the clients' network along
        local = replace(local, routes=(Route(pool.ipv4), *local.routes))
    return core, replace(driver, server=addresses, admission=admission, local_options=local)


def _token_renewal(options: Options) -> float:
    """The second word of `auth-gen-token`; 0 without, which stands for reneg-sec."""
    entry = options.last("auth-gen-token")
    if entry is None:
        return 0.0
    renewal, *_ = words = [word for word in entry.values[1:] if word is not None] or ["0"]
    if "external-auth" in words:
        options.refuse(entry, "external-auth: tokens are checked here, not by auth-user-pass-verify")
    elif not (renewal.isascii() and renewal.isdigit()):
        options.refuse(entry, f"{renewal!r}: the renewal time is a number of seconds")
    else:
        return float(renewal)
    return 0.0


def _exit_notify(options: Options, protocol: Protocol) -> int:
    entry = options.last("explicit-exit-notify")
    if entry is None:
        return 0
    if protocol.transport is Transport.TCP:
        options.refuse(entry, "can only be used with proto udp")
    return 1 if entry.values[0] is None else min(int(entry.values[0]), 2)


def _connect_frequency(options: Options) -> tuple[int, float]:
    entry = options.last("connect-freq-initial")
    return (int(entry.values[0]), float(entry.values[1])) if entry else (100, 10.0)


def build_admission(options: Options, files: FileReader) -> Admission:
    """client-config-dir and auth-user-pass-verify."""
    defaults = Admission()
    directory = options.value("client-config-dir")
    if directory and not files.path(directory).is_dir() and (entry := options.last("client-config-dir")):
        options.refuse(entry, f"{files.path(directory)}: no such directory")
    command: tuple[str, ...] = ()
    by_file = True
    if verify := options.last("auth-user-pass-verify"):
        if int(options.value("script-security", "1")) < 2:
            options.refuse(verify, "calls a program, which needs script-security 2")
        command = tuple(shlex.split(verify.values[0]))
        by_file = verify.values[1] == "via-file"
        if not by_file and int(options.value("script-security", "1")) < 3:
            options.refuse(verify, "a password in the environment needs script-security 3; use via-file")
    return Admission(
        client_config_directory=files.path(directory) if directory else None,
        client_config_required=options.has("ccd-exclusive"),
        verify_command=command,
        verify_by_file=by_file,
        password_optional=options.has("auth-user-pass-optional"),
        temporary_directory=Path(options.value("tmp-dir", defaults.temporary_directory)),
    )


def _equal_addresses(options: Options, driver: DriverSettings, place: Place) -> tuple[Pool, ServerAddresses]:
    """The TLS server of a point-to-point tunnel: its own addresses from the file, and nobody else's."""
    _require_addresses(options, "server", place)
    for name in _CLIENTS_ONLY:
        if entry := options.last(name):
            options.refuse(entry, "needs clients (server NETWORK MASK); this tunnel is point-to-point")
    local = driver.local_options
    return Pool(topology=Topology.P2P), ServerAddresses(local.ifconfig, local.ifconfig_peer, local.ifconfig_ipv6)


def _pool(options: Options, place: Place) -> tuple[Pool, ServerAddresses]:
    """`server`, `server-ipv6` and `topology`: the clients' addresses and the server's own."""
    topology = Topology(options.value("topology", "net30"))
    pool, addresses = Pool(topology=topology), ServerAddresses()
    if entry := options.last("server"):
        address, mask, nopool = entry.values
        if nopool:
            options.refuse(entry, "nopool is not supported")
        network = IPv4Network(f"{address}/{mask}", strict=False)
        if network.network_address != address:
            options.refuse(
                entry, f"{address} has bits set outside of the netmask; {network.network_address} may be meant"
            )
        elif network.prefixlen > 29:
            options.refuse(entry, f"{network} is too small for a server and clients; a /29 is the smallest")
        else:
            pool = replace(pool, ipv4=network)
            addresses = _server_addresses4(network, topology)
    if entry := options.last("server-ipv6"):
        network6, own6 = server_network6(entry)
        if network6.prefixlen not in _SERVER_PREFIX6:
            options.refuse(entry, f"/{network6.prefixlen}: the prefix length must be between 64 and 124")
        pool, addresses = replace(pool, ipv6=network6), replace(addresses, ipv6=own6)
    if pool.ipv4 is None and pool.ipv6 is None and not options.problems:
        options.lack("server", "missing: a server needs addresses for its clients (server, server-ipv6)", place)
    return pool, addresses


def _server_addresses4(network: IPv4Network, topology: Topology) -> ServerAddresses:
    own = network.network_address + 1
    if topology is Topology.SUBNET:
        return ServerAddresses(ipv4=IPv4Interface(f"{own}/{network.prefixlen}"))
    return ServerAddresses(ipv4=IPv4Interface(f"{own}/32"), ipv4_peer=IPv4Address(own + 1))


def _static_key(options: Options, files: FileReader, protocol: Protocol, *, listens: bool) -> StaticKeySettings:
    entry = options.last("secret")
    key = b""
    if entry is not None and (text := files.text(options, entry, secret=True)):
        try:
            key = parse_static_key(text)
        except Malformed as error:
            options.refuse(entry, str(error))
    options.warnings.append(
        "DEPRECATED OPTION: The option --secret is deprecated: no forward secrecy, so a stolen key opens all recorded "
        "traffic. For teaching only."
    )
    mtu = options.value("tun-mtu", 1500)
    mssfix, inner = build_mssfix(options, protocol, mtu)
    keepalive = options.last("keepalive")
    ping, restart = keepalive.values if keepalive else (options.value("ping", 0), options.value("ping-restart", 0))
    return StaticKeySettings(
        key=key,
        direction=key_direction(options, entry) if entry is not None else StaticKeySettings(b"").direction,
        cipher=build_static_cipher(options),
        digest=build_digest(options),
        compression=build_compression(options),
        transport=protocol.transport,
        transport_ipv6=protocol.family is Family.IPV6,
        listen=listens,
        tun_mtu=mtu,
        mssfix=mssfix,
        mssfix_inner=inner,
        replay_window=options.value("replay-window", 64),
        replay_time=float(options.value("replay-window", 15, index=1)),
        ping=float(ping),
        ping_restart=float(restart),
        ping_exit=float(options.value("ping-exit", 0)),
        explicit_exit_notify=options.has("explicit-exit-notify"),
    )
