"""The verdict: what the client did, held against what each observer received.

`judge` is given the evidence of the variants that ran and says of every fact, for every observer, whether it was seen,
hidden or unproven. A fact is hidden only if nothing was seen, a search of every octet found nothing, the capture is
whole, and the same search is shown to find such a fact where it must be readable (its control).
"""

from __future__ import annotations

from testbed.verdict.evidence import (
    CapturedFrame,
    Judgement,
    SiteLog,
    TapEvidence,
    VariantEvidence,
    parse_site_log,
)
from testbed.verdict.judge import judge

__all__ = ["judge", "parse_site_log", "CapturedFrame", "Judgement", "SiteLog", "TapEvidence", "VariantEvidence"]
