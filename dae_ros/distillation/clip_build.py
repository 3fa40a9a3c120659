"""Makes a clip store of a recipe: in parallel, resumable, with progress, the same every time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from dae_ros.distillation.clip_recipe import Recipe
from dae_ros.distillation.clip_store import (
    FORMAT,
    SEQUENCE_FILE,
    STORE_FILE,
    ClipStore,
    digest_of_facts,
    map_array,
    open_clip_store,
    read_facts,
)
from dae_ros.distillation.clip_writer import SequenceWriter, on_disk, part_folder
from dae_ros.errors import ConfigurationError, DaeError, RecordingError
from dae_ros.model.durable_files import write_durably

Report = Callable[[float, str], None]
POLL_S = 0.5


@dataclass(frozen=True)
class BuildResult:
    """What came of a build.

    Attributes:
        store: None where it was stopped before the end.
        windows: in finished sequences.
    """

    store: ClipStore | None
    windows: int


def _ignore(_fraction: float, _detail: str) -> None:
    """Tell nobody."""


class _Stopped(Exception):
    """Leaves a sequence in the middle; its part is removed."""


def build_clips(
    recipe: Recipe,
    folder: Path,
    *,
    processes: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    report: Report | None = None,
) -> BuildResult:
    """Make every sequence that is not there yet, then write the store's list.

    Sequences that are whole are kept as they are, so that a build which was killed goes on. The
    bytes depend on the recipe alone, not on `processes`.

    Args:
        recipe: what to make.
        folder: the store.
        processes: at a time, one sequence each.
        stopped: asked between windows.
        report: told the fraction that is done and a detail.

    Raises:
        ConfigurationError: the folder holds clips of another recipe.
        RecordingError: sequences failed, all others are finished by then; or the list cannot be
            written.
    """
    todo = _missing(recipe, folder)
    total = len(recipe.sources)
    failures: dict[str, str] = {}
    report = _ignore if report is None else report
    if processes > 1 and len(todo) > 1:
        failures = _in_processes(recipe, folder, todo, min(processes, len(todo)), stopped, report)
    else:
        for index, name in enumerate(todo):
            report((total - len(todo) + index) / total, name)
            failure = _make(recipe, folder, name, stopped)
            if failure is None and stopped():
                break
            if failure is not None:
                failures[name] = failure
    if failures:
        raise RecordingError(
            f"{len(failures)} of {total} sequences failed, the others are finished: "
            + "; ".join(f"{name}: {text}" for name, text in failures.items()),
            failures=failures,
        )
    return _finish(recipe, folder)


def _missing(recipe: Recipe, folder: Path) -> list[str]:
    """Return the sequences still to make.

    Raises:
        ConfigurationError: one that is there was made of something else.
    """
    missing = []
    for name, source in recipe.sources.items():
        facts = read_facts(folder / name / SEQUENCE_FILE)
        if facts is None:
            missing.append(name)
        elif facts["source"] != _facts(recipe, name):
            raise ConfigurationError(
                f"{folder / name} was made of another recipe; choose another --out, or remove it",
                path=str(folder / name),
                found=facts["source"],
                wanted=source.facts(),
            )
    store = read_facts(folder / STORE_FILE)
    if store is not None and store["sequences"] != list(recipe.sources):
        raise ConfigurationError(
            f"{folder} holds the clips of another recipe; choose another --out, or remove it",
            path=str(folder),
        )
    return missing


def _facts(recipe: Recipe, name: str) -> dict[str, object]:
    facts = {
        "event_encoder": recipe.event_encoder,
        "window_ns": recipe.window_ns,
        **recipe.sources[name].facts(),
    }
    # As JSON gives it back, for comparing.
    result: dict[str, object] = json.loads(json.dumps(facts))
    return result


def _make(recipe: Recipe, folder: Path, name: str, stopped: Callable[[], bool]) -> str | None:
    """Make one sequence; return the sentence of what failed."""
    left_out: Counter[str] = Counter()
    try:
        with SequenceWriter(folder / name, recipe.event_encoder) as writer:
            for sample in recipe.sources[name].samples(
                recipe.event_encoder, recipe.window_ns, left_out
            ):
                if stopped():
                    raise _Stopped
                writer.append(sample)
            writer.finish(_facts(recipe, name), left_out)
    except _Stopped:
        return None
    except DaeError as error:
        return error.message
    return None


def _finish(recipe: Recipe, folder: Path) -> BuildResult:
    found = [read_facts(folder / name / SEQUENCE_FILE) for name in recipe.sources]
    facts = [item for item in found if item is not None]
    windows = sum(item["windows"] for item in facts)
    if len(facts) < len(found):
        return BuildResult(None, windows)
    shapes = {_shape(folder / name) for name in recipe.sources}
    if len(shapes) > 1:
        raise RecordingError(
            f"the sequences of {folder} have different sizes {sorted(shapes)}; a store has one "
            "size, so make one per camera and train on several",
            sizes=sorted(shapes),
        )
    height, width = next(iter(shapes))
    store = {
        "format": FORMAT,
        "event_encoder": recipe.event_encoder,
        "window_ns": recipe.window_ns,
        "height": height,
        "width": width,
        "sequences": list(recipe.sources),
        "windows": windows,
        "digest": digest_of_facts(facts),
    }
    with on_disk(folder / STORE_FILE):
        write_durably(folder / STORE_FILE, json.dumps(store, indent=1))
    return BuildResult(open_clip_store(folder), windows)


def _shape(folder: Path) -> tuple[int, int]:
    shape = map_array(folder / "windows.npy").shape
    return (int(shape[-2]), int(shape[-1]))


def _in_processes(
    recipe: Recipe,
    folder: Path,
    todo: list[str],
    processes: int,
    stopped: Callable[[], bool],
    report: Report,
) -> dict[str, str]:
    """Let processes claim one sequence after another; return name -> failure."""
    # Spawned, because threads of numba and PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    claimed, stop = context.Value("i", 0), context.Event()
    pipes: dict[Connection, SpawnProcess] = {}
    for _ in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(recipe, folder, todo, claimed, stop, sender), daemon=True
        )
        process.start()
        sender.close()
        pipes[receiver] = process
    failures: dict[str, str] = {}
    begun, done = len(recipe.sources) - len(todo), 0
    try:
        while pipes:
            if stopped():
                stop.set()
            report((begun + done) / len(recipe.sources), _growing(folder, todo, done))
            for ready in wait(list(pipes), POLL_S):
                if not isinstance(ready, Connection):
                    continue
                try:
                    name, failure = ready.recv()
                except EOFError:
                    process = pipes.pop(ready)
                    process.join()
                    if process.exitcode:
                        failures[f"process {process.pid}"] = f"ended with {process.exitcode}"
                    continue
                done += 1
                if failure is not None:
                    failures[name] = failure
    finally:
        stop.set()
        for process in pipes.values():
            process.join(10.0)
            process.kill()
    return failures


def _work(
    recipe: Recipe,
    folder: Path,
    todo: list[str],
    claimed: Synchronized[int],
    stop: Event,
    sender: Connection,
) -> None:
    # Ctrl-C reaches the whole group; the parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def stopped() -> bool:
        return stop.is_set() or os.getppid() != parent

    while not stopped():
        with claimed.get_lock():
            index = claimed.value
            claimed.value += 1
        if index >= len(todo):
            return
        failure = _make(recipe, folder, todo[index], stopped)
        sender.send((todo[index], failure))


def _growing(folder: Path, todo: list[str], done: int) -> str:
    """Say which sequences are being made, and how many windows they have."""
    parts = [part_folder(folder / name) for name in todo]
    windows = 0
    for part in parts:
        try:
            windows += (part / "times.npy").stat().st_size // 24
        except OSError:
            continue
    return f"{done} of {len(todo)} sequences, {windows} windows in work"
