"""Preview files: playable, with the right pictures at the right times, the same every time."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from dae_ros.bags.video import ContactSheet, VideoWriter
from dae_ros.errors import RecordingError

MS = 1_000_000


def picture(level, height=61, width=93):
    """A picture of one colour with a bright left half."""
    image = np.full((height, width, 3), (level, 40, 255 - level), np.uint8)
    image[:, : width // 2] = (20, level, 90)
    return image


def write(path):
    """Six pictures 50 ms apart, and one that comes too soon."""
    with VideoWriter(path, 61, 93) as video:
        for number in range(6):
            video.write(picture(40 * number), 7 * MS + number * 50 * MS)
            video.write(picture(255), 7 * MS + number * 50 * MS + 3 * MS)


def test_the_video_plays_in_a_browser(tmp_path):
    """It is H.264 in yuv420p of even size with the index in front, and shows the pictures."""
    write(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (62, 94)
        frames = list(container.decode(stream))
    assert [round(float(frame.time) * 1000) for frame in frames] == [0, 50, 100, 150, 200, 250]
    for number, frame in enumerate(frames):
        shown = frame.to_ndarray(format="rgb24").astype(int)
        level = 40 * number
        for column, colour in ((20, (20, level, 90)), (70, (level, 40, 255 - level))):
            # Limited range and compression cost a few levels.
            assert np.abs(shown[30, column] - colour).max() < 14


def test_the_same_pictures_give_the_same_file(tmp_path):
    """Two videos of the same pictures are equal, byte for byte."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(8, 228, 700, 3))
    pictures = (np.cumsum(np.cumsum(noise, 1), 2) * 2).astype(np.uint8)
    found = set()
    blocks = []
    for number in range(8):
        path = tmp_path / f"{number}.mp4"
        # Other places and contents of memory, which an encoder must not see.
        blocks.append([random.bytes(1_000_000) for _ in range(number)])
        with VideoWriter(path, 228, 700) as video:
            for index, image in enumerate(pictures):
                video.write(image, index * 50 * MS)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_a_video_is_whole_or_not_there(tmp_path):
    """Without pictures no file is left, and a bad place is an error with the path."""
    with VideoWriter(tmp_path / "a.mp4", 10, 10):
        assert not (tmp_path / "a.mp4").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RecordingError, match="cannot be written"):
        VideoWriter(tmp_path / "missing" / "a.mp4", 10, 10)


@pytest.mark.parametrize("count", [1, 5, 12, 13, 100])
def test_a_contact_sheet_spreads_over_the_whole_run(tmp_path, count):
    """Its tiles are evenly spaced pictures of the run, in order, from the first one on."""
    sheet = ContactSheet()
    for number in range(count):
        sheet.add(np.full((10, 20, 3), (number, 200, 0), np.uint8))
    sheet.save(tmp_path / "sheet.png")
    image = cv2.imread(str(tmp_path / "sheet.png"))
    tiles = [
        image[8 + 5 + row * 18, 8 + 10 + column * 28].tolist()
        for row in range((image.shape[0] - 8) // 18)
        for column in range(2)
    ]
    shown = [red for _, green, red in tiles if green == 200]
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    assert shown == list(range(0, count, step))
    assert min(count, 6) <= len(shown) <= 12
