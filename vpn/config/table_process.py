"""Options about the server's clients, and about the process: logs, status, scripts, privileges."""

from vpn.config.option import Option, Role, Scope, ignored, refused, used

_MANAGEMENT = (
    "the management interface answers and tells who asks it to (management ADDRESS PORT); it asks for nothing itself"
)
_SCRIPT = "scripts are not supported here; watch the log or --status"
_FOREGROUND = "the program stays in the foreground; start it under a supervisor"
_PRIVILEGE = "privileges are not dropped; run it in a user namespace, where its root is nobody's"
_STANDALONE = "is a command of openvpn, not an option of a tunnel"
_PUSHED = "is what a server tells its clients, not an option of a configuration"
_SERVER = Role.SERVER
_CLIENT_CONFIG = Scope.CLIENT_CONFIG

SERVER_OPTIONS: tuple[Option, ...] = (
    used("mode", "server|p2p"),
    used("server", "address4 netmask [nopool]", roles=_SERVER),
    used("server-ipv6", "prefix6", roles=_SERVER),
    refused("ifconfig-pool", "the pool is that of --server"),
    refused("ifconfig-ipv6-pool", "the pool is that of --server-ipv6"),
    used("push", "text", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("keepalive", "positive positive", roles=_SERVER | Role.CLIENT | Role.STATIC_KEY),
    used("client-config-dir", "file", roles=_SERVER),
    used("ccd-exclusive", roles=_SERVER),
    used("ifconfig-push", "address4 [address4] [address4]", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("ifconfig-ipv6-push", "text [address6]", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("iroute", "address4 [netmask]", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("iroute-ipv6", "prefix6", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("push-reset", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("disable", roles=_SERVER, scope=_CLIENT_CONFIG),
    used("client-to-client", roles=_SERVER),
    used("duplicate-cn", roles=_SERVER),
    used("max-clients", "positive", roles=_SERVER),
    used("connect-freq-initial", "positive positive", roles=_SERVER),
    ignored("connect-freq", "positive positive", "first packets are limited by connect-freq-initial"),
    ignored("hash-size", "count count", "tables grow as needed"),
    ignored("max-routes-per-client", "count", "iroute lines are the administrator's own"),
    ignored(
        "ifconfig-pool-persist", "file [seconds]", "addresses are given in order; use client-config-dir to fix one"
    ),
    ignored("opt-verify", "", "DEPRECATED: opt-verify does nothing in OpenVPN 2.7 either"),
    ignored("disable-occ", "", "DEPRECATED: a difference in options is never fatal here"),
    refused("no-name-remapping", "removed in OpenVPN 2.5. Update your configuration."),
    refused("compat-names", "removed in OpenVPN 2.5. Update your configuration."),
    refused("ifconfig-push-constraint", "addresses are the administrator's own: see ifconfig-push"),
    *(refused(name, _PUSHED) for name in ("peer-id", "protocol-flags", "push-continuation")),
    refused("push-remove", "use push-reset and push what is wanted"),
    refused("server-bridge", "bridging needs tap devices, which are not supported"),
    refused("stale-routes-check", "only iroute lines make routes, and those do not become stale"),
    refused("vlan-tagging", "VLANs need tap devices, which are not supported"),
    refused("vlan-accept", "VLANs need tap devices, which are not supported"),
    refused("vlan-pvid", "VLANs need tap devices, which are not supported"),
    *(refused(name, _SCRIPT) for name in ("client-connect", "client-disconnect", "learn-address", "client-crresponse")),
)

TIMER_OPTIONS: tuple[Option, ...] = (
    used("ping", "seconds"),
    used("ping-restart", "seconds"),
    used("ping-exit", "seconds"),
    used("inactive", "seconds [count]"),
    used("session-timeout", "seconds"),
    ignored("ping-timer-rem", "", "the timer never runs without a remote address"),
)

PROCESS_OPTIONS: tuple[Option, ...] = (
    used("config", "file"),
    used("client"),
    used("verb", "count"),
    used("log", "file"),
    used("log-append", "file"),
    used("suppress-timestamps"),
    used("status", "file [positive]"),
    used("status-version", "[1|2|3]"),
    used("management", "text text [text]"),
    used("tls-keylog", "file", roles=Role.TLS),  # ours: TLS secrets for Wireshark, like SSLKEYLOGFILE
    used("writepid", "file"),
    used("journal-dir", "file"),  # ours: where changes of the host are written down before they are made
    used("cd", "file"),
    used("nice", "niceness"),
    used("script-security", "0|1|2|3 [text]"),
    used("tmp-dir", "file", roles=_SERVER),
    used("setenv", "name [text…]"),
    used("setenv-safe", "name [text]"),
    used("ignore-unknown-option", "name…"),
    used("remap-usr1", "SIGHUP|SIGTERM"),
    ignored("mute", "count", "lines are not repeated here"),
    ignored("persist-key", "", "keys are read once, before the tunnel starts"),
    ignored("echo", "[text…]", "shows words in a log only"),
    ignored("errors-to-stderr", "", "errors go to standard error already"),
    ignored("machine-readable-output", "", "the log's lines are plain already"),
    ignored("up-delay", "", "the interface is set up once the connection stands"),
    ignored("test-crypto", "", "is a self-test of openvpn"),
    refused("daemon", _FOREGROUND),
    refused("syslog", _FOREGROUND),
    refused("inetd", _FOREGROUND),
    refused("user", _PRIVILEGE),
    refused("group", _PRIVILEGE),
    refused("chroot", _PRIVILEGE),
    refused("setcon", _PRIVILEGE),
    refused("mlock", "memory is not locked"),
    refused("memstats", "use --status"),
    refused("gremlin", "impair the link instead, not the program"),
    refused("plugin", "plugins are machine code for openvpn"),
    refused("dns-updown", "since OpenVPN 2.7: the program sets resolvers itself and starts no script for it"),
    *(refused(name, _SCRIPT) for name in ("up", "down", "down-pre", "up-restart")),
    *(
        refused(name, _MANAGEMENT)
        for name in (
            "management-client", "management-query-passwords", "management-query-proxy",
            "management-query-remote", "management-hold", "management-signal", "management-forget-disconnect",
            "management-up-down", "management-client-auth", "management-client-user", "management-client-group",
            "management-external-key", "management-external-cert", "management-log-cache",
        )
    ),
    *(
        refused(name, _STANDALONE)
        for name in (
            "genkey", "mktun", "rmtun", "show-ciphers", "show-digests", "show-engines", "show-tls", "show-gateway",
            "show-curves", "show-groups", "show-pkcs11-ids", "help", "version",
        )
    ),
)  # fmt: skip
