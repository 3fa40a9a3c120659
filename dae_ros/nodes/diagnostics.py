"""Messages that say how depth is doing: `depth/status` per window, `/diagnostics` once a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dae_ros.nodes.conversions import header
from dae_ros.nodes.depth_worker import DepthWorker, WorkerSnapshot
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.worker import Inbox

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# Counts that are no loss: the ring forgets old events by design.
HARMLESS_DROPS = frozenset({"evicted_events", "wraps"})


def status(
    name: str, level: bytes, message: str, values: Mapping[str, object], hardware_id: str = ""
) -> DiagnosticStatus:
    """Return one status with its values as text."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def frame_status(frame: DepthFrame, verdict: Verdict | None) -> DiagnosticArray:
    """Return what `depth/status` says about one depth image; the stamp is the image's.

    Args:
        frame: the image.
        verdict: the latest on new weights, None where none are followed.
    """
    values: dict[str, object] = {
        "index": frame.index,
        "window_start_ns": frame.start_ns,
        "window_end_ns": frame.end_ns,
        "event_count": frame.event_count,
        "state_age": frame.state_age,
        "kind": frame.kind,
        "orientation": frame.orientation,
        "weight_version": frame.weight_version,
        "sha256": frame.digest,
        "warming": str(frame.warming).lower(),
        "latency_ms": f"{frame.latency_ns / 1e6:.3f}",
    }
    array = DiagnosticArray(
        header=header(frame.stamp_ns, frame.frame_id),
        status=[status("depth", OK, frame.kind, values, frame.frame_id)],
    )
    if verdict is not None:
        found = {
            "version": verdict.version,
            "sha256": verdict.sha256,
            "verdict": verdict.outcome,
            "code": verdict.code,
        }
        array.status = [*array.status, status("weights", OK, verdict.reason, found)]
    return array


@dataclass(frozen=True, slots=True)
class Reception:
    """What the subscription side knows.

    Attributes:
        topic, type_name, reliable: of the event subscription; type_name None without one.
        publishers: full names of the nodes that publish the topic.
        problem: why nothing can arrive, None where all is well.
        messages, bytes: received since the node started.
        largest_bytes: size of the largest message.
        silence_s: since the last message, or since the subscription was made, in steady time.
        patience_s: how much of it is nothing to speak of.
        inbox_items, inbox_bytes: waiting for the worker.
    """

    topic: str
    type_name: str | None
    reliable: bool
    publishers: tuple[str, ...]
    problem: str | None
    messages: int
    bytes: int
    largest_bytes: int
    silence_s: float
    patience_s: float
    inbox_items: int
    inbox_bytes: int

    @property
    def silence(self) -> str | None:
        """What to do about messages that stay away, None where they have not for long."""
        if self.problem is not None or self.silence_s <= self.patience_s:
            return None
        return (
            f"no message on '{self.topic}' for {self.silence_s:.1f} s, though its publisher "
            f"{', '.join(self.publishers)} is still there: see its log, and whether the camera is "
            "connected and streams, or the recording is paused or over"
        )


class Traffic:
    """Counts event messages, and for how long there have been none.

    Attributes:
        messages: handed over so far.
    """

    def __init__(self) -> None:
        self.messages = self._bytes = self._largest_bytes = 0
        self._heard_s = 0.0

    def add(self, size_bytes: int, now_s: float) -> None:
        """Count a message that has been handed over.

        Not one that waits to be: while a full inbox holds the receiver back, nothing is missing.
        """
        self.messages += 1
        self._bytes += size_bytes
        self._largest_bytes = max(self._largest_bytes, size_bytes)
        self._heard_s = now_s

    def excuse(self, now_s: float) -> None:
        """Until now no message could come."""
        self._heard_s = now_s

    def reception(
        self, events: MatchedSubscription, inbox: Inbox[Any], now_s: float, patience_s: float
    ) -> Reception:
        """Return what is known of a subscription and the inbox behind it."""
        return Reception(
            topic=events.name,
            type_name=events.type_name,
            reliable=events.reliable,
            publishers=events.publishers,
            problem=events.problem,
            messages=self.messages,
            bytes=self._bytes,
            largest_bytes=self._largest_bytes,
            silence_s=now_s - self._heard_s,
            patience_s=patience_s,
            inbox_items=len(inbox),
            inbox_bytes=inbox.byte_count,
        )


