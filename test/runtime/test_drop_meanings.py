"""Every count of a summary comes with what it means."""

from __future__ import annotations

import re
from pathlib import Path

from dae_ros.events.codecs.layout import REASONS
from dae_ros.runtime.drop_meanings import DROP_MEANINGS, meanings_of

ROOT = Path(__file__).resolve().parents[2]


def test_each_reason_has_a_meaning() -> None:
    """Those of the decoders, and those that the stream and the pipeline count themselves."""
    pipeline = (ROOT / "dae_ros" / "runtime" / "pipeline.py").read_text(encoding="utf-8")
    own = set(re.findall(r'_dropped\["(\w+)"\]', pipeline))
    own |= set(re.findall(r'_end_window\(.*"(\w+)"\)', pipeline))
    assert len(own) >= 4
    stream = {"lost_packets", "duplicate_packets", "late_packets", "evicted_events"}
    assert set(DROP_MEANINGS) == {*REASONS, *own, *stream}


def test_meanings_are_those_of_what_was_counted() -> None:
    """A count that the table does not know, as the code of an error, is passed over."""
    found = meanings_of({"wraps": 3, "packet": 1})
    assert list(found) == ["wraps"]
    assert "nothing lost" in found["wraps"]
