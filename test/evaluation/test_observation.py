"""Windows that end at ground truth, through the pipeline, against windows cut from labels."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.errors import ConfigurationError, NonFiniteState, RecordingError
from dae_ros.evaluation.observation import CroppedEstimator, ObservationRules
from dae_ros.evaluation.protocols import DSEC
from dae_ros.evaluation.sources import RecordedSource, recorded_source, simulated_source
from dae_ros.parameters import DepthParameters
from dae_ros.representation.event_image import planes_of
from dae_ros.runtime.estimator import OutputMeaning
from test.reference.dataset_layouts import (
    write_dsec,
    write_eventscape,
    write_mvsec,
    write_voxel_folder,
)
from test.reference.dsec_protocol import dsec_tencode
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.mvsec_bag import write_data_bag, write_truth_bag
from test.reference.noise_image import code_of_noise
from test.reference.packed_tencode import packed

PARAMETERS = DepthParameters(window="frame", overload="queue")
SMALL_DSEC = dataclasses.replace(DSEC, height=48, width=64, rows=(8, 40))


def write(kind, folder):
    """Write a sequence; return its source, how to open its labelled windows, and its content."""
    size = None
    if kind == "bag":
        written = write_data_bag(folder / "walk_data.bag")
        write_truth_bag(folder / "walk_gt.bag", images=6)
        paths = [folder / "walk_data.bag", folder / "walk_gt.bag"]
    elif kind == "mvsec":
        written = write_mvsec(folder)
        paths = [folder / "outdoor_day1_data.hdf5", folder / "outdoor_day1_gt.hdf5"]
    elif kind == "dsec":
        written = write_dsec(folder / "dsec")
        paths, size = [folder / "dsec"], (48, 64)
    else:
        written = write_eventscape(folder / "town")
        paths, size = [folder / "town"], (24, 40)
    source = recorded_source(str(paths[0]), size=size)
    return source, lambda: open_labelled(paths, size=size), written


def observe(source, rules=ObservationRules(), estimator=None, parameters=PARAMETERS):  # noqa: B008
    return list(source.observations(parameters, estimator or LeakyEstimator(), rules))


@pytest.mark.parametrize("kind", ["bag", "mvsec", "dsec", "eventscape"])
def test_windows_end_at_the_truths(tmp_path, kind):
    """Depth, stamps, event images and the recurrent sum are those of windows cut by label."""
    source, labelled, written = write(kind, tmp_path)
    seen = observe(source)
    with labelled() as cut:
        windows = list(cut)
        assert source.skipped["without_window"] == sum(cut.skipped.values())
    assert len(windows) > 2
    state = None
    for observation, window in zip(seen, windows, strict=True):
        assert observation.stamp_ns == window.stamp_ns
        assert abs(observation.offset_ns) < 1000
        image = window.encode("tencode")
        # Rectified events go around the surface.
        given = image if kind == "dsec" else packed(image)
        np.testing.assert_array_equal(observation.image, given)
        np.testing.assert_array_equal(observation.depth, window.depth)
        total = planes_of(given).sum(axis=0, dtype=np.float32)
        state = total if state is None else state * np.float32(0.5) + total
        np.testing.assert_array_equal(observation.prediction, state)
        assert observation.event_count == len(window.events)
        before = [image for stamp_ns, image in written.frames if stamp_ns <= window.stamp_ns]
        if kind == "dsec" or not before:
            # The frames of DSEC are those of another camera.
            assert observation.frame is None
        else:
            np.testing.assert_array_equal(observation.frame, before[-1])


def test_the_last_truth_may_lie_just_behind_the_last_event(tmp_path):
    """Within 1 ms after the last event a window still counts, as in the published slicer."""
    source, labelled, written = write("eventscape", tmp_path)
    seen = observe(source)
    with labelled() as cut:
        ends = [window.stamp_ns for window in cut]
    last_event_ns = max(t for t, *_ in written.events)
    assert last_event_ns < seen[-1].stamp_ns == ends[-1] < last_event_ns + 1_000_000


def test_memory_can_be_switched_off(tmp_path):
    """Reset at every window: each prediction is that of its own events alone."""
    source, *_ = write("bag", tmp_path)
    carried, alone = observe(source), observe(source, ObservationRules("every_window"))
    assert len(alone) == len(carried) > 3
    for observation in alone:
        np.testing.assert_array_equal(
            observation.prediction,
            planes_of(observation.image).sum(axis=0, dtype=np.float32),
        )
    assert not np.array_equal(carried[-1].prediction, alone[-1].prediction)
    # Each run begins anew.
    np.testing.assert_array_equal(observe(source)[0].prediction, carried[0].prediction)


def test_a_protocol_crops_and_skips(tmp_path):
    """The network sees the protocol's rows only, and the first frame of a sequence is skipped."""
    source, *_ = write("dsec", tmp_path)
    shapes = []

    class Watching(LeakyEstimator):
        def estimate(self, image):
            shapes.append(image.shape)
            return super().estimate(image)

    seen = observe(source, ObservationRules(protocol=SMALL_DSEC), Watching())
    assert source.skipped["skipped_by_protocol"] == 1
    assert set(shapes) == {(3, 32, 64)}
    assert [o.stamp_ns for o in seen] == [o.stamp_ns for o in observe(source)]
    for observation in seen:
        assert np.isnan(observation.prediction[:8]).all()
        assert np.isnan(observation.prediction[40:]).all()
        assert np.isfinite(observation.prediction[8:40]).all()


