"""The verdict: what the client did, held against what each observer received."""

from __future__ import annotations

from testbed.verdict.evidence import (
    CapturedFrame,
    CapturedStream,
    Judgement,
    SiteLog,
    TapEvidence,
    VariantEvidence,
)

__all__ = ["CapturedFrame", "CapturedStream", "Judgement", "SiteLog", "TapEvidence", "VariantEvidence"]
