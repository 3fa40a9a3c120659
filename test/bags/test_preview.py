"""Previews of a recorded depth node: the right halves meet, also out of order."""

from __future__ import annotations

import av
import numpy as np
import pytest

from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import RecordingError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.preview import PreviewWriter, preview_topics

HEIGHT, WIDTH = 200, 260
STEP_NS = 50_000_000


def record(path, depth_topic, *, frames):
    """Five windows; of the third, only the event image was recorded."""
    with BagWriter(path) as bag:
        for number in range(5):
            stamp_ns = (number + 1) * STEP_NS
            events = np.full((HEIGHT, WIDTH, 3), 50 * number, np.uint8)
            depth = np.full((HEIGHT, WIDTH), 1.0 + number, np.float32)
            pair = [("/cam/events/image", write_image(events, stamp_ns, "cam"))]
            if number != 2:
                pair.append((depth_topic, write_image(depth, stamp_ns, "cam")))
            if number % 2:
                pair.reverse()
            if frames:
                grey = np.full((HEIGHT, WIDTH), 200, np.uint8)
                pair.insert(0, ("/cam/image_raw", write_image(grey, stamp_ns, "cam")))
            for late, (topic, data) in enumerate(pair):
                bag.write(topic, IMAGE, stamp_ns + late, data)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("kind", ["image", "relative"])
