"""What int8 on OpenVINO costs weights in depth, on held-out windows with truth.

    python -m benchmarks.bench_int8 [--weights micro] [--clips output/first_weights/clips]

The export of `dae-ros export --precision int8`, with its own calibration and its own judgement; the
file is thrown away, its accuracy report becomes results/int8.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.record import record
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.int8_export import export_int8
from dae_ros.model.weights import load_weights


def main() -> None:
    """Export, print the scores, record the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="micro", help="of a network (default: %(default)s)")
    parser.add_argument("--clips", type=Path, default=Path("output/first_weights/clips"))
    options = parser.parse_args()
    loaded, store = load_weights(options.weights), open_clip_store(options.clips)
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dae_ros_int8_") as folder:
        report = export_int8(
            loaded, Path(folder) / "int8.onnx", store.height, store.width, store
        )  # fmt: skip
    print("| score | float32 | int8 | loss |\n|---|---|---|---|")
    for name, pair in report.scores.items():
        loss = pair.loss_percent(name)
        print(f"| {name} | {pair.float32:.4f} | {pair.int8:.4f} | {loss:.2f} % |")
    results = {
        "weights": options.weights,
        "sha256": loaded.digest,
        "height_px": store.height,
        "width_px": store.width,
        "report": json.loads(report.to_json()),
    }
    print(f"\n{time.monotonic() - begin_s:.0f} s -> {record('int8', results)}")


if __name__ == "__main__":
    main()
