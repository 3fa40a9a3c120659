"""Does depth get better on the robot? Simulator, depth and learner as processes over real DDS.

    python -m benchmarks.bench_live_learning [--seed 0] [--rate 0.25] [--drive-s 300]

The world is one of `adaptation/worlds.py`' B. Before anything is started, teacher and student are
compared with true depth on other places of it; where the teacher is no better by a tenth there is
nothing to learn, and the benchmark ends with that. Then simulator, depth node and distillation node
run as `depth.launch.py distill:=true` starts them, and a second depth node whose weights never
change. Both depths are compared with the simulator's true depth, the same windows of both, before
and after depth names a learned version; the last version and the original are compared on the other
places, which nobody drove through.

The simulator is no camera: it waits for nobody and takes cores of its own. On two cores it has to
be slow (`--rate`), or depth is late and the learner, as it should, holds back.

Written are results/live_learning.json, .md and .png. Fields, below `results`:

    before, after   by error: windows, Abs Rel of both nodes, their ratio and the interval that
                    holds it with 95 %; `after` are the windows of learned versions
    versions        the same of each version
    elsewhere       scores of original and last version on other places
    verdicts        of the guard: reason -> how often
    goals           goal, value, bound, met
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.adaptation.cache import keyed, write_once
from benchmarks.adaptation.runs import RANGE
from benchmarks.adaptation.scores import ELSEWHERE, Scores, score_file
from benchmarks.adaptation.verdicts import SMALLEST_LEAD
from benchmarks.adaptation.worlds import Lengths, build_places, recipes
from benchmarks.live.online_stand import DEPTH, LEARNER, Deployment, Stand
from benchmarks.live.truth import ERRORS, Against, Pair, compare, pairs_of
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.distillation.clip_sources import WorldSource
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png
from dae_ros.model.fetch import digest_of
from dae_ros.model.weights import load_weights
from dae_ros.nodes.processes import Process
from dae_ros.parameters import Value

SIMULATOR, FROZEN = "simulator", "frozen"
HOP_S = 0.05
START_TIMEOUT_S = 300.0
# The first version of a folder is the original.
ORIGINAL = 1
# How long a learned version is compared before the drive may end.
AFTER_S = 60.0


def places(work: Path, seed: int, lengths: Lengths) -> Path:
    """Return a folder with clips of other places of the seed's B, rendered where they are not."""
    everything = recipes(seed, lengths)[1]
    recipe = {**everything, "train": []}  # nothing is trained on
    folder = keyed(work, f"places_{seed}", {"recipe": recipe})
    build_places(folder, recipe)
    return folder


def drive_parameters(folder: Path, seed: int, lengths: Lengths) -> dict[str, Value]:
    """Return the simulator's parameters of the drive, as they are drawn by its seed."""
    write_once(folder / "drives.yaml", yaml.safe_dump(recipes(seed, lengths)[0], sort_keys=False))
    drive = next(iter(read_recipe(folder / "drives.yaml").sources.values()))
    if not isinstance(drive, WorldSource):
        raise TypeError("a drive is a world")
    return dict(drive.parameters)


def file_of(weights: str) -> Path:
    """Return the file of weights.

    Raises:
        ConfigurationError: there is none.
    """
    path = load_weights(weights).path
    if path is None:
        raise ConfigurationError(
            f"{weights} knows nothing; name weights that are a file, such as micro", weights=weights
        )
    return path


def lead_of(student: Scores, teacher: Scores) -> dict[str, float]:
    """Return by which part the teacher's error is below the student's; NaN where one is unknown."""
    found = {}
    for error in ERRORS:
        ours, theirs = student[f"{error}_abs_rel"], teacher[f"{error}_abs_rel"]
        found[error] = float("nan") if ours is None or theirs is None else 1.0 - theirs / ours
    return found


