"""Reading the files that options name: keys and certificates as text, with the option's place in every error."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from vpn.config.options import Entry, Options

FILE_MAXIMUM_OCTETS = 4 * 1024 * 1024  # a CRL of a large CA; no key or profile comes near


@dataclass(frozen=True, slots=True)
class FileReader:
    """Resolves names against `directory` (`cd`, or where the program was started)."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def text(self, options: Options, entry: Entry, *, secret: bool = False) -> str:
        """The content an option names or holds inline; "" (and a problem) if it cannot be read."""
        if entry.inline:
            return str(entry.values[0])
        path = self.path(entry.values[0])
        try:
            with path.open("rb") as file:
                if secret and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    options.warnings.append(f"WARNING: file '{path}' is group or others accessible")
                content = file.read(FILE_MAXIMUM_OCTETS + 1)
        except OSError as error:
            options.refuse(entry, f"{path}: {error.strerror}")
            return ""
        if len(content) > FILE_MAXIMUM_OCTETS:
            options.refuse(entry, f"{path}: larger than {FILE_MAXIMUM_OCTETS} octets")
            return ""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            options.refuse(entry, f"{path}: not a text file")
            return ""
