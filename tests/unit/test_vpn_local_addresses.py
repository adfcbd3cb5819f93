"""A tunnel says that it is up once the kernel takes packets for its addresses."""

from __future__ import annotations

from ipaddress import IPv6Address

from vpn.driver.errors import HostError
from vpn.driver.network import await_local
from vpn.driver.routes import IpAddress

EARLY, LATE, NEVER = (IPv6Address(f"2001:db8::{number}") for number in (1, 2, 3))


class Kernel:
    """One whose worker is slow: each address becomes local when it has been asked about so many times."""

    def __init__(self, answers: dict[IpAddress, int]) -> None:
        self.asked = dict.fromkeys(answers, 0)
        self._answers = answers

    def path_to(self, address: IpAddress) -> object | None:
        self.asked[address] += 1
        if self.asked[address] > self._answers[address]:
            return None
        if self.asked[address] % 2:
            raise HostError("find the route", 101)
        return "by another device"


def test_each_address_is_waited_for_until_it_is_local() -> None:
    kernel = Kernel({EARLY: 0, LATE: 5})
    assert await_local(kernel, [EARLY, LATE]) == []
    assert kernel.asked == {EARLY: 1, LATE: 6}


def test_an_address_that_does_not_become_local_holds_nothing_up_for_ever() -> None:
    assert await_local(Kernel({EARLY: 0, NEVER: 1_000_000}), [EARLY, NEVER], patience=0.01) == [NEVER]
