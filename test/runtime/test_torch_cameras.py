"""Several cameras on one network: what comes back for each, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.untrained import untrained
from dae_ros.runtime.torch_cameras import CameraBatch
from dae_ros.runtime.torch_estimator import TorchEstimator
from test.reference.noise_image import noise_image


def test_each_camera_is_an_estimator_of_its_own() -> None:
    """Three cameras, one pausing and one reset: outputs, states and ages of three estimators."""
    together = CameraBatch(untrained("tiny"), 3)
    alone = [TorchEstimator(untrained("tiny")) for _ in range(3)]
    for turn in range(4):
        if turn == 2:
            together.reset(0)
            alone[0].reset()
        given = [
            noise_image(turn),
            None if turn == 1 else noise_image(10 + turn),
            noise_image(20 + turn),
        ]
        results = together.estimate(given)
        for camera, single in enumerate(given):
            if single is None:
                assert results[camera] is None
                continue
            result = results[camera]
            assert isinstance(result, np.ndarray)
            expected = alone[camera].estimate(single)
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert together.state_ages == [estimator.state_age for estimator in alone] == [2, 3, 4]
    for camera, estimator in enumerate(alone):
        for ours, theirs in zip(
            together.state_arrays(camera), estimator.state_arrays(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs[0], rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_stays_with_its_camera() -> None:
    """A NaN of one camera is reported for it alone, step by step, until it is reset."""
    together = CameraBatch(untrained("tiny"), 2)
    bad = noise_image(0)
    bad[1, 20, 30] = np.nan
    for first in (bad, noise_image(1)):
        failed, fine = together.estimate([first, noise_image(2)])
        assert isinstance(failed, NonFiniteState)
        assert failed.data["camera"] == 0
        assert isinstance(fine, np.ndarray)
    together.reset(0)
    healed, _ = together.estimate([noise_image(3), None])
    assert isinstance(healed, np.ndarray)
    expected = TorchEstimator(untrained("tiny")).estimate(noise_image(3))
    np.testing.assert_allclose(healed, expected, rtol=1e-5, atol=1e-5)


def test_cameras_without_windows_and_other_sizes() -> None:
    """Nothing is done without an image; another size begins all states anew."""
    together = CameraBatch(untrained("tiny"), 2)
    assert together.estimate([None, None]) == (None, None)
    assert together.state_arrays(0) == ()
    together.estimate([noise_image(0), noise_image(1)])
    assert together.estimate([None, None]) == (None, None)
    assert together.state_ages == [1, 1]
    together.estimate([noise_image(0, 61, 83), None])
    assert together.state_ages == [1, 0]


def test_what_is_no_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few images, sizes that differ, other types, no camera, and failures of PyTorch."""
    with pytest.raises(ConfigurationError, match="number of cameras"):
        CameraBatch(untrained("tiny"), 0)
    together = CameraBatch(untrained("tiny"), 2)
    for wrong in ([noise_image(0)], [noise_image(0), noise_image(1, 61, 83)]):
        with pytest.raises(ConfigurationError, match="give 2 of one size"):
            together.estimate(wrong)
    with pytest.raises(ConfigurationError, match=r"float32\[3, height, width\]"):
        together.estimate([noise_image(0), noise_image(1).astype(np.float64)])
    with pytest.raises(ConfigurationError, match="give 2 of one size"):
        together.estimate([np.zeros((60, 80), np.uint16), np.zeros((60, 81), np.uint16)])
    together.estimate([noise_image(0), noise_image(1)])
    step = together._slot.step
    assert step is not None
    head = step.weights.network.depth_head.scratch.output_conv1
    monkeypatch.setattr(head, "padding", (-5, -5))
    with pytest.raises(InferenceError, match="2 cameras"):
        together.estimate([noise_image(0), noise_image(1)])
    assert together.state_ages == [1, 1]
