"""What the generator starts from: recorded exchanges of real peers, and texts in every format we read."""

from __future__ import annotations

from functools import cache

from tests.vectors import recordings
from vpn.crypto.client_key import ClientKey, timestamp_metadata, wrap_client_key
from vpn.crypto.static_key import build_client_key, build_server_key, build_static_key

_KEY = bytes(range(256))
_SERVER_KEY = bytes(range(128))


@cache
def recorded_datagrams() -> tuple[bytes, ...]:
    """Every packet of every recorded exchange with real peers."""
    packets = (packet for name in recordings.ALL for packet in recordings.load(name).get("packets", ()))
    return tuple(dict.fromkeys(bytes.fromhex(packet["hex"]) for packet in packets))


@cache
def key_texts() -> tuple[bytes, ...]:
    wrapped = wrap_client_key(ClientKey(_KEY, timestamp_metadata(1)), _SERVER_KEY)
    texts = (build_static_key(_KEY), build_client_key(_KEY, wrapped), build_server_key(_SERVER_KEY))
    return tuple(text.encode() for text in texts)


@cache
def wrapped_keys() -> tuple[bytes, ...]:
    return (wrap_client_key(ClientKey(_KEY, timestamp_metadata(1)), _SERVER_KEY),)


MESSAGES: tuple[bytes, ...] = (
    b"PUSH_REQUEST\0",
    (
        b"PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0,route-gateway 10.8.0.1,ping 10,ping-restart 60,"
        b"peer-id 0,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1500\0"
    ),
    (
        b"PUSH_REPLY,route 10.0.0.0 255.0.0.0 net_gateway 7,route-ipv6 2001:db8::/32,redirect-gateway def1 ipv6 "
        b"bypass-dns,dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example,push-continuation 2\0"
    ),
    (
        b"PUSH_REPLY,dns server 1 address 10.8.0.1 [2001:db8::1]:53,dns search-domains a b,dns server 1 dnssec yes,"
        b"dns server 2 transport DoT,dns server 2 sni x,ifconfig-ipv6 2001:db8:8::2/64 ::1,push-continuation 1\0"
    ),
    (
        b'PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,topology net30,auth-token SESS_ID_AT_AAAA,auth-token-user "YQ==",'
        b"inactive 100,session-timeout 5,compress stub-v2,comp-lzo no,key-derivation tls-ekm,explicit-exit-notify 2\0"
    ),
    b"AUTH_FAILED\0",
    b"AUTH_FAILED,CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:YWxpY2U=:Enter code\0",
    b"AUTH_FAILED,TEMP[backoff 42,advance no]:try later\0",
    b"AUTH_PENDING,timeout 60\0",
    b"RESTART,[NP]maintenance\0",
    b"HALT,go away\0",
    b"INFO,WEB_AUTH::https://example.com/\0INFO_PRE,x\0",
    b"EXIT\0",
    b"CR_RESPONSE,YWJj\0",
)
PEER_INFOS: tuple[bytes, ...] = (
    (
        b"IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM:"
        b"CHACHA20-POLY1305\nIV_PROTO=990\nIV_LZO_STUB=1\n"
    ),
    b"IV_VER=2.4.0\nIV_NCP=2\n",
    b"IV_PROTO=2\nUV_ID=7\nIV_HWADDR=00:11:22:33:44:55\n",
)
OPTIONS_STRINGS: tuple[bytes, ...] = (
    (
        b"V4,dev-type tun,link-mtu 1557,tun-mtu 1500,proto UDPv4,cipher AES-256-CBC,auth SHA1,keysize 256,key-method 2,"
        b"tls-client"
    ),
    b"V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto TCPv6_SERVER,comp-lzo,keydir 1,auth SHA256,keysize 128,secret",
)
CONFIGURATIONS: tuple[bytes, ...] = (
    (
        b"client\ndev tun0\nproto udp\nremote 198.51.100.10 1194\nremote vpn.example 443 tcp\nnobind\nremote-random\n"
        b"resolv-retry 5\nconnect-retry 1 10\n<ca>\nnot a certificate\n</ca>\nauth-nocache\nverb 3\n"
        b'pull-filter ignore "route "\nroute 10.0.0.0 255.0.0.0 net_gateway\nredirect-gateway def1 bypass-dns\n'
        b"<connection>\nremote 2001:db8::1 1194 udp6\n</connection>\nsetenv UV_ID 7\n"
    ),
    (
        b"mode server\ntls-server\ndev tun\nport 1194\nproto tcp-server\nserver 10.8.0.0 255.255.255.0\n"
        b"server-ipv6 2001:db8:8::/64\ntopology subnet\nkeepalive 10 60\ndh none\ndata-ciphers AES-256-GCM\n"
        b'push "route 10.20.0.0 255.255.255.0"\nmax-clients 100\nclient-config-dir ccd\nscript-security 2\n'
        b"auth-gen-token 60\nifconfig-pool-persist ipp.txt\nstatus status.log 10\nstatus-version 2\n"
    ),
    (
        b"dev tun\nremote 192.0.2.1\nifconfig 10.8.0.1 10.8.0.2\nsecret static.key 0\ncipher AES-256-CBC\nauth SHA256\n"
        b"ping 10\nping-restart 60\nmssfix 1400 mtu\ncomp-lzo no\nfragment 1300\nlog-append x\nuser nobody\n"
    ),
    (
        b"dhcp-option DNS 10.8.0.1\ndns server 1 address 10.8.0.1:53\nhttp-proxy proxy.example 8080\nbcast-buffers 9\n"
        b"ignore-unknown-option foo bar\nfoo 1\nsetenv opt block-outside-dns\nroute-metric 7\ntls-cipher DEFAULT\n"
    ),
)
CLIENT_FILES: tuple[bytes, ...] = (
    b"ifconfig-push 10.8.0.9 255.255.255.0\niroute 192.168.7.0 255.255.255.0\niroute-ipv6 2001:db8:7::/48\n",
    b'ifconfig-ipv6-push 2001:db8:8::9/64\npush "route 10.9.0.0 255.255.255.0"\npush-reset\ndisable\n# why\n',
)
