"""What a small native part would buy: a superpacket's rows sealed and opened by C, beside our Python with numpy.

`native_part.c` is built here with `cc` and libcrypto's headers, used for the measurement, and thrown away; the product
has no part of it. Both get the same rows and must come to the same octets before anything is timed. Where it cannot be
built, the table says so and has our own figures alone. Needs no root, no lab and no network.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.measured import Contestant, Table, compared, interleaved
from vpn.dataplane.cipher_rows import SealingSlots
from vpn.dataplane.rows import PACKET_AT, Rows, RowShape
from vpn.dataplane.train import Train
from vpn.dataplane.workbench import Workbench

SOURCE = Path(__file__).with_name("native_part.c")
HEADER, IMPLICIT_IV, KEY = b"\x48\x00\x00\x00", bytes(range(8)), bytes(range(32))
FRONT_OCTETS = 24
OURS, NATIVE = "Python, numpy, cryptography", "C, one call for all, libcrypto"
PACKETS, PACKET_OCTETS, LONE_OCTETS = 44, 1400, 84


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 7
    calls: int = 400


SMALL = Size(rounds=1, calls=2)


Place: TypeAlias = ctypes.c_void_p


class CannotBuild(Exception):
    """There is no native part to measure; says why."""


class NativeKey:
    """The C part under one key."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.key_new.restype = ctypes.c_void_p
        self._library = library
        self._seals = ctypes.c_void_p(library.key_new(KEY, 1))
        self._opens = ctypes.c_void_p(library.key_new(KEY, 0))
        self._ids = (ctypes.c_uint32 * 512)()

    def seal(self, rows: Place, octets: int, count: int, first_id: int, slots: Place) -> None:
        seal_rows, stride = self._library.seal_rows, ctypes.c_size_t(_stride(octets))
        if seal_rows(self._seals, rows, stride, octets, count, HEADER, first_id, IMPLICIT_IV, slots):
            raise RuntimeError("libcrypto did not seal")

    def open(self, slots: Place, octets: int, count: int, rows: Place) -> None:
        open_rows, stride = self._library.open_rows, ctypes.c_size_t(_stride(octets))
        if open_rows(self._opens, slots, octets, count, IMPLICIT_IV, rows, stride, self._ids):
            raise RuntimeError("what was sealed does not open")


def _stride(octets: int) -> int:
    """As `RowShape` lays packets out."""
    return (PACKET_AT + octets + 7) & ~7


def _place(array: Any, at: int = 0) -> Place:
    return ctypes.c_void_p(array.ctypes.data + at)


def measure(size: Size) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            native = NativeKey(built(Path(folder)))
        except CannotBuild as cause:
            return _tables(_Rows(None), size, f"not compared: {cause}")
        rows = _Rows(native)
        rows.compare()
        return _tables(rows, size, "")