def test_rows_of_a_code_are_those_of_its_planes():
    """A cropped network gets the rows of a code, and says the same as of the planes' rows."""
    code = code_of_noise(0, 48, 64)
    ours, theirs = (CroppedEstimator(LeakyEstimator(), (8, 40)) for _ in range(2))
    prediction = ours.estimate(code)
    np.testing.assert_array_equal(prediction, theirs.estimate(planes_of(code)))
    np.testing.assert_array_equal(prediction[8:40], planes_of(code)[:, 8:40].sum(axis=0))


def test_dsec_is_encoded_as_published(tmp_path):
    """The network sees ages that count from all events, those that rectifying dropped included."""
    source, _, written = write("dsec", tmp_path)
    seen = observe(source, ObservationRules("every_window", SMALL_DSEC))
    assert len(seen) == 5
    for observation in seen:
        end_ns = observation.stamp_ns
        image = dsec_tencode(written.events, written.rectify_map, end_ns - 50_000_000, end_ns)
        np.testing.assert_allclose(observation.prediction[8:40], image.sum(axis=0)[8:40], atol=1e-5)


def test_the_cropped_estimator_passes_everything_on():
    """State, age and meaning are those of the network inside."""
    inner = LeakyEstimator(OutputMeaning(orientation="depth", metric=True, scale=2.0))
    cropped = CroppedEstimator(inner, (1, 3))
    image = np.ones((3, 4, 5), np.float32)
    np.testing.assert_array_equal(cropped.estimate(image)[1:3], np.full((2, 5), 3, np.float32))
    cropped.estimate(image)
    assert (cropped.state_age, inner.state_age, cropped.meaning) == (2, 2, inner.meaning)
    cropped.reset()
    assert (cropped.state_age, inner.state_age) == (0, 0)


def test_only_the_first_truths(tmp_path):
    """A limit ends a sequence early with the same windows."""
    source, *_ = write("bag", tmp_path)
    everything = observe(source)
    some = observe(source, ObservationRules(most=2))
    assert [o.stamp_ns for o in some] == [o.stamp_ns for o in everything[:2]]
    np.testing.assert_array_equal(some[1].prediction, everything[1].prediction)


def test_voxel_folders_are_fed_as_they_are(tmp_path):
    """Without events the grids are encoded and stepped, with memory and with protocol skips."""
    written = write_voxel_folder(tmp_path / "outdoor")
    source = recorded_source(str(tmp_path / "outdoor"))
    parameters = dataclasses.replace(PARAMETERS, event_encoder="tencode_voxel")
    network = LeakyEstimator()
    observe(source, estimator=network, parameters=parameters)
    # The network has seen the folder once; its state is cleared before the second time.
    seen = observe(source, estimator=network, parameters=parameters)
    assert len(seen) == 6
    with open_labelled(tmp_path / "outdoor") as labelled:
        images = [window.encode("tencode_voxel") for window in labelled]
    state = np.float32(0)
    for observation, image, (stamp_ns, depth) in zip(seen, images, written.depths, strict=True):
        state = state * np.float32(0.5) + image.sum(axis=0, dtype=np.float32)
        np.testing.assert_allclose(observation.prediction, state, rtol=1e-6)
        np.testing.assert_array_equal(observation.depth, depth)
        assert (observation.stamp_ns, observation.offset_ns) == (stamp_ns, -3_000_000)
    skipping = ObservationRules(protocol=dataclasses.replace(SMALL_DSEC, rows=(0, 48)), most=2)
    assert len(observe(source, skipping, parameters=parameters)) == 2
    assert source.skipped == Counter(skipped_by_protocol=1)


