"""Changes of weights in `bench_undisturbed`: what they cost, and that depth after them is exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.live.online_stand import Deployment, Stand
from benchmarks.live.undisturbed_blocks import HOP_NS, Block, Plan
from dae_ros.bags.recording import open_recording
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.weights import load_weights
from dae_ros.parameters import DepthParameters, Value
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.snapshots import Snapshot, SnapshotStore

# Above WeightSwap's limit below which a state would be kept; far below what a canary minds.
NOISE = 0.005
SWAP_EVERY_S = 6.0
# How many windows after a swap are compared with a fresh load.
COMPARED = 16


def versions(folder: Path, weights: str, count: int) -> Iterator[Snapshot]:
    """Publish versions that differ from each other as much as a few steps of learning make them."""
    loaded = load_weights(weights)
    original = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    with SnapshotStore(folder, keep=count) as store:
        for number in range(count):
            generator = torch.Generator().manual_seed(number)
            loaded.network.load_state_dict(
                {
                    name: tensor * (1 + NOISE * torch.randn(tensor.shape, generator=generator))
                    if tensor.is_floating_point()
                    else tensor
                    for name, tensor in original.items()
                }
            )

            def write(path: Path) -> None:
                save_checkpoint(path, loaded.network, loaded.meaning)

            yield store.publish(write, step=number, score=1.0)


class Announcer:
    """Announces version after version, each as soon as the one before is kept.

    Args:
        stand: whose depth is told.
        snapshots: the versions.

    Attributes:
        maps: end of a window -> depth, filled with what follows the first swap.
    """

    def __init__(self, stand: Stand, snapshots: Sequence[Snapshot]) -> None:
        from std_msgs.msg import String

        from dae_ros.nodes.qos import latched_qos

        self._stand = stand
        self._snapshots = list(snapshots)
        self._message = String
        self._publisher = stand.witness.node.create_publisher(
            String, "distill/snapshot", latched_qos()
        )
        self._next_s = 0.0
        self._first = len(stand.witness.images)
        self.maps: dict[int, NDArray[np.float32]] = {}

    def __call__(self, elapsed_s: float) -> None:
        """Announce the next version where it is time."""
        if elapsed_s >= self._next_s and self._snapshots:
            self._next_s = elapsed_s + SWAP_EVERY_S
            announcement = self._snapshots.pop(0).announcement
            self._publisher.publish(self._message(data=announcement.to_json()))
        images = self._stand.witness.images[self._first :][-2 * COMPARED :]
        first = next((i for i, image in enumerate(images) if image.version == 1), None)
        if first is not None and not self.maps and len(images) - first > COMPARED + 1:
            stamps = {image.stamp_ns: image.end_ns for image in images[first : first + COMPARED]}
            maps = dict(self._stand.witness.maps)
            self.maps = {end: maps[stamp] for stamp, end in stamps.items()}

    def close(self) -> None:
        """Stop announcing."""
        self._stand.witness.node.destroy_publisher(self._publisher)


def fresh_depth(
    recording: Path,
    weights: Path,
    first_ns: int,
    last_ns: int,
    parameters: Mapping[str, Value],
    device: str = "cpu",
) -> dict[int, NDArray[np.float32]]:
    """Return what a fresh load makes of the windows from one end to another, without ROS.

    Args:
        recording: that was replayed.
        weights: file.
        first_ns: end of the window before which the state is zero, in event time.
        last_ns: end of the last window.
        parameters: of depth.
        device: where it runs; another one has other bits.
    """
    settings = DepthParameters.from_mapping(
        {**parameters, "weights": str(weights), "device": device, "overload": "queue"}
    )
    pipeline = DepthPipeline(settings, create_estimator(settings))
    found: dict[int, NDArray[np.float32]] = {}
    with open_recording(recording) as opened:
        for packet in opened.event_packets("/events"):
            pipeline.feed(packet)
            while (frame := pipeline.step()) is not None:
                if frame.end_ns == first_ns - HOP_NS:
                    pipeline.reset_state("service")
                if first_ns <= frame.end_ns <= last_ns:
                    found[frame.end_ns] = frame.depth
                if frame.end_ns >= last_ns:
                    return found
    return found


def swaps_of(block: Block) -> list[dict[str, Any]]:
    """Return every change of weights: how it went, and what it cost."""
    found = []
    kept = {v.values["version"]: v.values for v in block.verdicts if v.values["verdict"] == "kept"}
    for said in block.verdicts:
        values = said.values
        if values["verdict"] != "swapped":
            continue
        around = [
            (gap, image)
            for gap, image in block.gaps()
            if abs(image.arrival_s - said.arrival_s) < SWAP_EVERY_S / 2
        ]
        at = [
            gap for gap, image in around
            if image.version == values["version"]
        ][:1]  # fmt: skip
        found.append({
            "version": values["version"],
            "code": values["code"],
            "replayed": values["numbers"].get("replayed"),
            "kept": values["version"] in kept,
            "gap_windows": round(at[0], 2) if at else None,
            "longest_gap_near_windows": round(max((g for g, _ in around), default=0.0), 2),
        })  # fmt: skip
    return found


def identical(
    plan: Plan, deployment: Deployment, block: Block, snapshot: Snapshot,
    maps: Mapping[int, NDArray[np.float32]],
) -> dict[str, Any]:  # fmt: skip
    """Compare depth after the first swap with that of a fresh load; see the module."""
    swaps = [
        said.values for said in block.verdicts
        if said.values["verdict"] == "swapped" and said.values["version"] == snapshot.version
    ]  # fmt: skip
    if not swaps or not maps:
        return {"code": "", "replayed": 0, "windows": 0, "equal": 0, "equal_without_replay": 0}
    swap = swaps[0]
    replayed, first_ns = int(swap["numbers"]["replayed"]), min(maps)
    parameters = {n: v for n, v in deployment.depth.items() if n != "follow_snapshots"}
    begins = (first_ns - replayed * HOP_NS, first_ns)
    fresh, other = (
        fresh_depth(
            plan.recording, snapshot.path, begin_ns, max(maps), parameters, deployment.device
        )
        for begin_ns in begins
    )
    return {
        "code": swap["code"],
        "replayed": replayed,
        "windows": len(maps),
        "equal": identical_windows(maps, fresh),
        # A comparison that cannot fail proves nothing: without the replay they differ.
        "equal_without_replay": identical_windows(maps, other),
    }


def identical_windows(
    some: Mapping[int, NDArray[np.float32]], others: Mapping[int, NDArray[np.float32]]
) -> int:
    """Return how many windows of some have the same depth, bit for bit, among the others."""
    return sum(
        end in others and np.array_equal(depth, others[end], equal_nan=True)
        for end, depth in some.items()
    )
