"""Options about TLS, keys, ciphers, credentials, and the control channel's protection."""

from vpn.config.option import Option, Role, Scope, deprecated, ignored, key_file, refused, used

_ENGINE = "keys in hardware or engines are not supported; use a PEM file"
_SCRIPT = "verification scripts are not supported; use verify-x509-name, remote-cert-tls or crl-verify"
_TIMERS = Scope.CONNECTION

TLS_OPTIONS: tuple[Option, ...] = (
    used("tls-client", roles=Role.CLIENT),
    used("tls-server", roles=Role.SERVER),
    key_file("ca"),
    key_file("cert"),
    key_file("key"),
    key_file("extra-certs"),
    key_file("crl-verify", "file [dir]"),
    used("tls-version-min", "text [or-highest]", roles=Role.TLS),
    used("tls-version-max", "text", roles=Role.TLS),
    used("tls-cipher", "text", roles=Role.TLS),
    used("tls-ciphersuites", "text", roles=Role.TLS),
    used("remote-cert-tls", "server|client", roles=Role.TLS),
    used("verify-x509-name", "text [subject|name|name-prefix]", roles=Role.TLS),
    used("verify-client-cert", "[none|optional|require]", roles=Role.SERVER),
    Option(
        "dh", "file", note="", roles=Role.TLS, scope=Scope.INLINE
    ),  # `none` or a file: elliptic curves are used either way, so the parameters are not read
    ignored("ecdh-curve", "text", "the TLS library chooses the group, as in openvpn with OpenSSL 3"),
    ignored("tls-cert-profile", "legacy|preferred|suiteb|insecure", "the TLS library's own security level holds"),
    ignored("single-session", "", "one session is kept per connection"),
    refused("tls-groups", "choosing key exchange groups is not supported"),
    refused("capath", "name one file with --ca"),
    refused("pkcs12", "convert it to PEM: openssl pkcs12 -in FILE -nodes"),
    refused("askpass", "encrypted private keys are not supported; decrypt with openssl pkey"),
    refused("tls-verify", _SCRIPT),
    refused("tls-export-cert", _SCRIPT),
    refused("x509-track", _SCRIPT),
    refused("x509-username-field", "the common name identifies a client"),
    refused("remote-cert-ku", "use --remote-cert-tls"),
    refused("remote-cert-eku", "use --remote-cert-tls"),
    refused("peer-fingerprint", "use a CA (python -m vpn pki init)"),
    refused("verify-hash", "DEPRECATED OPTION in OpenVPN 2.6; name the CA with --ca"),
    refused("ns-cert-type", "removed: Netscape certificate types; use --remote-cert-tls"),
    refused("tls-remote", "removed in OpenVPN 2.4; use --verify-x509-name"),
    refused("client-cert-not-required", "REMOVED OPTION: use '--verify-client-cert none' instead"),
    refused("keying-material-exporter", "exported keying material would go to plugins; there are none"),
    *(
        refused(name, _ENGINE)
        for name in ("engine", "providers", "pkcs11-providers", "pkcs11-id", "pkcs11-private-mode", "cryptoapicert")
    ),
    *(
        refused(name, _ENGINE)
        for name in ("pkcs11-protected-authentication", "pkcs11-cert-private", "pkcs11-pin-cache")
    ),
    refused("pkcs11-id-management", _ENGINE),
)

CONTROL_OPTIONS: tuple[Option, ...] = (
    Option("tls-auth", "file [0|1]", roles=Role.TLS, scope=Scope.INLINE | Scope.CONNECTION),
    Option("tls-crypt", "file", roles=Role.TLS, scope=Scope.INLINE | Scope.CONNECTION),
    Option(
        "tls-crypt-v2", "file [force-cookie|allow-noncookie]", roles=Role.TLS, scope=Scope.INLINE | Scope.CONNECTION
    ),
    used("key-direction", "0|1", scope=_TIMERS),
    used("tls-timeout", "positive", roles=Role.TLS),
    used("hand-window", "positive", roles=Role.TLS),
    used("tran-window", "seconds", roles=Role.TLS),
    used("reneg-sec", "seconds [seconds]", roles=Role.TLS),
    used("reneg-bytes", "count", roles=Role.TLS),
    used("reneg-pkts", "count", roles=Role.TLS),
    used("max-packet-size", "positive", roles=Role.TLS),
    used("key-derivation", "tls-ekm|prf", roles=Role.TLS),  # ours: prf refuses the TLS exporter, as peers before 2.6 do
    used("tls-exit", roles=Role.TLS),
    refused("tls-crypt-v2-max-age", "since OpenVPN 2.7: clients' keys do not age here; crl-verify ends certificates"),
    refused("tls-crypt-v2-verify", "scripts that look at a key's metadata are not supported"),
    refused("key-method", "removed in OpenVPN 2.5; only key method 2 exists"),
)

DATA_OPTIONS: tuple[Option, ...] = (
    used("data-ciphers", "text", roles=Role.TLS),
    deprecated("ncp-ciphers", "text", "--ncp-ciphers is now called --data-ciphers", roles=Role.TLS),
    used("data-ciphers-fallback", "text", roles=Role.TLS),
    used("cipher", "text"),
    used("auth", "text"),
    Option("secret", "file [0|1]", roles=Role.STATIC_KEY, scope=Scope.INLINE),
    used("replay-window", "window [seconds]"),
    deprecated("comp-lzo", "[yes|no|adaptive]", "nothing is ever compressed; only the framing is kept"),
    deprecated(
        "compress", "[stub|stub-v2|lz4|lz4-v2|lzo|migrate]", "nothing is ever compressed; only the framing is kept"
    ),
    ignored("comp-noadapt", "", "nothing is ever compressed"),
    used("allow-compression", "no|asym|yes"),
    ignored("mute-replay-warnings", "", "replays are counted, not logged one by one"),
    ignored("auth-nocache", "", "credentials live only in memory"),
    refused("no-replay", "removed: replay protection is always on"),
    refused("no-iv", "removed in OpenVPN 2.5: IVs are always used"),
    refused("compat-mode", "say what the older peer needs: data-ciphers, data-ciphers-fallback, auth"),
    refused("force-tls-key-material-export", "peers without the TLS exporter are let in, with keys of the PRF"),
    refused("ncp-disable", "removed in OpenVPN 2.6: cipher negotiation is always on"),
    refused("keysize", "removed in OpenVPN 2.6: the cipher's name says its key size"),
    refused("prng", "removed in OpenVPN 2.6"),
    refused("replay-persist", "the replay state is not kept over restarts"),
)

CREDENTIAL_OPTIONS: tuple[Option, ...] = (
    Option("auth-user-pass", "[file]", roles=Role.CLIENT, scope=Scope.INLINE),
    used("auth-retry", "none|nointeract|interact", roles=Role.CLIENT),
    used("push-peer-info", roles=Role.CLIENT),
    used("auth-user-pass-verify", "text [via-file|via-env]", roles=Role.SERVER),
    used("auth-user-pass-optional", roles=Role.SERVER),
    used("auth-gen-token", "[seconds] [text] [text]", roles=Role.SERVER),
    used("username-as-common-name", roles=Role.SERVER),
    refused("auth-gen-token-secret", "tokens are signed with a key of this process; they end with it"),
    refused("override-username", "since OpenVPN 2.7: a client keeps the name that its password proved"),
    refused("static-challenge", "challenges need a person at a terminal, which is not supported"),
    refused("auth-token", "a server pushes it; it does not belong in a file"),
    refused("auth-token-user", "a server pushes it; it does not belong in a file"),
)
