"""The calibration that a depth node is given, and what is wrong with it or missing."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from dae_ros.bags.message_types import CAMERA_INFO
from dae_ros.bags.messages import CameraInfo, read_camera_info
from dae_ros.errors import RecordingError
from dae_ros.nodes.diagnostics import OK, WARN, status
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.rate_report import Patience

WITHOUT = (
    "depth images need none, and depth/camera_info goes with them all zero (uncalibrated), of "
    "which nobody can make a point cloud; for more, remap 'camera_info', or set 'calibration' to "
    "the camera's file"
)


class CalibrationFile:
    """A calibration that the user gave; takes the place of the subscription.

    Args:
        path: of the file, for the status.
        camera: what it holds.
    """

    def __init__(self, path: str, camera: CameraInfo) -> None:
        self._path = path
        self._camera = camera

    def take(self) -> None:
        """Do nothing: it was read whole when the node was configured."""

    def look(self, _: float) -> None:
        """Do nothing, for the same reason."""

    def status(self, misfit: str | None) -> DiagnosticStatus:
        """Return the status `calibration`.

        Args:
            misfit: why the calibration cannot be of the event camera, None where it can.
        """
        size = _size(self._camera)
        return status(
            "calibration",
            OK if misfit is None else WARN,
            misfit or size,
            {"file": self._path, "size": size},
        )

    def destroy(self) -> None:
        """Do nothing: there is no subscription."""


class CalibrationInput:
    """The subscription `camera_info`.

    No calibration is no error, because depth is made without one. One that is published and
    cannot be used is.

    Args:
        node: that subscribes.
        received: called with each calibration, on a thread of its own, or by `take`.
        failed: see `MatchedSubscription`.
    """

    def __init__(
        self,
        node: Node,
        received: Callable[[CameraInfo], None],
        failed: Callable[[str], None],
    ) -> None:
        self._node = node
        self._hand_over = received
        self._camera: CameraInfo | None = None
        self._unreadable: str | None = None
        self._missing, self._wrong = Patience(), Patience()
        self._subscription = MatchedSubscription(
            node, "camera_info", [CAMERA_INFO], self._received, raw=True, failed=failed, depth=1
        )

    def take(self) -> None:
        """Receive a calibration that has come and that nobody has looked at yet.

        Events may be faster to the first depth than a calibration, which came before them, to the
        thread that takes it.
        """
        if self._camera is None:
            self._subscription.take()

    def look(self, now_s: float) -> None:
        """Look at the graph, and log once what stands in the way.

        Args:
            now_s: wall time, monotonic.
        """
        self._subscription.refresh()
        logger = self._node.get_logger()
        missing = self._missing.wait(self._missing_sentence(), now_s)
        if missing is not None:
            logger.info(missing)
        wrong = self._wrong.wait(self._wrong_sentence(), now_s)
        if wrong is not None:
            logger.warning(wrong)

    def status(self, misfit: str | None) -> DiagnosticStatus:
        """Return the status `calibration`.

        Args:
            misfit: why the calibration cannot be of the event camera, None where it can.
        """
        camera = self._camera
        wrong = self._wrong_sentence() or misfit
        size = "none" if camera is None else _size(camera)
        return status(
            "calibration",
            OK if wrong is None else WARN,
            wrong or self._missing_sentence() or size,
            {
                "topic": self._subscription.name,
                "type": self._subscription.type_name,
                "size": size,
            },
        )

    def destroy(self) -> None:
        """Unsubscribe."""
        self._subscription.destroy()

    def _missing_sentence(self) -> str | None:
        if self._camera is not None:
            # It holds, also where its publisher has gone.
            return None
        if self._subscription.absent:
            return f"no calibration; {WITHOUT} ({self._subscription.problem})"
        if self._subscription.problem is None and self._unreadable is None:
            return f"no message on '{self._subscription.name}' yet: {WITHOUT}"
        return None

    def _wrong_sentence(self) -> str | None:
        problem = None if self._subscription.absent else self._subscription.problem
        return problem or self._unreadable

    def _received(self, data: bytes, _: str) -> None:
        try:
            self._camera = read_camera_info(data)
        except RecordingError as error:
            self._unreadable = (
                f"a calibration on '{self._subscription.name}' was dropped: {error}; see what "
                f"{', '.join(self._subscription.publishers)} publishes there"
            )
            return
        self._unreadable = None
        self._hand_over(self._camera)


def _size(camera: CameraInfo) -> str:
    return f"{camera.width}x{camera.height} px"
