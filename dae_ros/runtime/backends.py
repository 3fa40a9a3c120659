"""From parameters to the estimator of a backend."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import DepthEstimator, ReloadableEstimator
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap


def create_estimator(parameters: DepthParameters) -> DepthEstimator:
    """Load the weights that the parameters name onto the device that they name.

    Raises:
        ConfigurationError: no weights named, no PyTorch, or a device that is not there.
        WeightsError: the file is missing, damaged or not what it says.
    """
    if not parameters.weights:
        raise ConfigurationError(
            "no weights: set 'weights' to a checkpoint file or to a name that `dae-ros models "
            "list` shows, or to untrained:vits to try the plumbing with random weights",
            parameter="weights",
        )
    backend = choose_backend(parameters)
    if backend != "torch":
        from dae_ros.runtime.graph_backends import create_graph_estimator

        return create_graph_estimator(parameters, backend)
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the network needs PyTorch, which is not installed here: install dae_ros with its "
            "extra `cpu` or `gpu` (pip install '.[cpu]'), or any torch from 2.3 on",
            package="torch",
        )
    # torch is slow to import and not needed by the event half.
    from dae_ros.runtime.torch_estimator import create_torch_estimator

    return create_torch_estimator(parameters)


def choose_backend(parameters: DepthParameters) -> str:
    """Return what is to run the network: `torch`, `onnxruntime`, `tensorrt` or `openvino`.

    `auto` is PyTorch for checkpoints, which is what live depth, recordings and learning agree on
    bit by bit, and which needs no export. For exported files it is OpenVINO where that is
    installed and the device is a CPU, else onnxruntime.

    Raises:
        ConfigurationError: PyTorch is asked to run an exported file.
    """
    exported = parameters.weights.endswith(".onnx")
    if parameters.backend == "torch" and exported:
        raise ConfigurationError(
            f"PyTorch does not run {parameters.weights}; use the checkpoint that it was exported "
            "from, or backend onnxruntime or openvino",
            parameter="backend",
        )
    if parameters.backend != "auto":
        return parameters.backend
    if not exported:
        return "torch"
    if parameters.device in ("auto", "cpu") and importlib.util.find_spec("openvino") is not None:
        return "openvino"
    return "onnxruntime"


def follow_weights(
    estimator: DepthEstimator,
    parameters: DepthParameters,
    judged: Callable[[Verdict], None],
    *,
    background: bool = True,
) -> WeightSwap:
    """Return an estimator that changes its weights as a trainer announces them.

    Args:
        estimator: to begin with.
        parameters: its rules. With the overload policy `queue` nothing has to be in time, so all
            that waits is done before the next window.
        judged: called with every verdict.
        background: load on a thread; without, and with `queue`, all is deterministic.

    Raises:
        ConfigurationError: the backend cannot hold two sets of weights.
    """
    if not isinstance(estimator, ReloadableEstimator):
        raise ConfigurationError(
            f"{estimator.name} runs on a backend that cannot change its weights; leave "
            "follow_snapshots off, or use weights of PyTorch",
            parameter="follow_snapshots",
        )
    rules = SwapRules(
        replay_windows=parameters.replay_windows,
        canary_windows=parameters.canary_windows,
        scale_step=parameters.canary_scale_step,
        flicker=parameters.canary_flicker,
        spread=parameters.canary_spread,
        latency=parameters.canary_latency,
    )
    eager = parameters.overload == "queue"
    return WeightSwap(estimator, rules, judged=judged, eager=eager, background=background)
