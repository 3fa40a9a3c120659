"""What survives what: depth and learner are killed, starved, lied to and restarted.

    python -m benchmarks.bench_faults [--weights NAME] [--teacher NAME] [--kills 100] [--seed 0]

Both are the processes of `depth.launch.py distill:=true`, over real DDS, with a camera that plays a
simulated recording. First each is killed (SIGKILL) at random instants, then every fault of
`faults/one_shot.py` is made. Written are results/faults.json, faults.md and faults.png: who was
away when, the gaps in depth, and how many were how long.

The learner works with more haste than a deployment would (`HASTE`), so that kills meet writing and
publishing often. Depth's limits on kills are its own first start, times two, plus two seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults import one_shot
from benchmarks.faults.camera import Camera
from benchmarks.faults.disk import look
from benchmarks.faults.kills import Kill, Killer
from benchmarks.faults.plot import kills_plot
from benchmarks.faults.scene import Scene
from benchmarks.faults.segments import SHARED, remove_orphans
from benchmarks.live.online_stand import DEPTH, LEARNER, Deployment, Stand, simulate
from benchmarks.record import RESULTS, record
from dae_ros.evaluation.strips import write_png
from dae_ros.parameters import Value

HEIGHT, WIDTH = 180, 240
HOP_S = 0.05
START_TIMEOUT_S = 300.0
# Short clips and blocks, judgements after few steps, and limits that let most candidates pass.
HASTE: Mapping[str, Value] = {
    "threads": 1, "duty": 1.0, "latency_budget_ms": 1e6, "lead": 0, "burn_in": 2, "unroll": 4,
    "labels_per_clip": 2, "block_s": 0.5, "heldout_every": 3, "guard_band_s": 0.0,
    "batch_clips": 2, "judged_blocks": 2, "judged_strata": 1, "judge_every_steps": 10,
    "judge_every_s": 10.0, "smallest_gain": 0.0, "confidence": 0.5, "smallest_gain_rate": 0.0,
    "save_every_steps": 5, "pinned_clips": 4, "warm_up": 2, "average_decay": 0.8,
    "largest_forgetting": 0.5, "largest_departure": 0.5, "largest_jitter": 3.0,
    "largest_similarity": 0.999, "recovery_s": 1.0, "degraded_share": 1.0,
}  # fmt: skip
CALM: Mapping[str, Value] = {
    "threads": 1, "replay_windows": 8, "canary_windows": 16, "canary_latency": 1e6,
    "canary_flicker": 100.0,
}  # fmt: skip


def run(
    deployment: Deployment,
    recording: Path,
    *,
    kills: int,
    aimed: int,
    seed: int,
    rate: float,
    warm_up_s: float,
    faults: str | None,
    keep_own: bool = False,
) -> dict[str, Any]:
    """Start both, learn for a while, kill, and make every fault.

    Args:
        deployment: both follow `/clock`.
        recording: for `Camera`.
        kills: how many at random instants.
        aimed: how many more while the learner writes.
        seed: of their instants.
        rate: of the camera.
        warm_up_s: how long to wait for a first publication; what then is missing comes later.
        faults: part of the names of those that are made; '' for all, None for none.
        keep_own: whether this process goes on with ROS afterwards.

    Returns:
        For JSON.
    """
    with (
        Stand(deployment) as stand,
        Camera(stand.witness.node, recording, rate) as camera,
    ):
        start_s = {}
        for name, come in (
            (DEPTH, lambda: stand.witness.images),
            (LEARNER, lambda: stand.learning("state")),
        ):
            stand.start(name)
            start_s[name] = stand.until(come, f"{name} works", START_TIMEOUT_S, name)
        _wait_for_version(stand, warm_up_s)
        killer = Killer(stand, start_s, seed)
        found = killer.run(kills, aimed)
        left = killer.memory.segments
        scene = Scene(stand, camera, HOP_S / rate, left)
        outcomes = [] if faults is None else one_shot.run(scene, faults)
        versions = max([0, *look(deployment.folder).versions])
    # All have ended: what they shared with those that were killed is nobody's now.
    removed = remove_orphans(left, own=keep_own)
    return {
        "start_s": {name: round(value, 2) for name, value in start_s.items()},
        "rate": rate,
        "seed": seed,
        "versions_published": versions,
        "windows_of_the_original_after_restarts": killer.images_of_the_original,
        "segments_removed": sum(kill.segments for kill in found) + len(removed),
        "segments_left": sum((SHARED / name).exists() for name in left),
        "kills": [kill.to_dict() for kill in found],
        "summary": summary(found),
        "faults": [asdict(outcome) for outcome in outcomes],
    }


def summary(kills: Sequence[Kill]) -> dict[str, Any]:
    """Return the kills of each process in numbers."""
    found: dict[str, Any] = {}
    for victim in (DEPTH, LEARNER):
        own = [kill for kill in kills if kill.victim == victim]
        back = [kill.back_s for kill in own if kill.back_s is not None]
        lost = [kill.lost_steps for kill in own if kill.lost_steps is not None]
        found[victim] = {
            "kills": len(own),
            "while_starting": sum(kill.phase == "starting" for kill in own),
            "files_cut": sum(bool(kill.unfinished) for kill in own),
            "back_median_s": round(statistics.median(back), 2) if back else None,
            "back_longest_s": round(max(back), 2) if back else None,
            "depth_stopped_longest_s": round(max((kill.stopped_s for kill in own), default=0), 2),
            "lost_steps_most": max(lost, default=None),
            "with_problems": sum(bool(kill.problems) for kill in own),
        }
    return found


def table(results: Mapping[str, Any]) -> str:
    """Return everything as Markdown: fault, what happened, verdict."""
    rows = ["| fault | what happened | verdict |", "|---|---|---|"]
    for victim, found in results["summary"].items():
        if not found["kills"]:
            continue
        happened = (
            f"{found['while_starting']} while it started, {found['files_cut']} left a file "
            f"unfinished; back after {found['back_median_s']} s in the median, "
            f"{found['back_longest_s']} s at most; longest without a depth image "
            f"{found['depth_stopped_longest_s']} s"
        )
        if victim == LEARNER:
            happened += f"; at most {found['lost_steps_most']} steps were lost"
        bad = found["with_problems"]
        verdict = "passed" if not bad else f"**{bad} failed**"
        rows.append(f"| kill -9 of {victim}, {found['kills']} times | {happened} | {verdict} |")
    for one in results["faults"]:
        verdict = "passed" if one["passed"] else "**failed**"
        rows.append(f"| {one['fault']} | {one['happened'].splitlines()[0]} | {verdict} |")
    rows.append("")
    rows.append(
        f"{results['versions_published']} versions were published. "
        f"{results['segments_removed']} pieces of shared memory of killed processes were removed, "
        f"{results['segments_left']} were left. After restarts of depth "
        f"{results['windows_of_the_original_after_restarts']} windows came from the original "
        "weights, until the latest version had been loaded and rehearsed."
    )
    problems = sorted({problem for kill in results["kills"] for problem in kill["problems"]})
    return "\n".join([*rows, "", *(f"* {text.splitlines()[0]}" for text in problems)]) + "\n"


def main() -> int:
    """Run all of it; return 1 where something did not pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="micro", help="student (default: %(default)s)")
    parser.add_argument(
        "--teacher", default="micro_frames", help="network of frames (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="of both: cpu, cuda or auto (default: %(default)s)"
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--aimed", type=int, default=20, help="kills while the learner writes")
    parser.add_argument("--seed", type=int, default=0, help="of the instants of kills")
    parser.add_argument("--rate", type=float, default=1.0, help="of the camera; 1 is real time")
    parser.add_argument("--faults", default="", metavar="TEXT", help="only those with it in names")
    parser.add_argument("--no-faults", action="store_true", help="kills alone")
    parser.add_argument("--warm-up", type=float, default=180.0, help="seconds for a first version")
    parser.add_argument(
        "--recording", type=Path, default=Path("output/faults_camera"),
        help="simulated there where it is not yet (30 s, a minute or two)",
    )  # fmt: skip
    parser.add_argument("--no-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    recording = simulate(arguments.recording, 30.0, "mono", height=HEIGHT, width=WIDTH)
    with tempfile.TemporaryDirectory(prefix="dae_ros_faults_") as folder:
        results = run(
            deployment_of(
                arguments.weights, arguments.teacher, Path(folder) / "learned", arguments.device
            ),
            recording,
            kills=arguments.kills,
            aimed=arguments.aimed,
            seed=arguments.seed,
            rate=arguments.rate,
            warm_up_s=arguments.warm_up,
            faults=None if arguments.no_faults else arguments.faults,
        )
    text = table(results)
    print(f"\n{text}")
    if not arguments.no_record:
        (RESULTS / "faults.md").write_text(text, encoding="utf-8")
        write_png(RESULTS / "faults.png", kills_plot(results["kills"]))
        print(f"-> {record('faults', results)}")
    passed = all(one["passed"] for one in results["faults"])
    return 0 if passed and not any(kill["problems"] for kill in results["kills"]) else 1


def deployment_of(weights: str, teacher: str, folder: Path, device: str = "cpu") -> Deployment:
    """Return a deployment in haste, whose depth begins with the latest version on disk."""
    depth = {**CALM, "follow_snapshots": True, "snapshots": str(folder / "snapshots")}
    return Deployment(weights, teacher, folder, depth, HASTE, use_sim_time=True, device=device)


def _wait_for_version(stand: Stand, timeout_s: float) -> None:
    """Wait until depth has a version that was learned, as long as there is patience."""
    deadline_s = time.monotonic() + timeout_s
    while stand.version() <= 1 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    print(f"learning has begun: version {stand.version()}, {stand.learning('state')}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
