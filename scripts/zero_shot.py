"""What weights make of real recordings that they were not trained on: a picture for the eye.

    python -m scripts.zero_shot micro

Writes docs/images/zero_shot_<name>.png: moments of each recording as events | camera frame |
depth, with one legend in metres. Recordings are looked for in $DAE_ROS_RECORDINGS, by default
../shared/recordings beside the repository.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.recording import open_recording
from dae_ros.bags.topics import choose_events_topic, choose_image_topic
from dae_ros.errors import ConfigurationError, DaeError
from dae_ros.evaluation.strips import write_png
from dae_ros.parameters import DepthParameters
from dae_ros.representation.render import (
    METRES,
    Picture,
    color_range,
    depth_color,
    events_image,
    grey_panel,
    legend,
    side_by_side,
    titled,
)
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.preview import fit

ROOT = Path(__file__).resolve().parent.parent
ROWS_PX = 200
# Recording -> moments of it to show.
RECORDINGS = {
    "libcaer_cmp_davis346": 3,
    "davis346_lab/davis.aedat4": 1,
    "evt3_640x480": 3,
}
Moment = tuple[DepthFrame, "NDArray[np.uint8] | None"]


def main(arguments: list[str] | None = None) -> int:
    """Write the picture; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="name or file; metric ones that take events")
    parser.add_argument("--out", type=Path, help="the picture")
    options = parser.parse_args(arguments)
    default = ROOT.parent / "shared" / "recordings"
    folder = Path(os.environ.get("DAE_ROS_RECORDINGS", default))
    name = Path(options.weights).stem
    out = options.out or ROOT / "docs" / "images" / f"zero_shot_{name}.png"
    try:
        rows = [
            row(path, moments(folder / path, options.weights), count)
            for path, count in RECORDINGS.items()
        ]
    except DaeError as error:
        print(error, file=sys.stderr)
        return 1
    width = max(picture.shape[1] for picture in rows)
    padded = [
        np.pad(picture, ((0, 8), (0, width - picture.shape[1]), (0, 0)), constant_values=24)
        for picture in rows
    ]
    write_png(out, np.concatenate(padded))
    print(out)
    return 0


def moments(path: Path, weights: str) -> list[Moment]:
    """Run a recording; return every window with the newest camera frame.

    Raises:
        ConfigurationError: weights whose number is not metres.
        DaeError: the recording or the weights cannot be read.
    """
    parameters = DepthParameters(weights=weights, overload="queue")
    pipeline = DepthPipeline(parameters, create_estimator(parameters))
    if pipeline.kind != "metric":
        raise ConfigurationError(f"{weights} gives no metres, so that the legend means nothing")
    camera: NDArray[np.uint8] | None = None
    found: list[Moment] = []
    with open_recording(path) as recording:
        events = choose_events_topic(recording.topics, None)
        frames = choose_image_topic(recording.topics, events)
        for message in recording.messages([topic for topic in (events, frames) if topic]):
            if message.topic == events:
                pipeline.feed(recording.read_packet(message))
            else:
                camera = recording.read_frame(message).image
            while (window := pipeline.step()) is not None:
                found.append((window, camera))
    return found


def row(path: str, found: list[Moment], count: int) -> Picture:
    """Return moments of one recording side by side; the last window is the last moment."""
    chosen = [found[round(i)] for i in np.linspace(0, len(found) - 1, count + 1)[1:]]
    near, far = color_range(np.stack([window.depth for window, _ in chosen]), METRES)
    panels = []
    first_ns = found[0][0].stamp_ns
    for window, camera in chosen:
        time_s = (window.stamp_ns - first_ns) / 1e9
        height, width = window.depth.shape
        words = f"{Path(path).parts[0]}, {time_s:.2f} s"
        panels.append(titled(fit(events_image(window.image), ROWS_PX), words))
        if camera is not None:
            panels.append(titled(fit(grey_panel(camera), ROWS_PX), "camera frame"))
        coloured = fit(depth_color(window.depth, near, far, METRES), ROWS_PX)
        panels.append(titled(coloured, f"depth, {width}x{height} px"))
    panels.append(titled(legend(ROWS_PX, near, far, "m (guess)", METRES), ""))
    return side_by_side(panels)


if __name__ == "__main__":
    sys.exit(main())
