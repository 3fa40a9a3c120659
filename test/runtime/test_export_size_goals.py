"""What the benchmark of six sizes says of fixed figures."""

from __future__ import annotations

from benchmarks.bench_export_sizes import SIZES, goals


def test_the_worst_size_decides_and_a_refusal_is_a_miss() -> None:
    """One goal for each network and runtime, against what an export allows."""
    rows = [
        {"network": "tiny", "onnxruntime_rms": 2e-5, "openvino_rms": 9e-5},
        {"network": "tiny", "onnxruntime_rms": 4e-5, "openvino_rms": 2e-4},
        {"network": "vits", "refused": "no memory"},
    ]
    found = [(goal["value"], goal["bound"], goal["met"]) for goal in goals(rows)]
    assert found == [
        (4e-5, 1e-4, True),
        (2e-4, 1e-4, False),
        (float("inf"), 1e-4, False),
        (float("inf"), 1e-4, False),
    ]
    assert "tiny at 2 sizes on openvino" in goals(rows)[1]["goal"]
    assert len(set(SIZES)) == 6
