"""A teacher in a file that knows certain frames by heart, for processes that load it by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def write_echo(folder: Path, depth: Mapping[bytes, NDArray[np.float32]], factor: float) -> Path:
    """Write an ONNX model that answers the nearest known frame's depth times a factor.

    Args:
        folder: to write into.
        depth: bytes of a frame, uint8 (H, W) -> metres, float32 (H, W).
        factor: on all depth.

    Returns:
        The manifest that `load_teacher` takes.
    """
    height, width = next(iter(depth.values())).shape
    frames = np.stack([np.frombuffer(key, np.uint8) for key in depth]).astype(np.float32) / 255
    tables = {
        # |frame - known|^2 is smallest where frame.known - |known|^2 / 2 is largest.
        "known": frames.T.copy(),
        "offset": (frames**2).sum(1) / 2,
        "depth": np.stack(list(depth.values())).astype(np.float32) * np.float32(factor),
    }
    nodes = [
        helper.make_node("Flatten", ["frames"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "known"], ["product"]),
        helper.make_node("Sub", ["product", "offset"], ["likeness"]),
        helper.make_node("ArgMax", ["likeness"], ["nearest"], axis=1, keepdims=0),
        helper.make_node("Gather", ["depth", "nearest"], ["answer"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["n", 1, height, width])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", height, width])],
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file = folder / "echo.onnx"
    onnx.save(model, str(file))
    manifest = folder / "echo.yaml"
    facts = {
        "file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "Apache-2.0", "channels": 1, "mean": [0.0], "deviation": [1.0],
        "height": height, "width": width, "multiple": 1, "fixed_size": True,
        "meaning": {"event_encoder": "grey", "orientation": "depth", "scale": "metric"},
    }  # fmt: skip
    manifest.write_text(yaml.safe_dump(facts), encoding="utf-8")
    return manifest
