"""What stops an estimator from being made is told in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator


def test_no_weights_says_what_to_set() -> None:
    """Without weights the sentence names the parameter, the list and the way to try."""
    with pytest.raises(ConfigurationError, match=r"dae-ros models list.*untrained:vits"):
        create_estimator(DepthParameters(weights=""))


def test_no_torch_says_what_to_install() -> None:
    """On an interpreter without PyTorch the error is ours and names the extra."""
    code = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
def find(name, package=None):
    return None if name == "torch" else real(name, package)
importlib.util.find_spec = find
sys.meta_path.insert(0, Hide())
from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
try:
    create_estimator(DepthParameters(weights="untrained:vits"))
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=800
    )
    assert "needs PyTorch" in done.stdout and "extra `cpu`" in done.stdout
