"""How weights reach a running depth node: announcements and pieces in, verdicts out.

Called on the executor's thread, but for `judged`. The worker's thread changes the weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dae_ros.errors import WeightsError
from dae_ros.nodes.depth_worker import DepthWorker, RollBack
from dae_ros.nodes.qos import MatchedSubscription, latched_qos
from dae_ros.parameters import DepthParameters
from dae_ros.paths import named_path
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshot_chunks import SnapshotReceiver
from dae_ros.runtime.snapshots import read_confirmed, read_latest
from dae_ros.runtime.weight_stages import Verdict

SNAPSHOT, CHUNK, VERDICTS = "distill/snapshot", "distill/snapshot_chunk", "depth/weights"
WARNING_PERIOD_S = 5.0


def verdict_text(verdict: Verdict) -> str:
    """Return a verdict as the JSON of `depth/weights`; numbers that are not finite become null."""
    return json.dumps(
        {
            "version": verdict.version,
            "sha256": verdict.sha256,
            "verdict": verdict.outcome,
            "code": verdict.code,
            "reason": verdict.reason,
            "live_version": verdict.live_version,
            "live_sha256": verdict.live_sha256,
            "numbers": {
                name: value if math.isfinite(value) else None
                for name, value in verdict.numbers.items()
            },
        }
    )


def read_verdict(text: str) -> Verdict:
    """Read what `verdict_text` wrote; null becomes NaN.

    Raises:
        WeightsError: it is no verdict.
    """
    try:
        values = json.loads(text)
        found = Verdict(
            version=values["version"],
            sha256=values["sha256"],
            outcome=values["verdict"],
            code=values["code"],
            reason=values["reason"],
            live_version=values["live_version"],
            live_sha256=values["live_sha256"],
            numbers={
                name: math.nan if value is None else float(value)
                for name, value in values["numbers"].items()
            },
        )
        if type(found.version) is not int or type(found.live_version) is not int:
            raise TypeError("a version is no whole number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"this is no verdict on weights ({type(error).__name__}: {error}): {text[:120]!r}; "
            "see that nobody but the depth node publishes depth/weights",
            text=text[:1000],
        ) from error
    return found


class WeightFollower:
    """The topics `distill/snapshot`, `distill/snapshot_chunk`, `depth/weights`; `~/rollback`.

    Args:
        node: that owns them.
        worker: gives the worker, None while the node is not configured.

    Attributes:
        last: the latest verdict, None without; for `depth/status`.
        malformed: announcements and pieces that were none.
    """

    def __init__(self, node: LifecycleNode, worker: Callable[[], DepthWorker | None]) -> None:
        self._node = node
        self._worker = worker
        self._subscriptions: list[MatchedSubscription] = []
        self._receiver: SnapshotReceiver | None = None
        # The folder's latest version, and what had been kept before it.
        self._fallback: tuple[str, Announcement] | None = None
        self.last: Verdict | None = None
        self.malformed = 0
        self._verdicts = node.create_publisher(String, VERDICTS, latched_qos())
        node.create_service(Trigger, "~/rollback", self._rollback_requested)

    def begin(self, parameters: DepthParameters) -> None:
        """Subscribe, and take the latest version of the trainer's folder; at activation."""
        worker = self._worker()
        if not parameters.follow_snapshots or worker is None or worker.estimator is None:
            self.last = None
            return
        estimator = worker.estimator
        live = estimator.weight_version, estimator.digest
        # What a canary kept before a pause is said again: the trainer may have been away.
        watched = None if worker.swap is None else worker.swap.watched
        self.judged(watched or Verdict(*live, "kept", "start", "depth is activated", *live))
        self._receiver = SnapshotReceiver()
        for topic, kind, received in (
            (SNAPSHOT, "std_msgs/msg/String", self._announced),
            (CHUNK, "std_msgs/msg/UInt8MultiArray", self._chunk_received),
        ):
            self._subscriptions.append(
                MatchedSubscription(
                    self._node, topic, [kind], received, raw=False, depth=10, keep_all=True
                )
            )
        if parameters.snapshots:
            self._begin_with_latest(named_path(parameters.snapshots))
        self.look()

    def end(self) -> None:
        """Unsubscribe; the weights in use stay."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions.clear()
        if self._receiver is not None:
            self._receiver.close()
        self._receiver = self._fallback = None

    def look(self) -> None:
        """Look at the graph, and hand over what is announced and here."""
        for subscription in self._subscriptions:
            subscription.refresh()
        worker = self._worker()
        if self._receiver is None or worker is None:
            return
        announcement = self._receiver.ready(time.monotonic())
        if announcement is not None:
            worker.put_command(announcement)

    def judged(self, verdict: Verdict) -> None:
        """Publish a verdict; called on the worker's thread."""
        self.last = verdict
        self._verdicts.publish(String(data=verdict_text(verdict)))
        self._fall_back(verdict)
        bad = verdict.outcome == "rolled_back" or (
            verdict.outcome == "refused" and verdict.code != "superseded"
        )
        logger = self._node.get_logger()
        sentence = (
            f"weights version {verdict.version} ({verdict.sha256[:12]}) {verdict.outcome} "
            f"[{verdict.code}]: {verdict.reason}"
        )
        if bad:
            logger.warning(sentence)
        else:
            logger.info(sentence)

    def _begin_with_latest(self, folder: Path) -> None:
        before = None
        try:
            latest = read_latest(folder)
            if latest is not None and not latest.confirmed:
                before = read_confirmed(folder, latest.version)
        except WeightsError as error:
            self._refuse(error)  # depth goes on with what it has
            return
        if latest is None or self._receiver is None:
            return
        if before is not None:
            way_back = dataclasses.replace(before.announcement, rollback=True)
            self._fallback = latest.sha256, way_back
        self._receiver.announced(latest.announcement, time.monotonic())

    def _fall_back(self, verdict: Verdict) -> None:
        """Take what had been kept before the folder's latest version, where that is not wanted.

        A trainer does the same, but there may be none.
        """
        worker, (latest, way_back) = self._worker(), self._fallback or ("", None)
        if verdict.sha256 != latest or verdict.outcome == "swapped":
            return
        self._fallback = None
        unwanted = verdict.harmful and verdict.code != "requested"
        if worker is not None and way_back is not None and unwanted:
            worker.put_command(way_back)

    def _announced(self, message: String, _: str) -> None:
        if self._receiver is None:
            return
        try:
            announcement = Announcement.from_json(message.data)
        except WeightsError as error:
            self._refuse(error)
            return
        self._receiver.announced(announcement, time.monotonic())
        self.look()

    def _chunk_received(self, message: Any, _: str) -> None:
        if self._receiver is None:
            return
        labels = [dimension.label for dimension in message.layout.dim]
        try:
            self._receiver.received("".join(labels[:1]), bytes(message.data), time.monotonic())
        except WeightsError as error:
            self._refuse(error)
            return
        self.look()

    def _refuse(self, error: WeightsError) -> None:
        self.malformed += 1
        self._node.get_logger().warning(str(error), throttle_duration_sec=WARNING_PERIOD_S)

    def _rollback_requested(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        worker = self._worker()
        swap = None if worker is None else worker.swap
        if worker is None or swap is None:
            response.message = "weights are not followed: set follow_snapshots and configure"
        elif not swap.can_roll_back:
            response.message = f"there are no weights before version {swap.weight_version}"
        else:
            worker.put_command(RollBack())
            response.success = True
            response.message = (
                f"the weights before version {swap.weight_version} take over as soon as their "
                "state is rebuilt; depth/weights says when"
            )
        return response
