"""How far exported graphs are from PyTorch at six sizes of the sensor, on each runtime of the CPU.

    python -m benchmarks.bench_export_sizes [names]

Untrained weights, float32, ten windows of moving edges with the state carried: what an export
compares, on onnxruntime, and what is compared again when OpenVINO opens the file. Sizes with odd
sides, a tall one, one that needs no scaling, and those of three sensors. A refused export is
recorded with its reason.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import record
from dae_ros.errors import DaeError
from dae_ros.model.untrained import untrained
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.onnx_parity import TOLERANCE, measure_deviation, moving_edges
from dae_ros.runtime.openvino_graph import OpenVinoGraph
from dae_ros.runtime.processor import processor_flags, said_of
from dae_ros.runtime.torch_estimator import TorchEstimator

NETWORKS = ("tiny", "micro", "vits")
SIZES = ((61, 83), (120, 70), (70, 98), (180, 240), (260, 346), (480, 640))


def measure(name: str, height: int, width: int, folder: Path) -> dict[str, Any]:
    """Return the deviations of one network at one size."""
    loaded, path = untrained(name), folder / f"{name}-{height}x{width}.onnx"
    row: dict[str, Any] = {"network": name, "sensor_px": [height, width]}
    try:
        row["onnxruntime_rms"] = export_onnx(loaded, path, height, width).root_mean_square
        said = read_description(path)
        graph = GraphEstimator(OpenVinoGraph(path, said), said)
        images = moving_edges(said.meaning.event_encoder, said.channels, height, width)
        row["openvino_rms"] = measure_deviation(
            TorchEstimator(loaded), graph, images
        ).root_mean_square
    except DaeError as error:
        row["refused"] = error.message
    finally:
        path.unlink(missing_ok=True)
    return row


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the worst size of each network with what an export allows.

    Returns:
        goal, value, bound, met; a refusal is a value of infinity.
    """
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        for runtime in ("onnxruntime", "openvino"):
            worst = max(row.get(f"{runtime}_rms", float("inf")) for row in own)
            bound = TOLERANCE["float32"]
            goal = f"{name} at {len(own)} sizes on {runtime}: off PyTorch by at most"
            found.append({"goal": goal, "value": worst, "bound": bound, "met": worst <= bound})
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description="parity of exported graphs at six sizes")
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NAME")
    names = parser.parse_args().names
    print(f"flags of the processor: {said_of(processor_flags())}")
    print("| network | height x width | onnxruntime | OpenVINO |\n|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for height, width in SIZES:
                row = measure(name, height, width, Path(folder))
                rows.append(row)
                cells = [f"{row[key]:.1e}" for key in row if key.endswith("_rms")]
                said = " | ".join([*cells, *([row["refused"]] if "refused" in row else [])])
                print(f"| {name} | {height}x{width} | {said} |", flush=True)
    reached = goals(rows)
    for goal in reached:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['goal']} {goal['bound']:g}: {goal['value']:.1e}, {verdict}")
    print(record("export_sizes", {"rows": rows, "goals": reached}))


if __name__ == "__main__":
    main()
