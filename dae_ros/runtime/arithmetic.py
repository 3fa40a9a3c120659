"""Which arithmetic backends have, and which is meant by `auto`."""

from __future__ import annotations

from dae_ros.errors import ConfigurationError

# Of graphs in a floating-point format; int8 is a matter of the file (`accuracy_report`).
PRECISIONS = {
    "onnxruntime": ("float32", "float16"),
    "tensorrt": ("float32", "float16"),
    "openvino": ("float32", "bfloat16"),
}


def usual_precision(*, on_cpu: bool) -> str:
    """Return what the precision `auto` of a checkpoint is on backends of graphs.

    Of PyTorch see `torch_precision`.
    """
    return "float32" if on_cpu else "float16"


def chosen_precision(precision: str, backend: str, device: str) -> str:
    """Return the arithmetic of a graph.

    Args:
        precision: `auto`, or what is wanted.
        backend: `onnxruntime`, `tensorrt` or `openvino`.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigurationError: the backend does not have it.
    """
    if precision == "int8":
        raise int8_needs_a_file()
    offered = PRECISIONS[backend]
    if precision == "auto":
        return usual_precision(on_cpu=device == "cpu")
    if precision not in offered:
        raise ConfigurationError(
            f"backend {backend} computes in {' or '.join(offered)}, not in {precision}; use one "
            "of them, or backend torch",
            parameter="precision",
        )
    return precision


def int8_needs_a_file() -> ConfigurationError:
    """Return what to say to whoever wants a checkpoint in int8."""
    return ConfigurationError(
        "int8 runs from a file whose loss was measured; write it with `dae-ros export WEIGHTS "
        "--precision int8 --calibration CLIPS` and give it as weights",
        parameter="precision",
    )