def built(folder: Path) -> ctypes.CDLL:
    """The C part, compiled into the folder. Errors: CannotBuild."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotBuild("there is no C compiler here (apt-get install gcc libssl-dev)")
    library = folder / "native_part.so"
    argv = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-lcrypto"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode:
        first = next(iter(done.stderr.splitlines()), f"code {done.returncode}")
        raise CannotBuild(f"{compiler} failed: {first}")
    return ctypes.CDLL(str(library))


class _Rows:
    """A superpacket's rows, its train, and a lone packet, with both ways of treating them."""

    def __init__(self, native: NativeKey | None) -> None:
        self.native = native
        self._aead = AESGCM(KEY)
        self._bench = Workbench()
        self._shape = RowShape(PACKET_OCTETS)
        self._opened = RowShape(PACKET_OCTETS)
        random = np.random.default_rng(1)
        self._shape.array[:, PACKET_AT : PACKET_AT + PACKET_OCTETS] = random.integers(
            0, 256, (self._shape.capacity, PACKET_OCTETS), np.uint8
        )
        self._rows = Rows(self._shape, PACKETS)
        self._lone = RowShape(LONE_OCTETS)
        self._slot = PACKET_OCTETS + FRONT_OCTETS
        self._slots: Any = np.zeros((PACKETS + 1) * self._slot, np.uint8)
        self._sealed = bytes(self.train().view)
        self._arrived: Any = np.zeros_like(self._slots)
        self._packets_at, self._opened_at = _place(self._shape.array, PACKET_AT), _place(self._opened.array, PACKET_AT)
        self._lone_at, self._slots_at, self._arrived_at = (
            _place(self._lone.array, PACKET_AT),
            _place(self._slots),
            _place(self._arrived),
        )

    def train(self) -> Train:
        """The rows, sealed by our own."""
        slots = SealingSlots.of(self._shape, len(HEADER), 0)
        slots.seal(self._aead.encrypt_into, HEADER, 1, IMPLICIT_IV, self._rows)
        return slots.train(PACKETS, b"")

    def compare(self) -> None:
        """Errors: RuntimeError if C does not come to the same octets, both ways."""
        if self.native is None:
            return
        self.seal_native()
        if self._slots[: len(self._sealed)].tobytes() != self._sealed:
            raise RuntimeError("C sealed something else")
        self.arrive()
        self.open_native()
        if not np.array_equal(self._opened.array[:PACKETS], self._shape.array[:PACKETS]):
            raise RuntimeError("C opened something else")

    def arrive(self) -> None:
        """As received: opening by our own moves what is there."""
        self._arrived[: len(self._sealed)] = np.frombuffer(self._sealed, np.uint8)

    def seal_native(self) -> None:
        if self.native is not None:
            self.native.seal(self._packets_at, PACKET_OCTETS, PACKETS, 1, self._slots_at)

    def open_ours(self) -> None:
        train = Train(self._arrived.data, 0, len(self._sealed), self._slot)
        if self._bench.open(train, self._aead.decrypt_into, len(HEADER), IMPLICIT_IV) is None:
            raise RuntimeError("what was sealed does not open")

    def open_native(self) -> None:
        if self.native is not None:
            self.native.open(self._arrived_at, PACKET_OCTETS, PACKETS, self._opened_at)

    def lone_ours(self) -> bytes:
        packet_id = (7).to_bytes(4, "big")
        sealed = self._aead.encrypt(packet_id + IMPLICIT_IV, bytes(self._lone.packets[0]), HEADER + packet_id)
        return HEADER + packet_id + sealed[-16:] + sealed[:-16]

    def lone_native(self) -> bytes:
        if self.native is None:
            return b""
        self.native.seal(self._lone_at, LONE_OCTETS, 1, 7, self._slots_at)
        return bytes(self._slots[: LONE_OCTETS + FRONT_OCTETS])


def _tables(rows: _Rows, size: Size, note: str) -> list[Table]:
    def nothing() -> None:
        return

    ways: Mapping[str, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = {
        f"Sealing {PACKETS} packets of {PACKET_OCTETS} octets": (nothing, rows.train, rows.seal_native),
        f"Opening {PACKETS} packets of {PACKET_OCTETS} octets": (rows.arrive, rows.open_ours, rows.open_native),
        f"Sealing one packet of {LONE_OCTETS} octets": (nothing, rows.lone_ours, rows.lone_native),
    }
    tables = []
    for title, (prepare, ours, native) in ways.items():
        contestants: dict[str, Contestant] = {OURS: _timed(prepare, ours, size.calls)}
        if rows.native is not None:
            contestants[NATIVE] = _timed(prepare, native, size.calls)
        found = interleaved(contestants, size.rounds)
        tables.append(Table(f"{title}: µs", tuple(compared(found, "µs", OURS, {OURS: note}))))
    return tables


def _timed(prepare: Callable[[], object], work: Callable[[], object], calls: int) -> Contestant:
    """The median of so many calls, in microseconds."""

    def once() -> float:
        taken = []
        for _ in range(calls):
            prepare()
            began = time.perf_counter_ns()
            work()
            taken.append((time.perf_counter_ns() - began) / 1000)
        return statistics.median(taken)

    return once
