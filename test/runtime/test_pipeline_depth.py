"""What the pipeline gives as depth: metres only where that is known, from networks of any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dae_ros.errors import ConfigurationError
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.depth_frame import DepthScale
from dae_ros.runtime.estimator import FloatImage, OutputMeaning
from dae_ros.runtime.pipeline import DepthPipeline
from test.reference.pipeline_streams import HEIGHT, WIDTH, dense, parameters, run, stream


@pytest.mark.parametrize(
    ("meaning", "orientation", "scale", "kind"),
    [
        (OutputMeaning(), "checkpoint", 0.0, "relative"),
        (OutputMeaning(), "checkpoint", 2.0, "relative"),
        (OutputMeaning(), "depth", 2.0, "metric"),
        (OutputMeaning(orientation="depth"), "checkpoint", 2.0, "metric"),
        (OutputMeaning(orientation="depth", metric=True), "checkpoint", 0.0, "metric"),
        (OutputMeaning(orientation="depth", metric=True), "depth", 0.0, "metric"),
    ],
)
def test_metres_only_where_scale_and_orientation_are_known(
    meaning: OutputMeaning, orientation: str, scale: float, kind: str
) -> None:
    """Orientation is never guessed: without it even a given scale stays relative."""
    assert DepthScale.choose(meaning, orientation, scale, 0.0).kind == kind


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_an_orientation_that_contradicts_the_weights_is_refused(scale: float) -> None:
    """Weights that know their orientation are believed; the sentence says what to do."""
    meaning = OutputMeaning(orientation="depth", metric=True)
    with pytest.raises(ConfigurationError, match=r"is inverse_depth.*leave 'orientation'"):
        DepthScale.choose(meaning, "inverse_depth", scale, 0.0)


def test_inverse_depth_becomes_metres_and_invalid_becomes_nan() -> None:
    """1 / (scale p + shift), NaN where that is not a positive finite number."""
    scale = DepthScale("inverse_depth", True, 0.5, 0.0)
    metres = scale.apply(np.array([[1.0, 4.0], [0.0, -1.0]], np.float32))
    np.testing.assert_array_equal(metres, np.array([[2.0, 0.5], [np.nan, np.nan]], np.float32))


NUMBERS = st.floats(-8.0, 8.0, width=32) | st.sampled_from(
    # The last of these have a reciprocal or a multiple that no float32 holds.
    [np.nan, np.inf, -np.inf, 0.0, -0.0, np.float32(1e-40), np.float32(3e38)]
)


@given(
    npst.arrays(np.float32, (2, 3), elements=NUMBERS),
    st.sampled_from(["depth", "inverse_depth"]),
    st.sampled_from([1.0, 0.5, 2.0]),
    st.sampled_from([0.0, -0.25]),
)
def test_metres_pixel_by_pixel(
    prediction: FloatImage, orientation: str, scale: float, shift: float
) -> None:
    """Each pixel by itself, in numbers of Python, gives the same; what came is not changed."""
    before = prediction.copy()
    found = DepthScale(orientation, True, scale, shift).apply(prediction)
    np.testing.assert_array_equal(prediction, before)
    assert found.dtype == np.float32 and found.shape == (2, 3)
    for index, number in np.ndenumerate(prediction.astype(np.float64)):
        with np.errstate(over="ignore"):
            metres = float(np.float32(number * scale + shift))
        if orientation == "inverse_depth":
            with np.errstate(over="ignore"):
                metres = np.inf if metres == 0.0 else float(np.float32(1.0 / metres))
        valid = 0.0 < metres < np.inf
        assert found[index] == pytest.approx(metres, rel=1e-6) if valid else np.isnan(found[index])


@pytest.mark.parametrize("name", ["untrained:e2depth", "untrained:micro"])
def test_networks_of_other_inputs_step(name: str) -> None:
    """A network on voxel grids and a compact one run in the pipeline, with a preview image."""
    chosen = parameters(weights=name, threads=1)
    pipeline = DepthPipeline(chosen, create_estimator(chosen))
    frames = run(pipeline, stream(dense(160), 50))
    assert len(frames) >= 2
    assert (frames[0].image.dtype, frames[0].image.shape) == (np.uint16, (HEIGHT, WIDTH))
    assert frames[0].depth.shape == (HEIGHT, WIDTH)
    assert not np.array_equal(frames[0].depth, frames[1].depth)
