"""What the event path's benchmarks say of fixed figures: goals met, missed and not measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.bench_tencode import TimedSurface, windows_in_stream
from benchmarks.event_goals import decode_goals, tencode_goals
from benchmarks.goals import conclude
from dae_ros.representation.tencode_code import unpack_tencode
from dae_ros.runtime.benchmark.event_path import encode_windows, in_packets
from dae_ros.simulation.moving_texture import moving_texture

DECODED = {
    "evt3": {
        "VGA 1 Mev/s": {
            "mev_per_s": {"ours": 190.0, "ours_packets": 95.0, "faery": 95.0, "evlib": 5.0},
            "ratio_ours_to": {
                "ours_columns": 1.25,
                "ours_packets": 2.0,
                "faery": 2.0,
                "evlib": 38.0,
            },
        }
    },
    "encodings": {
        name: {"mev_per_s": {"ours": 99.9 if name == "mono" else 100.0}}
        for name in ("libcaer_cmp", "libcaer", "mono", "event_array_cdr", "event_array_ros1", "x")
    },
}
TENCODED = {
    "packets_to_tencode": {
        stream: {
            "ms_per_window": {"ours": ours_ms},
            "ratio_to_first": {"ours": 1.0, "faery + numpy": 5.0, "expelliarmus + numpy": ratio},
            "in_stream": {"code": {"p50_ms": code_ms}, "planes": {"p50_ms": planes_ms}},
        }
        for stream, ours_ms, ratio, code_ms, planes_ms in (
            ("VGA 1 Mev/s", 1.0, 1.9, 0.12, 0.13),
            ("VGA 50 Mev/s", 9.0, 0.5, 0.13, 0.2),
            ("HD 100 Mev/s", 20.0, 4.0, 0.2, 0.35),
        )
    },
}


def test_decoding_is_judged_from_a_file_and_in_packets() -> None:
    """In packets the ratio is that of our own slower way; a peer that took no part is no miss."""
    found = {goal["goal"]: (goal["value"], goal["met"]) for goal in decode_goals(DECODED)}
    assert found == {
        "EVT3 in a file, VGA 1 Mev/s: times faery": (2.0, True),
        "EVT3 in a file, to columns, VGA 1 Mev/s: times faery": (1.6, False),
        "EVT3 in packets, VGA 1 Mev/s: times faery": (1.0, False),
        "EVT3 in a file, VGA 1 Mev/s: times expelliarmus": (None, None),
        "EVT3 in a file, to columns, VGA 1 Mev/s: times expelliarmus": (None, None),
        "EVT3 in packets, VGA 1 Mev/s: times expelliarmus": (None, None),
        "EVT3 in a file, VGA 1 Mev/s: times evlib": (38.0, True),
        "EVT3 in a file, to columns, VGA 1 Mev/s: times evlib": (30.4, True),
        "EVT3 in packets, VGA 1 Mev/s: times evlib": (19.0, False),
        "libcaer_cmp: Mev/s on one core": (100.0, True),
        "libcaer: Mev/s on one core": (100.0, True),
        "mono: Mev/s on one core": (99.9, False),
        "event_array_cdr: Mev/s on one core": (100.0, True),
        "event_array_ros1: Mev/s on one core": (100.0, True),
    }


def test_tencode_is_judged_by_the_best_peer_the_core_and_the_window() -> None:
    """Rates without a goal beside peers still have one for the window; bounds belong to it."""
    found = [(goal["goal"], goal["value"], goal["met"]) for goal in tencode_goals(TENCODED)]
    assert found == [
        ("packets to Tencode, VGA 1 Mev/s: times the best peer", 1.9, False),
        ("one window as its code, for a GPU, VGA 1 Mev/s: ms", 0.12, True),
        ("one window as planes, for a CPU, VGA 1 Mev/s: ms", 0.13, False),
        ("one window as its code, for a GPU, VGA 50 Mev/s: ms", 0.13, False),
        ("one window as planes, for a CPU, VGA 50 Mev/s: ms", 0.2, False),
        ("packets to Tencode, HD 100 Mev/s: times the best peer", 4.0, True),
        ("packets to Tencode, HD 100 Mev/s: of a core", 0.4, True),
        ("one window as its code, for a GPU, HD 100 Mev/s: ms", 0.2, True),
        ("one window as planes, for a CPU, HD 100 Mev/s: ms", 0.35, True),
    ]
    alone = {
        "ms_per_window": {"ours": 1.0},
        "ratio_to_first": {"ours": 1.0},
        "in_stream": {"code": {"p50_ms": 0.12}, "planes": {"p50_ms": 0.12}},
    }
    without = {"packets_to_tencode": {"VGA 1 Mev/s": alone}}
    assert [goal["met"] for goal in tencode_goals(without)] == [None, True, True]


def test_a_busy_machine_is_flagged_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Goals and the load at the start are in what is recorded, and printed with their verdicts."""
    for load, flagged in ((0.4, False), (1.3, True)):
        results: dict[str, object] = {}
        conclude(results, decode_goals(DECODED), load)
        printed = capsys.readouterr().out
        assert ("The load was 1.3 at the start" in printed) == flagged
        assert json.loads(json.dumps(results))["load_1_minute_at_start"] == load
        assert len(results["goals"]) == 14
        assert "| mono: Mev/s on one core | 99.9 | >= 100 | **missed** |" in printed
        assert "expelliarmus | - | >= 2.7 | not measured |" in printed


def test_windows_are_timed_between_the_packets_of_their_stream() -> None:
    """Every window of every round but the first, which warms up; planes are made of the code."""
    events = moving_texture(48, 64, 1.0, 155_000)
    packets = in_packets("evt3", events, 64, 48, 1.0)
    codes = list(encode_windows("evt3", packets, 64, 48))
    found = windows_in_stream(packets, 64, 48, 2)
    for kind in ("code", "planes"):
        assert found[kind]["windows"] == 2 * len(codes) == 6
        assert 0.0 < found[kind]["p50_ms"] <= found[kind]["p90_ms"]
    planes = np.empty((3, 48, 64), np.float32)
    surface = TimedSurface(48, 64, planes)
    for number, code in enumerate(encode_windows("evt3", packets, 64, 48, surface=surface)):
        np.testing.assert_array_equal(code, codes[number])
        np.testing.assert_array_equal(planes, unpack_tencode(code))
    assert len(surface.window_ms) == len(codes)
