"""What the event path has to reach, part of bench_decode and bench_tencode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.goals import Goal, at_least, at_most

# Mev/s decoded beside each peer, as a ratio.
DECODE_PEERS = {"faery": 1.9, "expelliarmus": 2.7, "evlib": 20.0}
# Encodings that one core has to decode at that many Mev/s.
DECODE_MEVS = 100.0
DECODED_ALONE = ("libcaer_cmp", "libcaer", "mono", "event_array_cdr", "event_array_ros1")
# Stream's rate in Mev/s -> how many times as fast as the best peer with numpy.
TENCODE_PEERS = {1: 2.0, 10: 3.0, 100: 4.0}
# CPU ms of one window between the packets of its stream, in either form.
WINDOW_COST_MS = {"VGA": 0.12, "HD": 0.35}
WINDOW_FORMS = {"code": "its code, for a GPU", "planes": "planes, for a CPU"}
# Of one core, at 100 Mev/s.
CORE_SHARE, WINDOW_MS = 0.40, 50.0


def decode_goals(results: Mapping[str, Any]) -> list[Goal]:
    """Compare results of bench_decode with the goals: from a file, on to columns, in packets.

    Peers make columns from a file. Ours stay packed until somebody asks for columns.

    Returns:
        goal, value, bound, met; value and met are None where a peer took no part.
    """
    found: list[Goal] = []
    for stream, result in results["evt3"].items():
        rates = result["mev_per_s"]
        for peer, bound in DECODE_PEERS.items():
            measured = peer in rates
            # From a file the median of the rounds' ratios; else ours comes twice into it.
            for way, ours in (
                ("a file", 1.0),
                ("a file, to columns", result["ratio_ours_to"]["ours_columns"]),
                ("packets", result["ratio_ours_to"]["ours_packets"]),
            ):
                value = result["ratio_ours_to"][peer] / ours if measured else None
                found.append(at_least(f"EVT3 in {way}, {stream}: times {peer}", value, bound))
    for encoding in DECODED_ALONE:
        value = results["encodings"][encoding]["mev_per_s"]["ours"]
        found.append(at_least(f"{encoding}: Mev/s on one core", value, DECODE_MEVS))
    return found


def tencode_goals(results: Mapping[str, Any]) -> list[Goal]:
    """Compare results of bench_tencode with the goals; see `decode_goals`."""
    found: list[Goal] = []
    for stream, result in results["packets_to_tencode"].items():
        size, rate_mevs = stream.split()[0], int(stream.split()[1])
        peers = {name: ratio for name, ratio in result["ratio_to_first"].items() if name != "ours"}
        if rate_mevs in TENCODE_PEERS:
            best = min(peers.values(), default=None)
            goal = f"packets to Tencode, {stream}: times the best peer"
            found.append(at_least(goal, best, TENCODE_PEERS[rate_mevs]))
        if rate_mevs == 100:
            share = result["ms_per_window"]["ours"] / WINDOW_MS
            found.append(at_most(f"packets to Tencode, {stream}: of a core", share, CORE_SHARE))
        for form, said in WINDOW_FORMS.items():
            window_ms = result["in_stream"][form]["p50_ms"]
            goal = f"one window as {said}, {stream}: ms"
            found.append(at_most(goal, window_ms, WINDOW_COST_MS[size]))
    return found
