"""Where an evaluation's sequences come from: recordings and data sets, voxel folders, simulator."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dae_ros.bags.datasets.voxel_folder import VoxelFolder, is_voxel_folder
from dae_ros.bags.labelled import LabelledSequence, LabelledVoxels
from dae_ros.bags.labelled_recording import LabelledRecording
from dae_ros.bags.messages import DepthTruthImage, read_depth
from dae_ros.bags.recording import Recording, open_recording
from dae_ros.bags.truth_beside import name_of, with_truth
from dae_ros.errors import ConfigurationError, PacketError, RecordingError
from dae_ros.evaluation.observation import (
    Input,
    Observation,
    ObservationRules,
    observe,
)
from dae_ros.evaluation.window_observation import observe_windows
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import (
    TYPE_WORDS,
    DepthParameters,
    SimulatorParameters,
    Value,
    declarations,
)
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.simulation.presets import PRESETS, TEST_SEEDS_FROM, preset
from dae_ros.simulation.simulation import START_NS, Simulation

DEFAULT_SIMULATION: dict[str, Value] = {"seed": TEST_SEEDS_FROM, "duration_s": 10.0}


class EvaluationSource(Protocol):
    """One sequence.

    Attributes:
        name: in tables and file names; no two of an evaluation share it.
        fraction: how far the present run is, 0 to 1, None where that is not known.
        skipped: truths of the last run that gave no window, and messages that were `unreadable`.
        damage: the error that ended the last run early, None without one.
    """

    name: str
    fraction: float | None
    skipped: Counter[str]
    damage: RecordingError | None

    def observations(
        self, parameters: DepthParameters, estimator: DepthEstimator, rules: ObservationRules
    ) -> Generator[Observation, None, None]:
        """Run the sequence from its beginning.

        Raises:
            RecordingError: it cannot be opened, or has no events or no ground truth.
            ConfigurationError: it cannot be run with these parameters.
            InferenceError: the backend failed.
        """


@dataclass
class RecordedSource:
    """A recording, several as one, or a data set's sequence: whatever `open_recording` opens.

    Attributes:
        paths: what is read as one.
        events, truth: topics, None takes those that belong together.
        size: (height, width) in px, where the recording does not tell.
    """

    name: str
    paths: tuple[Path, ...]
    events: str | None = None
    truth: str | None = None
    size: tuple[int, int] | None = None
    fraction: float | None = field(default=None, init=False)
    skipped: Counter[str] = field(default_factory=Counter, init=False)
    damage: RecordingError | None = field(default=None, init=False)

    def observations(
        self, parameters: DepthParameters, estimator: DepthEstimator, rules: ObservationRules
    ) -> Generator[Observation, None, None]:
        """See `EvaluationSource`."""
        self.skipped, self.damage = Counter(), None
        window_ns = round(parameters.window_s * 1e6) * 1000
        with open_recording(self.paths, self.size) as recording:
            labelled = LabelledRecording(recording, window_ns, "depth", self.events, self.truth)
            if labelled.rectifier is not None:
                observed = observe_windows(labelled, parameters, estimator, rules, self.skipped)
                yield from _until_damage(self, observed, labelled)
                return
            yield from observe(
                self._inputs(recording, labelled), parameters, estimator, rules, self.skipped
            )

    def _inputs(self, recording: Recording, topics: LabelledRecording) -> Iterator[Input]:
        chosen = {topics.events, topics.label, *([topics.image] if topics.image else [])}
        messages = recording.messages(chosen)
        start_ns, end_ns = recording.start_ns, recording.end_ns
        while True:
            try:
                message = next(messages, None)
            except RecordingError as error:
                self.damage = error
                return
            if message is None:
                return
            if start_ns is not None and end_ns is not None and end_ns > start_ns:
                self.fraction = min(1.0, (message.time_ns - start_ns) / (end_ns - start_ns))
            try:
                if message.topic == topics.events:
                    item: Input = recording.read_packet(message)
                elif message.topic == topics.label:
                    item = read_depth(recording.to_cdr(message))
                else:
                    item = recording.read_frame(message)
            except (PacketError, RecordingError):
                self.skipped["unreadable"] += 1
                continue
            yield item


@dataclass
class SimulatedSource:
    """A simulated camera with exact depth."""

    name: str
    parameters: SimulatorParameters
    fraction: float | None = field(default=None, init=False)
    skipped: Counter[str] = field(default_factory=Counter, init=False)
    damage: RecordingError | None = field(default=None, init=False)

    def observations(
        self, parameters: DepthParameters, estimator: DepthEstimator, rules: ObservationRules
    ) -> Generator[Observation, None, None]:
        """See `EvaluationSource`."""
        self.skipped = Counter()
        return observe(self._inputs(), parameters, estimator, rules, self.skipped)

    def _inputs(self) -> Iterator[Input]:
        for item in Simulation(self.parameters).run():
            self.fraction = min(1.0, (item.stamp_ns - START_NS) / 1e9 / self.parameters.duration_s)
            if isinstance(item, (EventPacket, Frame)):
                yield item
            else:
                yield DepthTruthImage(item.stamp_ns, item.depth, item.frame_id)


@dataclass
class VoxelSource:
    """A folder of voxel grids: no events, so that windows are encoded here, not by the pipeline."""

    name: str
    path: Path
    fraction: float | None = field(default=None, init=False)
    skipped: Counter[str] = field(default_factory=Counter, init=False)
    damage: RecordingError | None = field(default=None, init=False)

    def observations(
        self, parameters: DepthParameters, estimator: DepthEstimator, rules: ObservationRules
    ) -> Generator[Observation, None, None]:
        """See `EvaluationSource`."""
        self.skipped, self.damage = Counter(), None
        windows = LabelledVoxels(VoxelFolder(self.path))
        observed = observe_windows(windows, parameters, estimator, rules, self.skipped)
        yield from _until_damage(self, observed, windows)


def _until_damage(
    source: RecordedSource | VoxelSource,
    observed: Iterator[Observation],
    windows: LabelledSequence,
) -> Iterator[Observation]:
    """Yield what can be read, and keep the error that ended it."""
    while True:
        try:
            observation = next(observed, None)
        except RecordingError as error:
            source.damage = error
            return
        if observation is None:
            return
        source.fraction = windows.fraction
        yield observation


def recorded_source(
    text: str,
    *,
    name: str | None = None,
    events: str | None = None,
    truth: str | None = None,
    size: tuple[int, int] | None = None,
) -> RecordedSource | VoxelSource:
    """Return the source of what a user names.

    Args:
        text: a path, or several joined by + that are read as one. Where `NAME_gt.EXT` lies
            beside `NAME_data.EXT`, as with MVSEC, both are read.
        name: of the sequence, None takes that of the file or folder.
        events, truth, size: see `RecordedSource`.

    Raises:
        ConfigurationError: topics for a voxel folder.
    """
    paths = [Path(text)] if Path(text).exists() else [Path(part) for part in text.split("+")]
    first = paths[0]
    if len(paths) == 1:
        paths = list(with_truth(first))
    name = name or (first.name if first.is_dir() else name_of(first))
    if len(paths) == 1 and is_voxel_folder(first):
        if events or truth:
            raise ConfigurationError(
                f"{first} has voxel grids and depth, and no topics to choose", path=str(first)
            )
        return VoxelSource(name, first)
    return RecordedSource(name, tuple(paths), events, truth, size)


def simulated_source(text: str) -> SimulatedSource:
    """Return the simulator as `PRESET` or `PRESET:NAME=VALUE,...`.

    Without other values it lasts 10 s and uses the first of the seeds kept for tests.

    Raises:
        ConfigurationError: no such preset or parameter, a bad value, or no end.
    """
    scene, _, changes = text.partition(":")
    known = declarations(SimulatorParameters)
    values: dict[str, Value] = dict(DEFAULT_SIMULATION)
    for change in filter(None, changes.split(",")):
        parameter, equals, value = change.partition("=")
        if parameter not in known or not equals:
            raise ConfigurationError(
                f"'{change}' in '{text}' sets no parameter of the simulator; write "
                f"PRESET:NAME=VALUE,... with names of docs/parameters.md",
                text=text,
            )
        values[parameter] = _typed(parameter, value, known[parameter][0])
    if scene not in PRESETS:
        raise ConfigurationError(
            f"There is no simulator preset '{scene}'; choose one of {', '.join(PRESETS)}.",
            preset=scene,
        )
    parameters = preset(scene, **values)
    if parameters.duration_s <= 0.0:
        raise ConfigurationError(f"'{text}' never ends; give it a duration_s above 0", text=text)
    return SimulatedSource(text.replace(":", " "), parameters)


def _typed(name: str, text: str, default: Value) -> Value:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(
            f"'{name}' must be {TYPE_WORDS[type(default)]}, not '{text}'", name=name
        ) from error


def file_name(name: str) -> str:
    """Return a sequence's name as a part of file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.") or "sequence"