class OverflowingEstimator(LeakyEstimator):
    """Overflows at its third step, as half precision does."""

    asked = 0

    def estimate(self, image):
        """See `DepthEstimator.estimate`."""
        self.asked += 1
        if self.asked == 3:
            raise NonFiniteState("step 3 gave values that are not finite")
        return super().estimate(image)


def test_a_step_that_overflows_costs_its_window(tmp_path):
    """The state begins anew behind it, as in the pipeline, and the evaluation goes on."""
    write_voxel_folder(tmp_path / "outdoor")
    source = recorded_source(str(tmp_path / "outdoor"))
    parameters = dataclasses.replace(PARAMETERS, event_encoder="tencode_voxel")
    whole = observe(source, parameters=parameters)
    seen = observe(source, estimator=OverflowingEstimator(), parameters=parameters)
    assert [o.stamp_ns for o in seen] == [o.stamp_ns for o in whole[:2] + whole[3:]]
    assert source.skipped == Counter(non_finite=1)
    with open_labelled(tmp_path / "outdoor") as labelled:
        images = [window.encode("tencode_voxel") for window in labelled]
    np.testing.assert_allclose(seen[2].prediction, images[3].sum(axis=0), rtol=1e-6)


def test_a_damaged_voxel_folder_is_scored_up_to_the_damage(tmp_path):
    """The windows before a damaged grid come out; the error is kept."""
    written = write_voxel_folder(tmp_path / "outdoor")
    (written.path / "events" / "voxels" / "event_tensor_0000000003.npy").write_bytes(b"")
    source = recorded_source(str(written.path))
    parameters = dataclasses.replace(PARAMETERS, event_encoder="tencode_voxel")
    assert len(observe(source, parameters=parameters)) == 3
    assert "event_tensor_0000000003.npy" in str(source.damage)


def test_a_cut_recording_is_scored_up_to_the_cut(tmp_path):
    """The windows before the damage come out; the error is kept."""
    source, *_ = write("bag", tmp_path)
    whole = observe(source)
    data = source.paths[0].read_bytes()
    source.paths[0].write_bytes(data[: int(len(data) * 0.6)])
    part = observe(source)
    assert 0 < len(part) < len(whole)
    assert isinstance(source.damage, RecordingError)


def test_sources_by_name(tmp_path):
    """MVSEC's pairs are joined, + joins files, and names are those of the recordings."""
    for name in ("a_data.bag", "a_gt.bag", "b.bag", "c_data.bag"):
        (tmp_path / name).touch()

    def source(text):
        found = recorded_source(text)
        assert isinstance(found, RecordedSource)
        return found.name, [path.name for path in found.paths]

    assert source(f"{tmp_path}/a_data.bag") == ("a", ["a_data.bag", "a_gt.bag"])
    assert source(f"{tmp_path}/b.bag+{tmp_path}/a_gt.bag") == ("b", ["b.bag", "a_gt.bag"])
    assert source(f"{tmp_path}/c_data.bag") == ("c", ["c_data.bag"])


def test_simulations_by_text():
    """A preset with values becomes typed parameters; mistakes are explained."""
    source = simulated_source("street_night:seed=7,height=40,width=50,auto_exposure=false")
    parameters = source.parameters
    assert (parameters.scene, parameters.light, parameters.seed) == ("street", "night", 7)
    assert (parameters.height, parameters.auto_exposure) == (40, False)
    assert parameters.duration_s == 10.0
    assert simulated_source("room").parameters.seed >= 1000
    for text, words in (
        ("moon", "no simulator preset 'moon'"),
        ("room:seed", "sets no parameter"),
        ("room:colour=red", "sets no parameter"),
        ("room:seed=x", "'seed' must be a whole number"),
        ("room:auto_exposure=1", "must be true or false"),
        ("room:duration_s=0", "never ends"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            simulated_source(text)


def test_the_simulator_is_observed_at_its_truths():
    """Windows end at the simulator's depth images, on the ROS clock, though evt3 has its own."""
    source = simulated_source("room:height=32,width=40,duration_s=0.4")
    seen = observe(source)
    stamps = [observation.stamp_ns - 1_700_000_000_000_000_000 for observation in seen]
    assert stamps == [100_000_000 + 50_000_000 * k for k in range(len(seen))]
    assert len(seen) >= 6
    assert {abs(observation.offset_ns) < 1000 for observation in seen} == {True}
    assert all(observation.frame is not None for observation in seen)
