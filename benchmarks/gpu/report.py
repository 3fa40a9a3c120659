"""What `bench_gpu` says of its figures: tables, the roofline, and which goals were met.

TensorRT is timed as the backend `tensorrt` runs it, through onnxruntime, from host to host. That
includes binding input, states and outputs anew at each step (IO binding), float planes on the way
to the device, six times as many bytes as the code that ours sends, and a prediction that comes back
to memory that is not pinned. TensorRT without onnxruntime is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.goals import Goal, at_least, at_most, goal_lines
from benchmarks.gpu.contenders import AS_WRITTEN, OURS, TENSORRT
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

# The GPU that the first two goals are about, by its own name.
JUDGED_GPU = "H200"
STEP_MS = {(266, 350): 1.0, (476, 644): 1.6}
TIMES_EAGER = 3.0
TIMES_TENSORRT = 1.1
NETWORK = "vits"
Results = Mapping[str, Any]


def goals(results: Results) -> list[Goal]:
    """Compare results with the goals.

    Returns:
        goal, value, bound, met of each; value and met are None where it was not measured, and
        bounds in ms are judged on the GPU that they are of alone.
    """
    found = []
    name = results["device"]["name"]
    for size, bound_ms in STEP_MS.items():
        rows = rows_of(results, NETWORK, size)
        ours = _figure(rows, OURS, "step_p50_ms")
        # A word of it: a GH200 is another GPU.
        judged = JUDGED_GPU in name.split()
        text = f"{NETWORK} at {size[0]}x{size[1]}"
        found.append(at_most(f"{text}: ms of a step on an {JUDGED_GPU}", ours if judged else None,
                             bound_ms))  # fmt: skip
        eager = _figure(rows, AS_WRITTEN, "step_p50_ms")
        goal = f"{text}: times eager PyTorch in bfloat16, as the authors wrote it"
        found.append(at_least(goal, _ratio(eager, ours), TIMES_EAGER))
        tensorrt = _figure(rows, TENSORRT, "step_p50_ms")
        goal = f"{text}: step over that of TensorRT through onnxruntime"
        found.append(at_most(goal, _ratio(ours, tensorrt), TIMES_TENSORRT))
    return found


def rows_of(results: Results, network: str, size: Sequence[int]) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a network at a size by contender; none where it was not measured."""
    for section in results["steps"]:
        if section["network"] == network and list(section["size_px"]) == list(size):
            return {row["contender"]: row for row in section["rows"]}
    return {}


def _figure(rows: Mapping[str, Mapping[str, Any]], name: str, key: str) -> float | None:
    return rows[name][key] if name in rows else None


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value / other


def table(results: Results) -> str:
    """Return everything that was measured as Markdown."""
    peaks, device = results["peaks"], results["device"]
    rates = ", ".join(
        f"{rate / 1e12:.4g} TFLOP/s in {precision}"
        for precision, rate in peaks["operations_per_s"].items()
    )
    bandwidth = f"{peaks['bytes_per_s'] / 1e12:.4g} TB/s"
    said = f"Measured peaks: {rates}; {bandwidth} (a copy, read plus written)."
    lines = [f"# {device['name']}", "", f"{said} Floors are made of these."]
    for section in results["steps"]:
        lines += ["", *_steps(section)]
    for section in results["cameras"]:
        lines += ["", f"## Cameras stepped together: {_title(section)}, bfloat16", ""]
        lines += _table(
            ("cameras", "step, ms", "per camera, ms", "floor per camera, ms"),
            [
                (row["cameras"], row["step_p50_ms"], row["per_camera_ms"],
                 row["floor_per_camera_ms"])
                for row in section["rows"]
            ],
        )  # fmt: skip
    for section in results["swaps"]:
        lines += ["", f"## Changes of weights while stepping: {_title(section)}, bfloat16", ""]
        told = [("quiet", None, section["quiet"])]
        told += [
            ("cold change" if change["cold"] else "change", change["took_s"], change)
            for change in section["changes"]
        ]
        lines += _table(
            ("", "took, s", "steps", "median step, ms", "longest step, ms"),
            [(name, took, one["steps"], one["p50_ms"], one["longest_ms"])
             for name, took, one in told],
        )  # fmt: skip
    if results["training"]:
        lines += ["", "## Updates of training", ""]
        lines += _table(
            ("network", "input, px", "arithmetic", "clips x windows", "update, ms", "floor, ms",
             "times the floor"),
            [
                (one["network"], "x".join(map(str, one["size_px"])), one["precision"],
                 f"{one['clips']} x {sum(one['windows'])}", one["update_p50_ms"],
                 one["floor"]["roofline_ms"],
                 one["update_p50_ms"] / one["floor"]["roofline_ms"])
                for one in results["training"]
            ],
        )  # fmt: skip
    if results["host"]:
        lines += ["", "## Beside it, on one core of the host: packets to the image of a window", ""]
        lines += _table(
            ("sensor, px", "encoding", "Mev/s", "window, ms"),
            [
                ("x".join(map(str, one["size_px"])), one["encoding"], one["rate_mevs"],
                 one["window_ms"])
                for one in results["host"]
            ],
        )  # fmt: skip
    for name, reason in results["failed"].items():
        lines += ["", f"**{name} failed:** {reason}"]
    # None before the last part is done.
    if results.get("goals"):
        lines += ["", "## Goals", "", *goal_lines(results["goals"])]
    return "\n".join(lines) + "\n"


