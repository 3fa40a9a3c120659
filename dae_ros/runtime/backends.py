"""From parameters to the estimator of a backend."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backend_choice import SUFFIX, choose_backend
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import DepthEstimator, ReloadableEstimator
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap

if TYPE_CHECKING:
    from dae_ros.runtime.exported_estimator import ExportedEstimator


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
    choice = choose_backend(parameters)
    # Who names the GPU waits for the export, and does not get the CPU where that is refused.
    takes_over = (
        parameters.backend == "auto"
        and not parameters.weights.endswith(SUFFIX)
        and not parameters.device.startswith("cuda")
    )
    if choice.backend != "torch" and not takes_over:
        from dae_ros.runtime.graph_backends import create_graph_estimator

        return create_graph_estimator(parameters, choice.backend)
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the network needs PyTorch, which is not installed here: install dae_ros with its "
            "extra `cpu` or `gpu` (pip install '.[cpu]'), or any torch from 2.3 on",
            package="torch",
        )
    # torch is slow to import and not needed by the event half.
    from dae_ros.runtime.torch_estimator import create_torch_estimator

    estimator = create_torch_estimator(parameters)
    if choice.backend == "torch":
        return estimator
    from dae_ros.runtime.takeover import TakeoverEstimator

    return TakeoverEstimator(estimator, lambda: _exported(parameters, choice.backend), choice)


def _exported(parameters: DepthParameters, backend: str) -> ExportedEstimator:
    from dae_ros.runtime.exported_estimator import ExportedEstimator
    from dae_ros.runtime.graph_backends import create_graph_estimator

    estimator = create_graph_estimator(parameters, backend)
    if not isinstance(estimator, ExportedEstimator):
        raise ConfigurationError(f"{parameters.weights} is no checkpoint", parameter="weights")
    return estimator


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
