"""The calibration of a bag run: where it comes from, and what goes with each depth image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dae_ros.bags.calibration import read_calibration, recorded_calibration
from dae_ros.bags.message_types import CAMERA_INFO
from dae_ros.bags.messages import CameraInfo
from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import choose_camera_info_topic, require_topic
from dae_ros.errors import RecordingError
from dae_ros.runtime.output_camera import fits, output_camera


class BagCalibration:
    """One calibration for the depth images of a recording, whatever sizes they have.

    Args:
        recording: opened.
        events: the topic whose camera is meant.
        file: see `read_calibration`; None for what was recorded.
        topic: of the recorded camera_info, None for the one beside the events.
        note: called with sentences that the user should read.

    Raises:
        RecordingError: a file that is no calibration, or a topic that is not there or is no
            camera_info.
    """

    def __init__(
        self,
        recording: Recording,
        events: str,
        file: Path | None,
        topic: str | None,
        note: Callable[[str], None],
    ) -> None:
        self._events = events
        self._note = note
        self._wanted = file is not None or topic is not None
        self._camera: CameraInfo | None = None
        # Whether it has fitted an image, and the (height, width) of those that it has not.
        self._has_fitted = False
        self._misfits: set[tuple[int, int]] = set()
        if file is not None:
            self._camera = read_calibration(file, events)
            return
        topics = recording.topics
        if topic is None:
            topic = choose_camera_info_topic(topics, events)
        else:
            require_topic(topics, topic, CAMERA_INFO)
        if topic is not None:
            self._camera = recorded_calibration(recording, topic, note)

    @property
    def complete(self) -> bool:
        """Whether there is a calibration, and no image was without."""
        return self._camera is not None and any(self._camera.k) and not self._misfits

    def of_image(self, height: int, width: int) -> CameraInfo:
        """Return the calibration of a depth image; zeros where there is none that can be its.

        Raises:
            RecordingError: the calibration that the user gave fits no image so far.
        """
        camera = self._camera
        if camera is None or fits(camera, height, width):
            self._has_fitted = True
        elif self._wanted and not self._has_fitted:
            raise RecordingError(
                f"the calibration is of a sensor of {camera.width}x{camera.height} px, but the "
                f"events come from {width}x{height} px; give the one that belongs to "
                f"{self._events}",
                height=height,
                width=width,
            )
        elif (height, width) not in self._misfits:
            self._misfits.add((height, width))
            self._note(
                f"the calibration is of {camera.width}x{camera.height} px and the events of "
                f"{width}x{height} px: the camera_info of such depth images is left uncalibrated"
            )
        return output_camera(camera, height, width)