def drive(
    deployment: Deployment, world: Mapping[str, Value], rate: float
) -> tuple[list[Pair], dict[str, Any]]:
    """Run all four processes until the drive ends, or a learned version has been seen for long.

    Args:
        deployment: of depth and learner.
        world: parameters of the simulator.
        rate: simulated seconds per second.

    Returns:
        The windows that both depth nodes were compared on, and what the learner said.
    """
    live, frozen = Against("live"), Against("frozen")
    with Stand(deployment) as stand:
        _listen(stand, {"depth/image": [live.add_depth], "frozen/depth/image": [frozen.add_depth],
                        "depth_truth": [live.add_truth, frozen.add_truth]})  # fmt: skip
        plan = stand.plan[DEPTH]
        unchanged = {
            name: value
            for name, value in plan.parameters.items()
            if name not in ("follow_snapshots", "snapshots")
        }
        # Depth, the other one and the learner subscribe when they see what is published; a source
        # that goes on without one of them shows nothing.
        waits: dict[str, Value] = {
            "wait_topics": "events", "wait_subscribers": 3, "wait_timeout_s": START_TIMEOUT_S,
        }  # fmt: skip
        simulator = Process(
            "dae_ros", "simulator_node", SIMULATOR, environment=plan.environment,
            parameters={**world, **waits, "rate": rate},
        )  # fmt: skip
        other = dataclasses.replace(plan, name=FROZEN, namespace=FROZEN, parameters=unchanged)
        for name, process in (
            (DEPTH, None), (FROZEN, other), (LEARNER, None), (SIMULATOR, simulator),
        ):  # fmt: skip
            stand.start(name, process)
        stand.until(
            lambda: stand.witness.images, "depth images come", 2 * START_TIMEOUT_S, SIMULATOR
        )
        learned_s: float | None = None
        while stand.harness[SIMULATOR].exit_code is None:
            time.sleep(1.0)
            now_s = time.monotonic()
            if learned_s is None and stand.version() > ORIGINAL:
                learned_s = now_s
                print(f"depth has version {stand.version()}", flush=True)
            if learned_s is not None and now_s - learned_s > AFTER_S / rate:
                break
        images, verdicts = list(stand.witness.images), Counter[str]()
        counts = stand.witness.learning[-1].values["counts"] if stand.witness.learning else {}
        for name, count in counts.items():
            if name.startswith("verdict.") and int(count):
                verdicts[name.removeprefix("verdict.")] = int(count)
        facts = {
            "verdicts": dict(verdicts.most_common()),
            "counts": {name: int(count) for name, count in counts.items() if int(count)},
            "state": stand.learning("state"),
            "swaps": [said.values["verdict"] for said in stand.witness.verdicts],
        }
    for against in (live, frozen):
        against.end()
    versions = {image.stamp_ns: image.version for image in images}
    return pairs_of(live, frozen, versions), facts


def summary(
    pairs: Sequence[Pair], facts: Mapping[str, Any], elsewhere: Mapping[str, Scores]
) -> dict[str, Any]:
    """Return the results for JSON; see the module.

    Args:
        pairs: the windows of the drive.
        facts: what the learner said.
        elsewhere: `original`, and `learned` where a version was published, -> scores.
    """
    parts = {
        "before": [pair for pair in pairs if pair.version <= ORIGINAL],
        "after": [pair for pair in pairs if pair.version > ORIGINAL],
    }
    versions = {
        str(version): {
            error: compare([pair for pair in pairs if pair.version == version], error)
            for error in ERRORS
        }
        for version in sorted({pair.version for pair in pairs})
    }
    found: dict[str, Any] = {
        **{
            part: {error: compare(chosen, error) for error in ERRORS}
            for part, chosen in parts.items()
        },
        "versions": versions,
        "elsewhere": dict(elsewhere),
        **facts,
    }
    return {**found, "goals": goals(found)}