def roofline(results: Results) -> Picture:
    """Draw what contenders reach over what they move, under the roof of the measured peaks.

    Both axes are logarithmic, the vertical one by its labels: tens of GFLOP/s and so on.
    """
    rate = results["peaks"]["operations_per_s"]["bfloat16"]
    bandwidth = results["peaks"]["bytes_per_s"]
    # One in a million of the least work would be far to the left of all networks.
    along = np.geomspace(1.0, max(1e4, 4 * rate / bandwidth), 200)
    series = {
        "roof, bfloat16": (list(along), [_decades(min(rate, bandwidth * x)) for x in along]),
    }
    for section in results["steps"]:
        for row in section["rows"]:
            floor = section["floors"].get(_arithmetic(row["contender"]))
            if row["device_ms"] is None or floor is None:
                continue
            reached = floor["operations"] / row["device_ms"] * 1e3
            intensity = floor["operations"] / floor["traffic_bytes"]
            x, y = series.setdefault(row["contender"], ([], []))
            x.append(intensity)
            y.append(_decades(reached))
    title = f"{results['device']['name']}: one step on the device"
    return line_plot(series, Axes(title, "FLOP per byte", "log10 of GFLOP/s", True))


def _arithmetic(contender: str) -> str:
    """Return the precision in a contender's name."""
    return contender.split()[1].rstrip(",")


def _decades(operations_per_s: float) -> float:
    # The plot begins at 0: less than a GFLOP/s is drawn there.
    return float(np.log10(max(operations_per_s / 1e9, 1.0)))


def _title(section: Mapping[str, Any]) -> str:
    height, width = section["size_px"]
    return f"{section['network']} at {height}x{width}"


def _steps(section: Mapping[str, Any]) -> list[str]:
    """Return the table of one network at one size, with the floor of each arithmetic."""
    lines = [
        f"## One step: {_title(section)}",
        "",
        f"An image over and a prediction back with nothing between: {section['round_trip_ms']} ms.",
        "",
    ]
    rows = []
    for row in section["rows"]:
        floor_ms = section["floors"][_arithmetic(row["contender"])]["roofline_ms"]
        device_ms = row["device_ms"]
        rows.append(
            (row["contender"], row["step_p50_ms"], row["step_p95_ms"], device_ms,
             row["device_cold_ms"], floor_ms, None if device_ms is None else device_ms / floor_ms,
             row["deviation_rms"], row["ready_s"], row["note"])
        )  # fmt: skip
    lines += _table(
        ("contender", "host to host, ms", "95 %, ms", "device, ms", "cold cache, ms", "floor, ms",
         "times the floor", "deviation", "ready in, s", ""),
        rows,
    )  # fmt: skip
    for name, reason in section["not_measured"].items():
        lines += ["", f"{name}: not measured ({reason})"]
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return lines + [f"| {' | '.join(_text(value) for value in row)} |" for row in rows]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
