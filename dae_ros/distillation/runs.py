"""From settings to a run: opens clips, weights and teachers, checks that they fit, and trains."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch

from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.checkpointing import on_disk
from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.configuration import (
    DistillationParameters,
    TrainingParameters,
    to_yaml,
)
from dae_ros.distillation.objectives import TeacherObjective, TrueDepthObjective
from dae_ros.distillation.parallel import Workers, join_workers
from dae_ros.distillation.preparation import FRAME_ENCODERS, Preparation
from dae_ros.distillation.teacher import FrameTeacher, load_teachers
from dae_ros.distillation.trainer import Compare, Note, Report, Trainer, TrainingResult
from dae_ros.distillation.validation import Validation
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import EventEncoder, Meaning, same_input
from dae_ros.model.durable_files import write_durably
from dae_ros.model.encoder_transfer import take_encoder
from dae_ros.model.weights import load_weights
from dae_ros.runtime.cores import usable_cores
from dae_ros.runtime.torch_fitting import Fitting
from dae_ros.runtime.torch_process import repeatable

SETTINGS_FILE, REPORT_FILE = "settings.yaml", "report.json"
_SLOW = ("float16", "cpu")


def train(
    settings: TrainingParameters,
    folder: Path,
    *,
    stopped: Callable[[], bool] = lambda: False,
    report: Report | None = None,
    note: Note | None = None,
) -> TrainingResult:
    """Train by depth, or distil where the settings are a distillation's; go on where it stopped.

    Args:
        settings: validated.
        folder: of the run; made if it is not there.
        stopped: asked after every update.
        report: told how far it is.
        note: told sentences that the user should read.

    Raises:
        ConfigurationError: settings, clips, weights and teachers do not fit each other.
        RecordingError, WeightsError: clips or weights cannot be read.
        DistillationError: see `Trainer.run`; or the folder cannot be written.
    """
    with (
        join_workers(settings.device) as workers,
        _threads(settings.threads),
        repeatable(workers.device),
    ):
        trainer = _trainer(settings, folder, workers)
        # Now that the folder is known to hold this run and no other.
        if workers.first:
            with on_disk(folder / SETTINGS_FILE):
                folder.mkdir(parents=True, exist_ok=True)
                write_durably(folder / SETTINGS_FILE, to_yaml(settings).rstrip())
        workers.wait()
        begin_step = trainer.step
        if note and workers.first and (settings.precision, workers.device.type) == _SLOW:
            note(
                "'precision' float16 is some thirty times slower than float32 on a CPU; take "
                "float32 or bfloat16 there"
            )
        result = trainer.run(
            stopped,
            report if report and workers.first else _ignore,
            note if note and workers.first else _ignore,
        )
        if workers.first and (result.step > begin_step or not _reported(folder, result.step)):
            rate = result.updates_per_s
            facts = {
                "updates": result.step,
                "interrupted": result.interrupted,
                "best": result.best,
                "best_step": result.best_step,
                "orientation": result.orientation,
                "warning": result.warning,
                "updates_per_s": None if rate is None else round(rate, 3),
                **result.counters,
            }
            with on_disk(folder / REPORT_FILE):
                write_durably(folder / REPORT_FILE, json.dumps(facts, indent=1))
        return result


def _reported(folder: Path, step: int) -> bool:
    """Whether there is a report of the run as far as this; a kill may have come before it."""
    try:
        facts = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("updates") == step


def _trainer(settings: TrainingParameters, folder: Path, workers: Workers) -> Trainer:
    with _named("weights"):
        loaded = load_weights(settings.weights)
    origins = {"started_from": loaded.digest}
    if settings.encoder_weights:
        with _named("encoder_weights", "; --set encoder_weights= begins without them"):
            source = load_weights(settings.encoder_weights)
        take_encoder(loaded, source)
        origins["encoder_from"] = source.digest
    stores = tuple(open_clip_store(path) for path in settings.folders)
    _check(settings, loaded, stores)
    encoder = _encoder(loaded, stores)
    meaning = Meaning(
        event_encoder=encoder,
        orientation="depth",
        scale="metric" if settings.metric else "relative",
    )
    teachers: dict[str, FrameTeacher] = {}
    compare: Compare = TrueDepthObjective(settings)
    deciding = None
    if isinstance(settings, DistillationParameters):
        with _named("teachers"):
            teachers = dict(load_teachers(settings, workers.device))
        compare = TeacherObjective(settings, teachers, (workers.index, workers.count))
        deciding = teachers[max(settings.shares, key=lambda name: settings.shares[name])]
    network = loaded.network.to(workers.device)
    fitting = Fitting(loaded.config, network.multiple, workers.device)
    crop = (settings.crop_height, settings.crop_width) if settings.crop_height else None
    data = [store.digest for store in stores]
    return Trainer(
        settings,
        folder,
        network,
        meaning,
        sampler=ClipSampler(
            stores,
            settings,
            (workers.index, workers.count),
            memory=bool(network.initial_state(1, *fitting.network_size(*_size(stores)))),
        ),
        preparation=Preparation(fitting, encoder, crop, network.multiple),
        compare=compare,
        validation=Validation(
            stores,
            fitting,
            encoder,
            metric=settings.metric,
            windows=settings.heldout_windows,
            maximum_depth_m=settings.maximum_depth_m,
            teacher=deciding,
        ),
        workers=workers,
        provenance={
            "origin": "dae_ros " + ("distillation" if teachers else "training"),
            "settings": json.dumps(settings.identity(), sort_keys=True),
            **origins,
            "clips": json.dumps(data),
            "teachers": json.dumps({name: item.digest for name, item in teachers.items()}),
        },
        data=[*data, *origins.values(), *(item.digest for item in teachers.values())],
    )


@contextlib.contextmanager
def _named(setting: str, way: str = "") -> Iterator[None]:
    """Name the setting whose weights cannot be loaded, which may come from a preset."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"'{setting}': {error.message}{way}", **error.data) from error