def goals(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked for, and whether it holds; nothing measured does not."""
    infinite = float("inf")
    rows: list[tuple[str, float, float]] = [
        (
            "learned versions that depth never named",
            0.0 if found["after"]["metric"]["windows"] else 1.0,
            0.0,
        ),
    ]
    for error in ERRORS:
        high = found["after"][error]["high"]
        rows.append(
            (
                f"true error with learned over frozen weights, {error}, upper end",
                infinite if high is None else high,
                1.0,
            )
        )
    for error in ERRORS:
        name = f"{error}_abs_rel"
        both = [found["elsewhere"].get(who, {}).get(name) for who in ("learned", "original")]
        ratio = infinite if None in both else both[0] / both[1]
        rows.append((f"the same of the last version on other places, {error}", ratio, 1.0))
    return [
        {"goal": goal, "value": value if np.isfinite(value) else None, "bound": bound,
         "met": value <= bound}
        for goal, value, bound in rows
    ]  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = [
        "| weights | error | windows | learning node | frozen node | ratio | holds it with 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    parts = {"original": results["before"], "learned": results["after"]}
    parts |= {f"version {version}": found for version, found in results["versions"].items()}
    for words, found in parts.items():
        for error, one in found.items():
            if one["windows"]:
                rows.append(
                    f"| {words} | {error} | {one['windows']} | {one['live']:.3f} "
                    f"| {one['frozen']:.3f} | {one['ratio']:.3f} | {one['low']} to {one['high']} |"
                )
    rows += ["", "| goal | value | bound | met |", "|---|---|---|---|"]
    for one in results["goals"]:
        value = "-" if one["value"] is None else f"{one['value']:.3f}"
        rows.append(
            f"| {one['goal']} | {value} | {one['bound']:g} | {'yes' if one['met'] else '**no**'} |"
        )
    counts = ", ".join(f"{name} {count}" for name, count in results["verdicts"].items())
    return "\n".join([*rows, "", f"The guard said: {counts or 'nothing'}."]) + "\n"


def plot(pairs: Sequence[Pair], path: Path) -> None:
    """Draw the true error of both nodes over the seconds of the drive, means over 5 s."""
    bins: dict[int, list[Pair]] = {}
    for pair in pairs:
        bins.setdefault(int(pair.at_s // 5), []).append(pair)
    seconds = [5.0 * number + 2.5 for number in sorted(bins)]
    series = {
        name: (
            seconds,
            [
                float(np.mean([getattr(pair, side)["metric"] for pair in bins[number]]))
                for number in sorted(bins)
            ],
        )
        for name, side in (("with the learner", "live"), ("frozen", "frozen"))
    }
    axes = Axes("true error in metres while driving", "simulated s", "Abs Rel")
    write_png(path, line_plot(series, axes))


def main(arguments: list[str] | None = None) -> int:
    """Run it and record the result; return 1 where a goal is missed."""
    options = _parser().parse_args(arguments)
    lengths = Lengths(options.drive_s, 1.0, options.place_s)
    folder = places(options.work.resolve(), options.seed, lengths)
    files = {
        who: file_of(name)
        for who, name in (("student", options.weights), ("teacher", options.teacher))
    }
    scores = {who: score_file(path, folder, (ELSEWHERE,))[ELSEWHERE] for who, path in files.items()}
    lead = lead_of(scores["student"], scores["teacher"])
    print(f"teacher against student elsewhere, lead: {lead}", flush=True)
    if not all(value >= SMALLEST_LEAD for value in lead.values()):
        print("the teacher has too little to teach in this world: nothing can be shown here")
        return 1
    with tempfile.TemporaryDirectory(prefix="dae_ros_live_learning_") as scratch:
        deployment = Deployment(
            str(files["student"]), str(files["teacher"]), Path(scratch) / "learned",
            depth={"threads": 1, "follow_snapshots": True},
            learner={
                "threads": 1, "near_m": RANGE.minimum_m, "far_m": RANGE.maximum_m,
                # A window of the slow simulator is longer on the clock of the wall.
                "latency_budget_ms": 1e3 * HOP_S / options.rate, "duty": options.duty,
            },
            device=options.device,
        )  # fmt: skip
        world = drive_parameters(folder, options.seed, lengths)
        pairs, facts = drive(deployment, world, options.rate)
        elsewhere = {"original": scores["student"]}
        kept = sorted(deployment.snapshots.glob("w_*.safetensors"))
        if len(kept) > 1:
            elsewhere["learned"] = score_file(kept[-1], folder, (ELSEWHERE,))[ELSEWHERE]
    results = {
        "seed": options.seed, "world": dict(world), "rate": options.rate, "duty": options.duty,
        "student": digest_of(files["student"]), "teacher": digest_of(files["teacher"]),
        "lead": lead, **summary(pairs, facts, elsewhere),
    }  # fmt: skip
    text = table(results)
    print(f"\n{text}")
    if not options.no_record:
        (RESULTS / "live_learning.md").write_text(text, encoding="utf-8")
        plot(pairs, RESULTS / "live_learning.png")
        print(f"-> {record('live_learning', results)}")
    return 0 if all(one["met"] for one in results["goals"]) else 1


def _listen(stand: Stand, topics: Mapping[str, Sequence[Any]]) -> None:
    """Give the depth images of topics to their receivers, on the witness's thread."""
    from sensor_msgs.msg import Image

    from dae_ros.nodes.qos import output_qos

    for topic, receivers in topics.items():

        def received(message: Any, receivers: Sequence[Any] = tuple(receivers)) -> None:
            stamp = message.header.stamp
            depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
            for receiver in receivers:
                receiver(stamp.sec * 1_000_000_000 + stamp.nanosec, depth)

        stand.witness.node.create_subscription(Image, topic, received, output_qos(100))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="micro", help="student (default: %(default)s)")
    parser.add_argument(
        "--teacher", default="micro_frames", help="network of frames (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the worlds; even: warehouse")
    parser.add_argument("--drive-s", type=float, default=300.0, help="simulated, at most")
    parser.add_argument("--place-s", type=float, default=15.0, help="of each other place")
    parser.add_argument("--rate", type=float, default=0.25, help="simulated seconds per second")
    parser.add_argument("--duty", type=float, default=0.5, help="of the learner")
    parser.add_argument(
        "--device", default="cpu", help="of both: cpu, cuda or auto (default: %(default)s)"
    )
    parser.add_argument("--work", type=Path, default=Path("output/live_learning"))
    parser.add_argument("--no-record", action="store_true", help="print only")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
