"""From parameters to the estimator of a backend; today PyTorch is the only one."""

from __future__ import annotations

import importlib.util

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.estimator import DepthEstimator


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
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the network needs PyTorch, which is not installed here: install dae_ros with its "
            "extra `cpu` or `gpu` (pip install '.[cpu]'), or any torch from 2.3 on",
            package="torch",
        )
    # torch is slow to import and not needed by the event half.
    from dae_ros.runtime.torch_estimator import create_torch_estimator

    return create_torch_estimator(parameters)
