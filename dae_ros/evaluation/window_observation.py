"""Predictions for labelled windows: where the pipeline cannot encode as a protocol asks.

Voxel folders have no events; rectified events of DSEC lack those that left the image, and the
protocol counts ages from the first to the last event of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

from dae_ros.bags.labelled import LabelledSequence
from dae_ros.bags.labelled_recording import BESIDE_LABELS
from dae_ros.bags.labelled_window import LabelledWindow
from dae_ros.errors import ConfigurationError, NonFiniteState
from dae_ros.evaluation.observation import Observation, ObservationRules, cropped
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.depth_frame import scale_of
from dae_ros.runtime.estimator import DepthEstimator, FloatImage


def observe_windows(
    windows: LabelledSequence,
    parameters: DepthParameters,
    estimator: DepthEstimator,
    rules: ObservationRules,
    skipped: Counter[str],
) -> Generator[Observation, None, None]:
    """Run one sequence window by window; otherwise as `observe`.

    Args:
        windows: of the sequence, with depth.
        parameters: encoder, orientation, scale and shift.
        estimator: its state is cleared first, and where a window says that nothing came before.
        rules: see there.
        skipped: counts truths without a window, as `observe` does, and `non_finite` steps, which
            cost their window and the state.

    Raises:
        ConfigurationError: an encoder that the sequence cannot give.
        RecordingError: cut or damaged; everything readable has been yielded by then.
        InferenceError: the backend failed.
    """
    estimator = cropped(estimator, rules.protocol)
    encoder = parameters.event_encoder
    if encoder == "checkpoint":
        encoder = estimator.meaning.event_encoder
    scale = scale_of(estimator, parameters.orientation, parameters.scale, parameters.shift)
    unseen = rules.protocol.skipped_frames if rules.protocol else 0
    yielded, dropped = 0, 0
    for window in windows:
        if dropped + yielded + _lost(windows) < unseen:
            dropped += 1
            skipped["skipped_by_protocol"] += 1
            continue
        if yielded == 0 or window.restarts or rules.reset == "every_window":
            estimator.reset()
        try:
            prediction = estimator.estimate(_encoded(window, encoder, estimator.input_channels))
        except NonFiniteState:
            # As in the pipeline the window is lost, and the memory begins anew.
            estimator.reset()
            skipped["non_finite"] += 1
            continue
        yielded += 1
        yield Observation(
            stamp_ns=window.stamp_ns,
            offset_ns=window.end_ns - window.stamp_ns,
            prediction=scale.apply(prediction),
            depth=_depth_of(window),
            image=window.encode("tencode_voxel" if window.events is None else "tencode"),
            frame=None if window.frame is None else window.frame.image,
            event_count=0 if window.events is None else len(window.events),
        )
        if yielded == rules.most:
            return
    lost = _lost(windows)
    by_protocol = min(unseen - dropped, lost)
    skipped["skipped_by_protocol"] += by_protocol
    skipped["without_window"] += lost - by_protocol
    skipped["unreadable"] += sum(windows.skipped[name] for name in BESIDE_LABELS)


def _lost(windows: LabelledSequence) -> int:
    """Return how many truths have given no window so far."""
    return windows.skipped.total() - sum(windows.skipped[name] for name in BESIDE_LABELS)


def _encoded(window: LabelledWindow, encoder: str, channels: int) -> FloatImage:
    if window.events is None and encoder == "tencode":
        raise ConfigurationError(
            "the network takes tencode, which is made of events, and the sequence has voxel grids. "
            "Give --event-encoder tencode_voxel: the same image made of the grids, as the "
            "published weights are scored on MVSEC (--dataset mvsec does it by itself). Weights "
            "that never saw it score somewhat lower",
            event_encoder=encoder,
        )
    return window.encode(encoder, channels)


def _depth_of(window: LabelledWindow) -> FloatImage:
    if window.depth is None:
        raise ConfigurationError("Windows without depth cannot be evaluated; end them at depth.")
    return window.depth
