"""The option `management`: where a tunnel's management interface listens."""

from __future__ import annotations

from ipaddress import ip_address

from vpn.config.files import FileReader
from vpn.config.model import ManagementSettings
from vpn.config.options import Options

_SOCKET_PATH_MAXIMUM = 107  # sun_path of unix(7), with its NUL


def build_management(options: Options, files: FileReader) -> ManagementSettings | None:
    """`management ADDRESS PORT` or `management PATH unix`; with no password, nobody from outside may reach it."""
    entry = options.last("management")
    if entry is None:
        return None
    where, port, password_file = entry.values
    if password_file is not None:
        options.refuse(entry, "a password file is not supported; use a socket file, which only its owner can open")
    if port == "unix":
        path = files.path(where)
        if not where or len(str(path).encode()) > _SOCKET_PATH_MAXIMUM:
            options.refuse(entry, f"the name of a socket file has 1 to {_SOCKET_PATH_MAXIMUM} octets")
        return ManagementSettings(path=path)
    try:
        is_loopback = ip_address(where).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        options.refuse(entry, f"{where}: only a loopback address such as 127.0.0.1, since there is no password")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        options.refuse(entry, f"{port!r}: a port is a number from 1 to 65535, or the word unix after a socket file")
        return None
    return ManagementSettings(host=where, port=int(port))