def test_a_recorded_node_gives_a_preview(tmp_path, kind, frames):
    """Each depth image is shown beside the event image of its stamp; frames get a panel."""
    record(tmp_path / "bag", f"/cam/depth/{kind}", frames=frames)
    with open_recording(tmp_path / "bag") as recording:
        assert preview_topics(recording, tmp_path, DepthParameters()) == (4, {})
    with av.open(str(tmp_path / "preview.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    levels = [int(picture[150, 100, 0]) for picture in pictures]
    assert np.abs(np.array(levels) - [0, 50, 150, 200]).max() < 10
    panels = 3 if frames else 2
    # Panels, the gaps between them, and a legend of 84 px behind its own gap.
    width = panels * (WIDTH + 4) + 84
    assert pictures[0].shape[1] == width + width % 2
    if frames:
        assert abs(int(pictures[0][150, WIDTH + 4 + 100, 0]) - 200) < 10
    assert (tmp_path / "contact_sheet.png").exists()


@pytest.mark.parametrize(("kind", "legends"), [("image", 1), ("relative", 2)])
def test_ground_truth_stands_beside_depth_in_the_same_colours(tmp_path, kind, legends):
    """Metres and truth share one legend and its colours; a number without a scale has its own."""
    record(tmp_path / "bag", f"/cam/depth/{kind}", frames=False)
    with BagWriter(tmp_path / "truth") as bag:
        truth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
        bag.write("/lidar/depth", IMAGE, STEP_NS, write_image(truth, STEP_NS, "lidar"))
    both = [tmp_path / "bag", tmp_path / "truth"]
    with open_recording(both) as recording:
        assert preview_topics(recording, tmp_path, DepthParameters(), "/lidar/depth") == (4, {})
    with av.open(str(tmp_path / "preview.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    # Events, depth, [its legend,] truth, legend, and gaps of 4 px.
    width = 3 * (WIDTH + 4) + legends * (84 + 4) - 4
    assert pictures[0].shape[1] == width + width % 2
    depth_column = WIDTH + 4 + WIDTH // 2
    truth_column = depth_column + WIDTH + 4 + (84 + 4 if legends == 2 else 0)
    depth_pixels = [picture[150, depth_column].astype(int) for picture in pictures]
    truth_pixels = [picture[150, truth_column].astype(int) for picture in pictures]
    # The last map says 5 m, as the truth does, and the first 1 m.
    same = [int(np.abs(d - t).max()) for d, t in zip(depth_pixels, truth_pixels, strict=True)]
    assert (same[-1] < 12) == (kind == "image")
    assert same[0] > 30


def test_frame_and_truth_are_those_of_the_stamp_however_late_depth_comes(tmp_path):
    """Depth recorded after every frame stands beside the frame and the truth of its time."""
    stamps = [(number + 1) * STEP_NS for number in range(4)]
    with BagWriter(tmp_path / "bag") as bag:
        for number, stamp_ns in enumerate(stamps):
            grey = np.full((HEIGHT, WIDTH), 40 + 50 * number, np.uint8)
            exact = np.full((HEIGHT, WIDTH), 1.0 + number, np.float32)
            bag.write("/image_raw", IMAGE, stamp_ns, write_image(grey, stamp_ns, "cam"))
            bag.write("/truth", IMAGE, stamp_ns, write_image(exact, stamp_ns, "cam"))
        for number, stamp_ns in enumerate(stamps):
            late_ns = stamps[-1] + stamp_ns
            events = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            depth = np.full((HEIGHT, WIDTH), 1.0 + number, np.float32)
            bag.write("/events/image", IMAGE, late_ns, write_image(events, stamp_ns, "cam"))
            bag.write("/depth/image", IMAGE, late_ns, write_image(depth, stamp_ns, "cam"))
    with open_recording(tmp_path / "bag") as recording:
        assert preview_topics(recording, tmp_path, DepthParameters(), "/truth") == (4, {})
    with av.open(str(tmp_path / "preview.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    panel = WIDTH + 4
    levels = [picture[150, panel + 100, 0] for picture in pictures]
    assert np.abs(np.array(levels) - [40, 90, 140, 190]).max() < 10
    for picture in pictures:
        depth_rgb, truth_rgb = picture[150, 2 * panel + 100], picture[150, 3 * panel + 100]
        assert np.abs(depth_rgb - truth_rgb).max() < 12


def test_pictures_that_cannot_be_read_are_counted_and_passed_over(tmp_path):
    """A frame, a depth image and a truth of an encoding that none has cost no other picture."""
    with BagWriter(tmp_path / "bag") as bag:
        for number in range(6):
            stamp_ns = (number + 1) * STEP_NS
            pictures = {
                "/events/image": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
                "/depth/image": np.ones((HEIGHT, WIDTH), np.float32),
                "/image_raw": np.zeros((HEIGHT, WIDTH), np.uint8),
                "/truth": np.ones((HEIGHT, WIDTH), np.float32),
            }
            for topic, picture in pictures.items():
                data = write_image(picture, stamp_ns, "cam")
                if (number, topic) in ((1, "/image_raw"), (2, "/depth/image")):
                    data = data.replace(b"mono8", b"mon12").replace(b"32FC1", b"32FC9")
                if (number, topic) in ((3, "/truth"), (4, "/events/image")):
                    data = data[:10]
                bag.write(topic, IMAGE, stamp_ns, data)
    with open_recording(tmp_path / "bag") as recording:
        counted = preview_topics(recording, tmp_path, DepthParameters(), "/truth")
    assert counted == (4, {"recording": 4})
    with av.open(str(tmp_path / "preview.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4


def test_a_recording_without_depth_is_refused(tmp_path):
    """The error names the topics that are missing and those that are there."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/other", IMAGE, 1, write_image(np.zeros((4, 4), np.uint8), 1, ""))
    with (
        open_recording(tmp_path / "bag") as recording,
        pytest.raises(RecordingError, match=r"events/image and depth/image.*/other"),
    ):
        preview_topics(recording, tmp_path, DepthParameters())


@pytest.mark.parametrize("shape", [(26, 34), (260, 346), (720, 1280)])
def test_any_sensor_gives_a_picture_of_useful_size(tmp_path, shape):
    """Small sensors are enlarged by whole numbers, large ones reduced, invalid depth is shown."""
    depth = np.full(shape, np.nan, np.float32)
    with PreviewWriter(tmp_path, DepthParameters(), with_frames=True) as writer:
        writer.add(0, np.zeros((*shape, 3), np.uint8), depth, kind="metric", orientation="depth")
    with av.open(str(tmp_path / "preview.mp4")) as video:
        height, width = video.streams.video[0].height, video.streams.video[0].width
    assert 192 <= height - 20 <= 480
    assert width < 4 * 480 * shape[1] / shape[0]


@pytest.mark.parametrize(
    ("near_m", "far_m", "better_m"),
    [(2.0, 4.0, (1.6, 5.0)), (1.0, 15.0, None)],
)
def test_depth_that_uses_few_colours_is_told_which_show_more(tmp_path, near_m, far_m, better_m):
    """Of 0.5 to 20 m, 2 to 4 m use a fifth; with 1 to 15 m there is nothing to tell."""
    depth = np.full((40, 60), near_m, np.float32)
    depth[20:] = far_m
    depth[:4] = np.nan
    events = np.zeros((40, 60, 3), np.uint8)
    with PreviewWriter(tmp_path, DepthParameters(), with_frames=False) as writer:
        assert writer.better_range_m is None
        writer.add(0, events, depth, kind="metric", orientation="depth")
        assert writer.better_range_m == (None if better_m is None else pytest.approx(better_m))
        writer.add(1, events, depth, kind="relative", orientation="unknown")
        assert writer.better_range_m == (None if better_m is None else pytest.approx(better_m))
