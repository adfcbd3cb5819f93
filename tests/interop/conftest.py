"""What several of these tests open: one browser a file, and the report of captures on disk in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.dissection.shown import shown_packets
from testbed.report.html import render_html
from tests.interop.chromium import Chromium
from tests.unit.report_run import write_run


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def drawn(chromium: Chromium, tmp_path: Path) -> Iterator[Chromium]:
    """The report of captures on disk, with everything that is drawn from packets."""
    result = write_run(tmp_path)
    shown = shown_packets(result, tmp_path)
    path = tmp_path / "drawn.html"
    path.write_text(render_html(result, shown.packets, shown.lists, shown.inside, shown.others), encoding="utf-8")
    chromium.open(path)
    yield chromium
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    chromium.call("Emulation.setEmulatedMedia", media="", features=[])
    chromium.call("Emulation.clearDeviceMetricsOverride")
