"""Making a plan real: namespaces, links, addresses, routes and rules, in a few batched netlink messages.

    1. per node: fresh network and mount namespaces, held by descriptors; sysctls; the node's own /etc and /sys
    2. all links in one batch, each end created in its namespace and down; offloads off. An impaired link is two, with
       the engine between them in a namespace of its own (`impair.start`)
    3. `before_up`: taps bind here, so that none of them misses the first packet
    4. per node: rules, then in one batch links up, addresses, routes
    5. wait until the kernel says that every link has its carrier and every address is usable

Runs in a bubble, whose only thread is the caller's. Nothing is deleted piece by piece: what holds a lab are
descriptors, and the kernel takes a namespace down with its last one (deleting a link costs 16 ms, this nothing).
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Literal, Self

from testbed.lab import netlink
from testbed.lab.devices import bring_up, feature_names, set_offloads
from testbed.lab.errors import LabBuildError
from testbed.lab.host import fair_congestion_control
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.start import EngineLink, LinkEngine, make_engine_namespace
from testbed.lab.model import LabPlan, LinkPlan, NodePlan
from testbed.lab.mounts import NETNS, furnish_node, node_folder, write_node_files
from testbed.lab.namespaces import CLONE_NEWNET, CLONE_NEWNS, entered_network, open_namespace, setns, unshare
from testbed.lab.nat import TABLE, node_rules
from testbed.lab.netlink import Netlink, VethEnd
from testbed.lab.node import Node
from testbed.lab.sysctls import FORWARDING, with_congestion_control

Direction = Literal["a_to_b", "b_to_a"]

_FIRST_INDEX = 2  # 1 is lo
_UP_PATIENCE_S = 10.0
_END_PATIENCE_S = 3.0
_POLL_S = 0.0005


class Lab:
    """A running lab; `build` makes it, `close` or the end of its bubble ends it."""

    def __init__(self, plan: LabPlan, nodes: Mapping[str, Node]) -> None:
        self.plan = plan
        self.nodes = dict(nodes)
        self.engine: LinkEngine | None = None  # of the impaired links, if there are any

    @classmethod
    def build(cls, plan: LabPlan, before_up: Callable[[Lab], None] | None = None) -> Lab:
        """Return the lab that `plan` describes, with every link up and every address usable.

        `before_up` gets the lab while its links are still down. `Lab.plan` is the plan as built: TCP's congestion
        control is the one this host lets a namespace choose.

        Errors: LabBuildError if the kernel refuses a part.
        """
        plan = with_congestion_control(plan, fair_congestion_control())
        lab = cls(plan, {})
        try:
            _make_nodes(lab)
            _make_links(lab)
            if before_up is not None:
                before_up(lab)
            for node in lab.nodes.values():
                _configure(node)
            _await_links(lab)
            if lab.engine is not None:
                lab.engine.await_ready()
        except BaseException:
            lab.close()
            raise
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def node(self, name: str) -> Node:
        """Return the node called `name`. Errors: KeyError."""
        return self.nodes[name]

    def set_link(self, a: str, b: str, direction: Direction | None, impairment: Impairment) -> float:
        """Have the link between nodes `a` and `b` do as `impairment` says from now on; None is both directions.

        Returns the Unix time of the change. What the link already holds keeps its departure time.
        Errors: KeyError if no link that can be changed joins the nodes; LabBuildError if the engine has ended
        """
        engine, number, turned = self._impaired_link(a, b)
        ways = {"a_to_b": (0,), "b_to_a": (1,), None: (0, 1)}[direction]
        return max(float(engine.set(number, way ^ turned, impairment)["at"]) for way in ways)

    def link_counters(self, a: str, b: str) -> dict[Direction, dict[str, int]]:
        """Return what became of the frames between nodes `a` and `b` (`impair.shaper.Counts`, and: held; missed, for
        the engine was too slow; refused by the far end's device).

        Errors: as `set_link`
        """
        engine, number, turned = self._impaired_link(a, b)
        counters = engine.counters(number)
        return {"a_to_b": counters[turned], "b_to_a": counters[1 - turned]}

    def _impaired_link(self, a: str, b: str) -> tuple[LinkEngine, int, int]:
        """Return the engine, the link's number there, and 1 if `a` is its second end."""
        for number, link in enumerate(_impaired_links(self.plan)):
            if {link.node1, link.node2} == {a, b} and self.engine is not None:
                return self.engine, number, int(link.node1 != a)
        raise KeyError(f"no link that can be changed joins {a} and {b}")

    def namespace_descriptors(self) -> dict[str, dict[str, int]]:
        """Return what `Conductor.publish` takes, so that `shell` and `exec` find the nodes."""
        return {name: {"net": node.netns_fd, "mnt": node.mntns_fd} for name, node in self.nodes.items()}

    def close(self) -> None:
        """End the lab's processes, by their own handles, and let go of its namespaces."""
        _end_processes([process for node in self.nodes.values() for process in node.processes])
        for name, node in self.nodes.items():
            node.close()
            os.unlink(f"{NETNS}/{name}")
            shutil.rmtree(node_folder(name))
        self.nodes.clear()
        if self.engine is not None:
            self.engine.close()
            self.engine = None


def _make_nodes(lab: Lab) -> None:
    home_net, home_mnt, folder = open_namespace("net"), open_namespace("mnt"), os.getcwd()
    fresh: dict[str, str] = {}  # the settings that a new namespace has on this host
    try:
        for node in lab.plan.nodes:
            os.mkdir(node_folder(node.name))
            write_node_files(node_folder(node.name), node.name, node.resolvers, node.hosts)
            unshare(CLONE_NEWNET | CLONE_NEWNS)
            if not fresh:
                fresh = {name: _read_sysctl(name) for name, _value in node.sysctls}
            _write_sysctls(node, fresh)
            furnish_node(node.name)
            made = Node(node, open_namespace("net"), open_namespace("mnt"), Netlink())
            lab.nodes[node.name] = made
            bring_up("lo", made.kernel.control)
            setns(home_mnt, CLONE_NEWNS)
            setns(home_net, CLONE_NEWNET)  # on some hosts a new namespace inherits from its maker's
            # Not a bind mount: those would be copied into every further node, and their number grow as its square.
            os.symlink(f"/proc/{os.getpid()}/fd/{made.netns_fd}", f"{NETNS}/{node.name}")
    finally:
        setns(home_mnt, CLONE_NEWNS)
        setns(home_net, CLONE_NEWNET)
        os.chdir(folder)
        os.close(home_mnt)
        os.close(home_net)


def _write_sysctls(node: NodePlan, fresh: Mapping[str, str]) -> None:
    """Write the settings of `node` that a fresh namespace does not have already."""
    unsure = False
    for name, value in node.sysctls:
        if fresh[name] == value and not (unsure and name.endswith(".accept_redirects")):
            continue
        unsure = unsure or name == FORWARDING  # writing it also changes which redirects are accepted
        try:
            descriptor = os.open(_sysctl_file(name), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LabBuildError(f"node {node.name}: sysctl {name} = {value}: {error.strerror}") from error


def _read_sysctl(name: str) -> str:
    try:
        descriptor = os.open(_sysctl_file(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4096).decode().strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LabBuildError(f"this kernel has no sysctl {name}: {error.strerror}") from error


def _sysctl_file(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def _make_links(lab: Lab) -> None:
    if not lab.plan.links:
        return
    impaired = _impaired_links(lab.plan)
    engine_netns = make_engine_namespace() if impaired else None
    kernel = Netlink()
    try:
        messages = []
        for link in lab.plan.links:
            end1, end2 = _end(lab, link.node1, link.interface1), _end(lab, link.node2, link.interface2)
            if link.impairments is None or engine_netns is None:
                messages.append(netlink.new_veth(end1, end2, link.mtu_octets))
            else:
                near, far = _engine_ends(engine_netns, impaired.index(link))
                messages += [
                    netlink.new_veth(end1, near, link.mtu_octets),
                    netlink.new_veth(end2, far, link.mtu_octets),
                ]
        kernel.send(messages)
        features = feature_names(kernel.control)
        for node in lab.nodes.values():
            for interface in node.plan.interfaces:
                set_offloads(interface.name, interface.gro, features, node.kernel.control)
        if engine_netns is not None:
            lab.engine = _start_engine(lab.plan, impaired, engine_netns, features)
    finally:
        kernel.close()


def _impaired_links(plan: LabPlan) -> list[LinkPlan]:
    return [link for link in plan.links if link.impairments is not None]


def _engine_ends(netns_fd: int, number: int) -> tuple[VethEnd, VethEnd]:
    """Return the two interfaces between which the engine carries the frames of impaired link `number`."""
    near, far = (
        VethEnd(
            netns_fd,
            _FIRST_INDEX + 2 * number + side,
            f"{word}{number}",
            f"02:ff:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}:{side:02x}",
        )
        for side, word in enumerate(("near", "far"))
    )
    return near, far


def _start_engine(plan: LabPlan, impaired: list[LinkPlan], netns_fd: int, features: tuple[str, ...]) -> LinkEngine:
    """Start the engine between its interfaces, which come up; the nodes' own ends are still down.

    The engine owns `netns_fd` from here on.
    """
    ends = [_engine_ends(netns_fd, number) for number in range(len(impaired))]
    links = [
        EngineLink((near.name, far.name), link.mtu_octets, link.impairments, _seeds(plan.seed, link))
        for link, (near, far) in zip(impaired, ends, strict=True)
        if link.impairments is not None
    ]
    engine = LinkEngine(netns_fd, links)
    with entered_network(netns_fd):
        kernel = Netlink()
    try:
        for end in (end for pair in ends for end in pair):
            set_offloads(end.name, False, features, kernel.control)
        kernel.send([netlink.set_up(end.index, end.name) for pair in ends for end in pair])
    finally:
        kernel.close()
    return engine


def _seeds(seed: int, link: LinkPlan) -> tuple[str, str]:
    """Return the seeds of both directions; they name the link, so that a further link changes no other's fates."""
    first, second = f"{link.node1}:{link.interface1}", f"{link.node2}:{link.interface2}"
    return f"{seed}/{first}>{second}", f"{seed}/{second}>{first}"


def _end(lab: Lab, node: str, interface: str) -> VethEnd:
    plan = lab.nodes[node].plan
    return VethEnd(lab.nodes[node].netns_fd, _indexes(plan)[interface], interface, plan.interface(interface).mac)


def _indexes(node: NodePlan) -> dict[str, int]:
    return {interface.name: index for index, interface in enumerate(node.interfaces, start=_FIRST_INDEX)}


def _configure(node: Node) -> None:
    _add_rules(node)
    indexes = _indexes(node.plan)
    messages = [netlink.set_up(index, name) for name, index in indexes.items()]
    messages += [
        netlink.new_address(indexes[interface.name], interface.name, address)
        for interface in node.plan.interfaces
        for address in interface.addresses
    ]
    messages += [
        netlink.new_route(indexes[route.interface], route.interface, route.destination, route.gateway)
        for route in node.plan.routes
    ]
    try:
        node.kernel.send(messages)
    except LabBuildError as error:
        raise LabBuildError(f"node {node.name}: {error}") from error


def _add_rules(node: Node) -> None:
    rules = list(node_rules(node.plan))
    if not rules:
        return
    chains = dict.fromkeys(chain for chain, _expressions in rules)
    messages = [netlink.new_table(TABLE), *(netlink.new_chain(TABLE, chain) for chain in chains)]
    messages += [netlink.new_rule(TABLE, chain, expressions) for chain, expressions in rules]
    kernel = netlink.netfilter_socket(node.netns_fd)
    try:
        kernel.send_transaction(messages)
    except LabBuildError as error:
        raise LabBuildError(f"node {node.name}: {error}") from error
    finally:
        kernel.close()


def _await_links(lab: Lab) -> None:
    """Wait until every link has carrier and no IPv6 address is tentative."""
    deadline = time.monotonic() + _UP_PATIENCE_S
    for node in lab.nodes.values():
        for name, index in _indexes(node.plan).items():
            _poll(partial(netlink.has_carrier, node.kernel, index), deadline, name)
        _poll(partial(netlink.all_addresses_usable, node.kernel), deadline, f"the addresses of {node.name}")


def _poll(holds: Callable[[], bool], deadline: float, what: str) -> None:
    while not holds():
        if time.monotonic() > deadline:
            raise LabBuildError(f"{what} did not come up in {_UP_PATIENCE_S:g} s")
        time.sleep(_POLL_S)


def _end_processes(processes: list[subprocess.Popen[bytes]]) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _END_PATIENCE_S
    for process in _still_running(running, deadline):
        process.kill()
        process.wait()


def _still_running(processes: list[subprocess.Popen[bytes]], deadline: float) -> Iterator[subprocess.Popen[bytes]]:
    """Yield those of `processes` that have not ended at `deadline`."""
    for process in processes:
        watched = os.pidfd_open(process.pid)
        try:
            select.select([watched], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(watched)
        if process.poll() is None:
            yield process
