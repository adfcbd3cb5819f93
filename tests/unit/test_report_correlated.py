"""What both sides of a VPN server know together, in words."""

from __future__ import annotations

from testbed.report.correlated import both_sides_in_words

ENDS = {"client": "c", "tunnel": "openvpn", "server": "v", "site": "s", "egress": "e", "protocol": "tcp"}


def test_each_conversation_is_told_once_by_its_surest_pair() -> None:
    weak = {**ENDS, "near": "lan", "far": "web", "confidence": "weak", "score": 1.0, "sentence": "c talked to s"}
    strong = {**ENDS, "near": "isp", "far": "web", "confidence": "strong", "score": 0.9, "sentence": "c talked to s"}
    other = {**weak, "site": "t", "sentence": "c talked to t"}
    assert both_sides_in_words([weak, strong, other]) == [
        "isp and web together: c talked to s; so do lan and web",
        "lan and web together: c talked to t",
    ]


def test_nothing_found_is_nothing_said() -> None:
    assert both_sides_in_words([]) == []