@dataclass(frozen=True, slots=True)
class NetworkIdentity:
    """Which network runs, what its number means, and whether its weights are about to change.

    Attributes:
        name, digest, weight_version: of the weights in use.
        kind, orientation: of the output.
        backend: what runs it, and why.
        phase: of a change of weights; None where none are followed.
        malformed: announcements and pieces of weights that were none.
    """

    name: str
    digest: str
    weight_version: int
    kind: str
    orientation: str
    backend: BackendChoice
    phase: str | None
    malformed: int

    @staticmethod
    def of(worker: DepthWorker | None, malformed: int) -> NetworkIdentity | None:
        """Return that of a worker, None before it has loaded."""
        if worker is None or worker.estimator is None or worker.backend is None:
            return None
        estimator, swap = worker.estimator, worker.swap
        return NetworkIdentity(
            estimator.name,
            estimator.digest,
            estimator.weight_version,
            worker.kind,
            worker.orientation,
            worker.backend,
            None if swap is None else swap.phase,
            malformed,
        )


# Fast DDS over loopback delivers best-effort messages of 0.5 MB and loses most above.
LARGE_BEST_EFFORT_BYTES = 500_000


class DepthDiagnostics:
    """Builds the periodic report; remembers the last one for rates.

    Args:
        name: the node's full name, the beginning of every status name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last_s: float | None = None
        self._last: tuple[int, int, int, int] = (0, 0, 0, 0)

    def begin_again(self) -> None:
        """Forget the last report: another worker, or another subscription, counts from now on."""
        self._last_s = None

    def statuses(
        self,
        now_s: float,
        state: str,
        fault: str | None,
        reception: Reception | None,
        calibration: DiagnosticStatus | None,
        worker: WorkerSnapshot | None,
        network: NetworkIdentity | None,
    ) -> list[DiagnosticStatus]:
        """Return the report.

        Args:
            now_s: monotonic time, for rates.
            state: lifecycle state.
            fault: why depth stopped, None where it did not.
            reception, calibration: None while not subscribed.
            worker, network: None while not configured.
        """
        level, text = (OK, state) if fault is None else (ERROR, fault)
        found = [status(f"{self._name}: state", level, text, {"state": state})]
        if worker is not None:
            elapsed_s = now_s - self._last_s if self._last_s is not None else 0.0
            if reception is not None:
                found.append(self._events(reception, worker, elapsed_s))
            found.append(self._windows(worker, elapsed_s))
            self._last_s = now_s
            self._last = (
                reception.messages if reception else 0,
                reception.bytes if reception else 0,
                worker.pipeline.events,
                worker.pipeline.windows,
            )
        if network is not None:
            found.append(self._network(network))
            if network.phase is not None and worker is not None:
                found.append(self._weights(network, worker))
        if calibration is not None:
            calibration.name = f"{self._name}: {calibration.name}"
            found.append(calibration)
        return found

    def _events(
        self, reception: Reception, worker: WorkerSnapshot, elapsed_s: float
    ) -> DiagnosticStatus:
        pipeline = worker.pipeline
        per_s = 1.0 / elapsed_s if elapsed_s > 0.0 else 0.0
        drops = {
            name: count
            for name, count in pipeline.drops.items()
            if count and name not in HARMLESS_DROPS
        }
        level, text = OK, "receiving"
        if reception.problem is not None:
            level, text = WARN, reception.problem
        elif reception.silence is not None:
            level, text = WARN, reception.silence
        elif not reception.messages:
            level, text = WARN, f"subscribed to '{reception.topic}', no message yet"
        elif pipeline.silent:
            level, text = WARN, "silent: the camera sends no events, stepping has stopped"
        elif not reception.reliable and reception.largest_bytes > LARGE_BEST_EFFORT_BYTES:
            level, text = (
                WARN,
                (
                    f"messages of {reception.largest_bytes} bytes arrive best effort; most of that "
                    "size are lost on the way: let the publisher offer reliable or send less"
                ),
            )
        elif pipeline.no_stamps is not None:
            level, text = WARN, pipeline.no_stamps
        elif worker.inbox_dropped:
            level, text = WARN, "messages were dropped because the inbox was full"
        elif worker.inbox_late:
            level, text = WARN, "messages were dropped because more come than can be decoded"
        values: dict[str, object] = {
            "topic": reception.topic,
            "type": reception.type_name,
            "reliability": "reliable" if reception.reliable else "best effort",
            "messages": reception.messages,
            "silence_s": f"{reception.silence_s:.1f}",
            "messages_per_s": f"{(reception.messages - self._last[0]) * per_s:.1f}",
            "megabytes_per_s": f"{(reception.bytes - self._last[1]) * per_s / 1e6:.3f}",
            "events": pipeline.events,
            "mega_events_per_s": f"{(pipeline.events - self._last[2]) * per_s / 1e6:.3f}",
            "inbox_messages": reception.inbox_items,
            "inbox_bytes": reception.inbox_bytes,
            "inbox_dropped": worker.inbox_dropped,
            "inbox_late": worker.inbox_late,
            "clock_offset_ms": _ms(pipeline.clock_offset_ns),
            "clock_jitter_ms": _ms(pipeline.clock_jitter_ns),
        }
        values |= {f"drop.{name}": count for name, count in sorted(drops.items())}
        values |= {f"gap.{cause}": count for cause, count in sorted(pipeline.gaps.items())}
        for code in sorted({*worker.errors, *pipeline.errors}):
            values[f"error.{code}"] = worker.errors.get(code, 0) + pipeline.errors.get(code, 0)
        return status(f"{self._name}: events", level, text, values)

    def _windows(self, worker: WorkerSnapshot, elapsed_s: float) -> DiagnosticStatus:
        pipeline = worker.pipeline
        rate = (pipeline.windows - self._last[3]) / elapsed_s if elapsed_s > 0.0 else 0.0
        values: dict[str, object] = {
            "windows": pipeline.windows,
            "windows_per_s": f"{rate:.1f}",
            "empty": pipeline.windows_empty,
            "skipped": pipeline.windows_skipped,
            "failed": pipeline.windows_failed,
            "silent": pipeline.windows_silent,
            "unreached": pipeline.unreached,
        }
        values |= {f"reset.{cause}": count for cause, count in sorted(pipeline.resets.items())}
        for stage, quantiles in worker.stages.items():
            values[f"{stage}_p50_ms"] = f"{quantiles.p50_ms:.3f}"
            values[f"{stage}_p95_ms"] = f"{quantiles.p95_ms:.3f}"
            values[f"{stage}_p99_ms"] = f"{quantiles.p99_ms:.3f}"
            values[f"{stage}_max_ms"] = f"{quantiles.max_ms:.3f}"
        if worker.collections is not None:
            values["collections"] = worker.collections.count
            values["collection_last_ms"] = f"{worker.collections.last_ms:.3f}"
            values["collection_max_ms"] = f"{worker.collections.longest_ms:.3f}"
        level, text = OK, f"{rate:.1f} windows/s"
        if pipeline.no_ends is not None:
            level, text = WARN, pipeline.no_ends
        return status(f"{self._name}: windows", level, text, values)

    def _network(self, network: NetworkIdentity) -> DiagnosticStatus:
        level, text = OK, network.kind
        if network.orientation == "unknown":
            level, text = (
                WARN,
                (
                    "nobody says whether the number grows with depth or with inverse depth; set "
                    "'orientation' (and 'scale' for metres)"
                ),
            )
        return status(
            f"{self._name}: network",
            level,
            text,
            {
                "weights": network.name,
                "sha256": network.digest,
                "weight_version": network.weight_version,
                "kind": network.kind,
                "orientation": network.orientation,
                "backend": network.backend.backend,
                "backend_reason": network.backend.reason,
            },
        )

    def _weights(self, network: NetworkIdentity, worker: WorkerSnapshot) -> DiagnosticStatus:
        level, text, last = OK, f"version {network.weight_version}", worker.last_verdict
        if last is not None and last.outcome in ("refused", "rolled_back"):
            level = WARN
            text = f"version {last.version} {last.outcome} [{last.code}]: {last.reason}"
        values: dict[str, object] = {"phase": network.phase, "malformed": network.malformed}
        values |= {f"verdict.{name}": count for name, count in sorted(worker.verdicts.items())}
        return status(f"{self._name}: weights", level, text, values)


def _ms(time_ns: int | None) -> str:
    return "unknown" if time_ns is None else f"{time_ns / 1e6:.3f}"
