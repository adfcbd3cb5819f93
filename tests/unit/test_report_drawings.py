"""What the report draws from captures: pairs, ladders, dolls, comparisons, timelines, topologies; from real frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed.capture import pcapng
from testbed.dissection.pairing import paired, read_pairs
from testbed.dissection.shown import ShownPackets, shown_packets
from testbed.report.html import render_html
from testbed.report.html_dolls import dolls
from testbed.report.html_ladder import ladder, meaning_of, short_text
from testbed.report.html_moments import Side, moments
from testbed.report.packets import Inside, Layer, PacketLine
from testbed.report.pieces import Pieces, packet_id
from testbed.report.places import graph_of, places_of
from testbed.result import RunResult
from tests.unit.report_run import (
    CLIENT,
    OVERHEAD_OCTETS,
    TOPOLOGY,
    TUN,
    VPN,
    WEB,
    capture_octets,
    sealed,
    tcp,
    write_run,
)
from tests.unit.test_report_html import Outline
from tests.unit.test_report_sample import START, sample_packet, sample_result, sample_variant


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, ShownPackets]:
    directory = tmp_path_factory.mktemp("run")
    result = write_run(directory)
    return result, shown_packets(result, directory)


def document(run: tuple[RunResult, ShownPackets]) -> str:
    return render_html(run[0], run[1].packets, run[1].lists, run[1].inside)


# -- which sealed packet carried which packet --------------------------------------------------------------------------


def test_each_packet_inside_is_paired_with_the_one_that_carried_it_and_pings_with_none(
    run: tuple[RunResult, ShownPackets],
) -> None:
    inside = run[1].inside["with"]
    assert inside.outer_of == {1: 5, 2: 6, 3: 7, 4: 8, 5: 9, 6: 10, 7: 11, 8: 12}
    assert f"exactly {OVERHEAD_OCTETS} octets longer" in inside.how


def line(frame: int, octets: int, time: float, *, up: bool = True, sealed: bool = False) -> PacketLine:
    ends = ((CLIENT, VPN) if up else (VPN, CLIENT)) if sealed else ((TUN, WEB) if up else (WEB, TUN))
    words = ("OpenVPN", "MessageType: P_DATA_V2") if sealed else ("TCP", "data")
    return PacketLine(frame, time, *ends, words[0], octets, words[1])


OURS = frozenset((CLIENT, TUN))


@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ((166, 220, 266), (0.1, 0.2, 0.3)),  # one packet has another difference: a cipher that pads
        ((166, 266), (0.1, 0.3)),  # one packet is missing
        ((166, 216, 266), (0.1, 0.05, 0.3)),  # one was on the wire before it was sent
    ],
)
def test_without_certainty_there_are_no_pairs_at_all(sizes: tuple[int, ...], times: tuple[float, ...]) -> None:
    inner = [line(1, 100, 0.1), line(2, 150, 0.2), line(3, 200, 0.3)]
    outer = [line(n, size, at, sealed=True) for n, (size, at) in enumerate(zip(sizes, times, strict=True), start=1)]
    found = paired("tun.pcapng", inner, "isp.pcapng", outer, OURS)
    assert found.outer_of == {}
    assert "cannot be told with certainty" in found.how


def test_a_frame_with_several_sealed_packets_is_never_paired() -> None:
    outer = replace(line(1, 166, 0.1, sealed=True), summary="MessageType: P_DATA_V2, P_DATA_V2")
    assert paired("a", [line(1, 100, 0.1)], "b", [outer], OURS).outer_of == {}


def test_pairs_that_a_run_wrote_down_are_read_and_odd_lines_left_out() -> None:
    text = "inner_frame,outer_frame,x\n1,5,a\n1,6,second datagram\n,7,ping\nx,9,\n2,10\n"
    assert read_pairs(text) == {1: 5, 2: 10}
    assert read_pairs("nothing,of\nthe,sort") == {}


def test_pairs_written_down_for_these_captures_come_before_those_guessed(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    (tmp_path / "with" / "inner-outer.csv").write_text("inner_frame,outer_frame\n6,10\n")
    noted = {
        "file": "with/inner-outer.csv",
        "outer_capture": "with/isp.pcapng",
        "inner_capture": "with/client-tun.pcapng",
    }
    whole = result.variants["with"]
    for mapping, expected in ((noted, {6: 10}), ({**noted, "outer_capture": "other"}, None)):
        told = replace(result, variants={"with": replace(whole, ground_truth=mapping)})
        found = shown_packets(told, tmp_path).inside["with"].outer_of
        assert found == expected if expected else len(found) == 8


# -- ladders -----------------------------------------------------------------------------------------------------------


def test_the_ladders_show_a_name_a_page_the_tunnels_handshake_and_the_page_inside(
    run: tuple[RunResult, ShownPackets],
) -> None:
    outline = Outline(document(run))
    names = [str(a["id"]) for tag, a in outline.elements if tag == "div" and a.get("class") == "ladder"]
    assert names == ["ladder-dns", "ladder-http", "ladder-tunnel", "ladder-outside", "ladder-inside"]
    spoken = [str(a["aria-label"]) for a in outline.of("a") if "aria-label" in a and "ms," in str(a["aria-label"])]
    assert "frame 1, +0.0 ms, you to your ISP: DNS query A www.example.com, What is the address of this name?" in spoken
    assert any("TCP SYN, May I connect?" in words for words in spoken)
    assert any("P_CONTROL_HARD_RESET_CLIENT_V2" in words and "here is my number" in words for words in spoken)
    assert any("P_ACK_V1" in words for words in spoken)


def test_an_arrow_points_from_its_sender_to_its_receiver_and_names_its_packet() -> None:
    result = sample_result()
    places = places_of(result.variants["without"], graph_of(result))
    lines = [
        PacketLine(7, START, CLIENT, WEB, "TCP", 54, "1 → 2 [SYN] Seq=0 Win=1 Len=0"),
        PacketLine(9, START + 0.0123, WEB, CLIENT, "TCP", 54, "2 → 1 [SYN, ACK] Seq=0 Win=1 Len=0"),
    ]
    view = ladder("x", "X", "", "f", lines, places, lambda key: f"packet-{key[1]}")
    assert view is not None
    there, back = view.arrows
    assert there.start < there.end < back.start
    assert back.end < back.start
    assert (back.time, back.packet_id, there.label, back.meaning) == (
        *("+12.3 ms", "packet-9", "TCP SYN"),
        "Yes. May I, too?",
    )


def test_a_ladder_of_many_speakers_and_packets_stays_small_and_says_what_it_leaves_out() -> None:
    places = places_of(sample_variant("without"), graph_of(sample_result()))
    lines = [PacketLine(n, START + n, CLIENT, f"203.0.113.{n}", "UDP", 60, "x") for n in range(1, 100)]
    lines.append(PacketLine(100, START, CLIENT, "x", "ARP", 42, "Who has"))
    view = ladder("x", "X", "", "f", lines, places, lambda key: "")
    assert view is not None
    assert len(view.ends) == 4
    assert view.ends[-1].name.endswith(" others")
    assert len(view.arrows) == 40
    assert view.left_out == "Not drawn: 1 by which neighbours find each other and 59 later ones."


@pytest.mark.parametrize(
    ("protocol", "summary", "short", "meaning"),
    [
        ("DNS", "Standard query response 0xabcd A x A 1.2.3.4", "answer A x A 1.2.3.4", "Here it is."),
        ("TCP", "40 → 80 [PSH, ACK] Seq=1 Ack=1 Win=5 Len=1460", "PSH, ACK, 1,460 octets of data", ""),
        ("TCP", "GET / HTTP/1.1  [TCP segment of a reassembled PDU]", "GET / HTTP/1.1 (a part)", "This page, please."),
        ("HTTP", "HTTP/1.1 200 OK", "200 OK", "Here it is."),
        ("OpenVPN", "MessageType: P_CONTROL_V1, Client Hello", "P_CONTROL_V1, Client Hello",
         "A TLS handshake begins, inside the control channel."),
        ("TLSv1", "Client Hello", "Client Hello", "Let us encrypt. I want this site."),
        ("QUIC", "Initial, DCID=ab, SCID=cd, Client Hello", "Initial, Client Hello",
         "A connection, please. I want this site; everybody can open this."),
        ("QUIC", "Protected Payload", "Protected Payload", "Sealed."),
        ("HTTP2", "HEADERS[1]: GET /", "HEADERS[1]: GET /", "This page, please."),
        ("HTTP2", "HEADERS[1]: 200, DATA[1]", "HEADERS[1]: 200, DATA[1]", "Here it is."),
    ],
)  # fmt: skip
def test_a_line_is_told_in_few_words_and_what_it_means(protocol: str, summary: str, short: str, meaning: str) -> None:
    told = PacketLine(1, 0.0, "a", "b", protocol, 60, summary)
    assert (short_text(told)[1], meaning_of(told)) == (short, meaning)


# -- the same moment twice ---------------------------------------------------------------------------------------------


def test_packets_stand_beside_those_of_the_same_action_and_none_is_lost(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    graph = graph_of(result)
    left, right = (
        Side(result.variants[name], f"{name}/isp.pcapng", shown.lists[name], places_of(result.variants[name], graph))
        for name in ("without", "with")
    )
    view = moments(left, right, lambda key: "")
    assert [moment.action for moment in view.moments] == ["", "1-dns", "2-http"]
    assert [[len(side.lines) for side in moment.sides] for moment in view.moments] == [[0, 4], [2, 2], [6, 6]]
    query, answer = view.moments[1].sides[0].lines
    assert (query.arrow, query.end, answer.arrow, answer.end) == ("→", "192.168.0.1", "←", "192.168.0.1")
    assert {(told.end, told.text, told.sealed) for told in view.moments[2].sides[1].lines} == {(VPN, "P_DATA_V2", True)}


def test_an_action_that_one_variant_did_not_do_is_said_to_be_missing(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    graph = graph_of(result)
    fewer = replace(result.variants["without"], actions=result.variants["without"].actions[:1])
    sides = [
        Side(variant, "f", shown.lists[variant.name], places_of(variant, graph))
        for variant in (fewer, result.variants["with"])
    ]
    last = moments(sides[0], sides[1], lambda key: "").moments[-1]
    assert (last.sides[0].absent, last.sides[1].absent) == (True, False)


# -- a packet in a packet ----------------------------------------------------------------------------------------------


def test_the_sealed_doll_holds_the_very_request_that_the_bare_one_shows(run: tuple[RunResult, ShownPackets]) -> None:
    text = document(run)
    bare = text[text.index('id="doll-bare"') : text.index('id="doll-sealed"')]
    closed = text[text.index('id="doll-sealed"') : text.index('id="sizes"')]
    assert "session=1" in bare
    assert "Break the seal" not in bare
    outside, inside = closed.split('<details class="seal">')
    assert "session=1" not in outside
    assert "session=1" in inside
    assert f"{OVERHEAD_OCTETS + 14} of them wrap the packet inside, 14 of these are the link's own header." in inside


def test_the_strip_counts_every_octet_of_the_packet_once(run: tuple[RunResult, ShownPackets]) -> None:
    packets = run[1].packets
    outer, inner = packets["with/isp.pcapng", 10], packets["with/client-tun.pcapng", 6]
    for view in (dolls("a", "", "", outer, inner), dolls("b", "", "", outer), dolls("c", "", "", sample_packet())):
        assert sum(piece.octets for piece in view.strip) == view.octets
        ends = [piece.x + piece.width for piece in view.strip]
        assert ends == sorted(ends)
        assert ends[-1] == pytest.approx(1000, abs=1)
    whole = dolls("a", "", "", outer, inner)
    assert [piece.octets for piece in whole.strip] == [14, 20, 8, 8, 16, 20, 20, len(inner.octets) - 40]
    assert {piece.kind for piece in whole.strip[4:]} == {"ciphertext"}


def test_a_sealed_packet_names_what_it_carried_and_a_ping_of_the_tunnels_own_nothing(
    run: tuple[RunResult, ShownPackets],
) -> None:
    text = document(run)
    parts = {tuple(part.split('"')[:3:2]): part for part in text.split('data-file="')[1:]}
    assert ">with/client-tun.pcapng frame 6</a></p>" in parts["with/isp.pcapng", "10"]
    assert "What it carried" not in parts["with/isp.pcapng", "4"]
    assert "What it carried" not in parts["without/isp.pcapng", "6"]


def test_a_tunnel_without_headers_is_drawn_sealed_where_the_run_knows_it(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    bare = {
        key: replace(view, layers=(*view.layers[:3], Layer("Data", (("length", "x"),), 42, len(view.octets))))
        if key[0] == "with/isp.pcapng"
        else view
        for key, view in shown.packets.items()
    }
    lists = {**shown.lists, "with": [replace(one, protocol="UDP", summary="1 → 2") for one in shown.lists["with"]]}
    text = render_html(result, bare, lists, shown.inside)
    assert 'id="ladder-tunnel"' not in text
    outside = text[text.index('id="ladder-outside"') : text.index('id="ladder-inside"')]
    assert outside.count('class="packet-arrow sealed"') == 6
    assert "Break the seal" in text
    assert "8 packets went through the tunnel" in text
    assert text.count('<li class="sealed">') == 8


def test_without_a_pair_the_doll_stays_closed_and_says_why(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    unsure = {"with": Inside("with/client-tun.pcapng", (), "with/isp.pcapng", {}, "Nobody can tell.")}
    text = render_html(result, shown.packets, shown.lists, unsure)
    closed = text[text.index('id="doll-sealed"') : text.index('id="sizes"')]
    assert "Break the seal" not in closed
    assert "Nobody can tell." in closed


# -- pieces for other pages --------------------------------------------------------------------------------------------


def test_a_lesson_puts_pieces_together_to_one_offline_page(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    files = ["without/isp.pcapng"]
    places = places_of(result.variants["without"], graph_of(result))
    view = ladder("l", "T", "", files[0], shown.lists["without"], places, lambda key: packet_id(*key, files))
    assert view is not None
    pieces = Pieces()
    opened = [(frame, packet) for (file, frame), packet in sorted(shown.packets.items()) if file == files[0]]
    doll = dolls("d", "D", "", shown.packets[files[0], 6])
    body = pieces.ladder(view) + pieces.dolls(doll) + pieces.packets(files[0], opened)
    outline = Outline(pieces.page("A <b>lesson</b>", body))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert outline.crossed == outline.stack == []
    assert all(a["data-packet"] in ids for a in outline.of("a") if "data-packet" in a)
    assert outline.of("b") != []
    assert "A <b>lesson</b>" in outline.text
    assert sum(tag == "script" for tag, _ in outline.elements) == 1


# -- size --------------------------------------------------------------------------------------------------------------


def test_the_report_of_a_run_with_thousands_of_large_packets_stays_below_three_megabytes(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    text = b"GET /" + b"a" * 1300 + b" HTTP/1.1\r\n" + b"".join(b"X-%d: <&>\"'\r\n" % n for n in range(10)) + b"\r\n"
    flood = [(n * 0.0004, tcp((CLIENT, WEB), (40000, 80), (n * len(text), 1), 0x18, text)) for n in range(2_500)]
    inside = [(time, packet[:12] + bytes((10, 8, 0, 2)) + packet[16:]) for time, packet in flood]
    for name, packets in {"without": flood, "with": list(sealed(inside)), "split": flood}.items():
        (tmp_path / name / "isp.pcapng").write_bytes(capture_octets(packets, pcapng.LINKTYPE_ETHERNET))
    (tmp_path / "with" / "client-tun.pcapng").write_bytes(capture_octets(inside, pcapng.LINKTYPE_RAW))
    shown = shown_packets(result, tmp_path)
    document = render_html(result, shown.packets, shown.lists, shown.inside)
    assert len(shown.packets) > 100
    assert len(document.encode()) < 3_000_000


# -- hostile text ------------------------------------------------------------------------------------------------------


def hostile_run(run: tuple[RunResult, ShownPackets], text: str) -> str:
    """The report with a hostile string wherever a drawing takes one, all else as it is."""
    result, shown = run
    topology = {**TOPOLOGY, text: {text: {"peer": "isp", "addresses": [text]}}}
    whole = result.variants["with"]
    actions = tuple(replace(action, target=text, verb=text, detail=text) for action in whole.actions)
    taps = (*whole.taps, replace(whole.taps[0], name=text, node=text, interface=text))
    told = replace(whole, actions=actions, taps=taps, egress=tuple({**row, "site": text} for row in whole.egress))
    result = replace(
        result, scenario={**result.scenario, "topology": topology}, variants={**result.variants, "with": told}
    )
    lists = {
        name: [replace(one, protocol=text, summary=text, source=text) for one in lines]
        for name, lines in shown.lists.items()
    }
    packets = {
        key: replace(view, source=text, protocol=text, summary=text, layers=tuple(
            replace(layer, name=text, fields=((text, text),)) for layer in view.layers
        ))
        for key, view in shown.packets.items()
    }  # fmt: skip
    inside = {name: replace(one, how=text) for name, one in shown.inside.items()}
    return render_html(result, packets, lists, inside)


def test_a_hostile_string_in_any_drawing_adds_no_element_and_no_attribute(run: tuple[RunResult, ShownPackets]) -> None:
    def shape(text: str) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(names)) for tag, names in Outline(hostile_run(run, text)).elements]

    hostile = "\"'><script>alert(1)</script></svg></style><!--\x00\u2028\u202e" + "{% raw %}{{ 7*7 }}"
    assert shape(hostile) == shape("h" * len(hostile))
    assert "<script>alert" not in hostile_run(run, hostile)


def test_every_observer_that_has_a_capture_has_its_ladders(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    variants = {}
    for name, variant in result.variants.items():
        (tmp_path / name / "lan.pcapng").write_bytes((tmp_path / name / "isp.pcapng").read_bytes())
        tap = replace(variant.taps[0], name="lan", file=f"{name}/lan.pcapng")
        seen = tuple(replace(row, observer="lan") for row in variant.exposure if row.observer == "isp")
        variants[name] = replace(variant, taps=(*variant.taps, tap), exposure=(*variant.exposure, *seen))
    result = replace(result, variants=variants)
    shown = shown_packets(result, tmp_path)
    assert list(shown.others) == ["lan"]
    assert [line.frame for line in shown.others["lan"]["with"]] == [line.frame for line in shown.lists["with"]]
    page = render_html(result, shown.packets, shown.lists, shown.inside, shown.others)
    assert "The same as your local network has it" in page
    assert page.count('id="ladder-tunnel"') == page.count('id="observer2-ladder-tunnel"') == 1
    assert "The same as" not in render_html(result, shown.packets, shown.lists, shown.inside)