def _check(
    settings: TrainingParameters, loaded: LoadedModel, stores: tuple[ClipStore, ...]
) -> None:
    encoder = loaded.meaning.event_encoder
    frames_in = encoder in FRAME_ENCODERS
    distils = isinstance(settings, DistillationParameters)
    if loaded.meaning.orientation == "inverse_depth":
        raise ConfigurationError(
            f"{settings.weights} gives inverse depth, and labels here are depth: aligned to them "
            "its scale is negative. Begin with weights that give depth, or untrained ones",
            weights=settings.weights,
        )
    if distils and frames_in:
        raise ConfigurationError(
            f"{settings.weights} takes camera frames; a student of distillation takes events",
            weights=settings.weights,
        )
    for store in () if frames_in else stores:
        if not same_input(encoder, store.event_encoder):
            like = "voxel_grid" if encoder == "voxel_grid" else "tencode (of events) or "
            like += "" if encoder == "voxel_grid" else "tencode_voxel (of voxel grids too)"
            raise ConfigurationError(
                f"{settings.weights} takes {encoder} and {store.folder} holds "
                f"{store.event_encoder}; make clips with event_encoder: {like}",
                folder=str(store.folder),
            )
        if store.event_encoder != stores[0].event_encoder:
            raise ConfigurationError(
                f"{stores[0].folder} holds {stores[0].event_encoder} and {store.folder} "
                f"{store.event_encoder}, and a checkpoint says one; make clips of one encoder",
                folder=str(store.folder),
            )
    for store in stores:
        train_set = store.split("train")
        if not train_set:
            raise ConfigurationError(
                f"{store.folder} has no clips to train on: all of its {len(store.sequences)} "
                "sequences are held out; set 'clips' to those of a recipe with 'train' entries",
                folder=str(store.folder),
            )
        if not distils and all(item.depth is None for item in train_set):
            raise ConfigurationError(
                f"{store.folder} has no depth to train on; learn from frames with dae-ros distill",
                folder=str(store.folder),
            )
        if (distils or frames_in) and all(item.frames is None for item in train_set):
            raise ConfigurationError(
                f"{store.folder} has no camera frames; make clips of recordings that have",
                folder=str(store.folder),
            )


def _encoder(loaded: LoadedModel, stores: tuple[ClipStore, ...]) -> EventEncoder:
    """Return what the network will be trained on, and says so afterwards."""
    encoder = loaded.meaning.event_encoder
    if encoder in FRAME_ENCODERS:
        return encoder
    return cast("EventEncoder", stores[0].event_encoder)


def _size(stores: tuple[ClipStore, ...]) -> tuple[int, int]:
    return (stores[0].height, stores[0].width)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set PyTorch's threads for the time of a run; 0 takes all."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ignore(*_: object) -> None:
    """Tell nobody."""
