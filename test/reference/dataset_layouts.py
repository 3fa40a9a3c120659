"""Small sequences in the layouts of public data sets, and what is in them.

Written from the descriptions that docs/datasets.md cites, without anything of the package: HDF5 by
h5py, PNG and text byte by byte, arrays by numpy.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

Event = tuple[int, int, int, int]  # t in ns, x, y, p in {0, 1}


@dataclass
class Sequence:
    """What was written, in order of time; stamps in ns, NaN where depth is unknown."""

    path: Path
    height: int
    width: int
    events: list[Event] = field(default_factory=list)
    frames: list[tuple[int, np.ndarray]] = field(default_factory=list)
    depths: list[tuple[int, np.ndarray]] = field(default_factory=list)


def png_bytes(image: np.ndarray) -> bytes:
    """Encode uint8[H, W], uint16[H, W] or uint8[H, W, 3] (red first) as a PNG without filters."""
    depth, colour = (8 if image.dtype == np.uint8 else 16), (2 if image.ndim == 3 else 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in image)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], depth, colour, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data
        out += struct.pack(">I", zlib.crc32(kind + data))
    return out


def random_events(seed: int, count: int, start_us: int, stop_us: int, height: int, width: int):
    """Return events at whole microseconds, several of them at one instant."""
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(start_us, stop_us, count))
    times[count // 2 : count // 2 + 5] = times[count // 2 : count // 2 + 1]
    return [
        (int(t) * 1000, int(random.integers(width)), int(random.integers(height)),
         int(random.integers(2)))
        for t in times
    ]  # fmt: skip


def write_mvsec(folder: Path, name: str = "outdoor_day1", events: int = 3000) -> Sequence:
    """Write `<name>_data.hdf5` and `<name>_gt.hdf5`: 0.5 s, frames at 50 Hz, depth at 20 Hz."""
    height, width, begin_us = 26, 34, 1_504_645_177_424_563
    written = Sequence(folder, height, width)
    written.events = random_events(1, events, begin_us, begin_us + 500_000, height, width)
    random = np.random.default_rng(2)
    for k in range(24):
        stamp_us = begin_us + 1 + k * 20_000
        picture = random.integers(0, 256, (height, width)).astype(np.uint8)
        written.frames.append((stamp_us * 1000, picture))
    for k in range(9):
        depth = random.uniform(2, 80, (height, width)).astype(np.float32)
        depth[:4] = np.nan
        written.depths.append(((begin_us + 20_001 + k * 50_000) * 1000, depth))
    with h5py.File(folder / f"{name}_data.hdf5", "w") as file:
        left = file.create_group("davis/left")
        rows = [[x, y, t / 1e9, 1 if p else -1] for t, x, y, p in written.events]
        left["events"] = np.array(rows, np.float64)
        left["image_raw"] = np.stack([picture for _, picture in written.frames])
        left["image_raw_ts"] = np.array([t / 1e9 for t, _ in written.frames])
        left["image_raw_event_inds"] = np.zeros(len(written.frames), np.int64)
        left["imu"] = np.zeros((3, 6))
        # Right frames are missing outdoors.
        file["davis/right/events"] = np.array([[33, 25, begin_us / 1e6, 1.0]])
    with h5py.File(folder / f"{name}_gt.hdf5", "w") as file:
        left = file.create_group("davis/left")
        for kind in ("depth_image_raw", "depth_image_rect"):
            maps = np.stack([depth for _, depth in written.depths])
            left.create_dataset(kind, data=maps, compression="lzf", chunks=(1, height, width))
            left[f"{kind}_ts"] = np.array([t / 1e9 for t, _ in written.depths])
        left["odometry"] = np.zeros((2, 4, 4))
        left["blended_image_rect"] = np.zeros((9, height, width, 3), np.uint8)
        left["blended_image_rect_ts"] = np.zeros(9)
    return written


DSEC_OFFSET_US = 49_599_300_523
# Focal length 500 px, baseline 0.6 m: depth = 300 / disparity.
DSEC_CALIBRATION = """\
intrinsics:
  cam0:
    camera_model: pinhole
    camera_matrix: [55.5, 56.5, 31.5, 23.5]
    distortion_model: radtan
    distortion_coeffs: [-0.09, 0.19, -0.001, 0.002]
    resolution: [64, 48]
  camRect0:
    camera_matrix: [50.0, 51.0, 30.0, 20.0]
extrinsics:
  R_rect0:
  - [1.0, 0.0, 0.0]
  - [0.0, 0.0, -1.0]
  - [0.0, 1.0, 0.0]
disparity_to_depth:
  cams_03:
  - [1.0, 0.0, 0.0, -30.0]
  - [0.0, 1.0, 0.0, -20.0]
  - [0.0, 0.0, 0.0, 500.0]
  - [0.0, 0.0, 1.6666666666666667, 0.0]
"""


@dataclass
class DsecSequence(Sequence):
    """Also with the map and the disparity in steps of 1/256 px."""

    rectify_map: np.ndarray = field(default_factory=lambda: np.zeros(0))
    disparities: list[np.ndarray] = field(default_factory=list)


def write_dsec(path: Path, events: int = 6000) -> DsecSequence:
    """Write one sequence of 64x48 px: 0.55 s, disparity at 10 Hz from the beginning on."""
    height, width = 48, 64
    written = DsecSequence(path, height, width)
    first_us = DSEC_OFFSET_US + 30
    written.events = random_events(3, events, first_us, DSEC_OFFSET_US + 550_000, height, width)
    left = path / "events" / "left"
    left.mkdir(parents=True)
    t_us = np.array([t // 1000 - DSEC_OFFSET_US for t, *_ in written.events])
    with h5py.File(left / "events.h5", "w") as file:
        filters = hdf5plugin.Blosc(cname="zstd", clevel=5)
        columns = {
            "t": t_us.astype(np.uint32),
            "x": np.array([x for _, x, _, _ in written.events], np.uint16),
            "y": np.array([y for _, _, y, _ in written.events], np.uint16),
            "p": np.array([p for _, _, _, p in written.events], np.uint8),
        }
        for name, column in columns.items():
            file.create_dataset(f"events/{name}", data=column, chunks=(1024,), compression=filters)
        file["ms_to_idx"] = np.array([int((t_us < ms * 1000).sum()) for ms in range(551)], "u8")
        file["t_offset"] = np.int64(DSEC_OFFSET_US)
    # A shift by a part of a pixel, out of the frame on all sides but the right.
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    written.rectify_map = np.stack([columns - 1.4, rows + 0.7 * np.sign(rows - 20) - 0.6], axis=-1)
    with h5py.File(left / "rectify_map.h5", "w") as file:
        file["rectify_map"] = written.rectify_map.astype(np.float32)
    (path / "calibration").mkdir()
    (path / "calibration" / "cam_to_cam.yaml").write_text(DSEC_CALIBRATION)
    (path / "disparity" / "event").mkdir(parents=True)
    random = np.random.default_rng(4)
    stamps = []
    for k in range(6):
        stamp_us = DSEC_OFFSET_US + k * 100_000
        raw = random.integers(256, 40 * 256, (height, width)).astype(np.uint16)
        raw[:10] = 0
        (path / "disparity" / "event" / f"{2 * k:06d}.png").write_bytes(png_bytes(raw))
        written.disparities.append(raw)
        depth = np.array([[300 / (v / 256) if v else np.nan for v in row] for row in raw.tolist()])
        written.depths.append((stamp_us * 1000, depth.astype(np.float32)))
        stamps.append(f"{stamp_us}\n")
    (path / "disparity" / "timestamps.txt").write_text("".join(stamps))
    write_dsec_images(written)
    return written


def write_dsec_images(written: DsecSequence) -> None:
    """Add the colour camera's frames, 20 Hz, of another size."""
    folder = written.path / "images" / "left"
    (folder / "rectified").mkdir(parents=True)
    stamps, exposures = "", "# exposure_start_timestamp_us, exposure_end_timestamp_us\n"
    for k in range(11):
        stamp_us = DSEC_OFFSET_US + k * 50_000
        picture = np.full((12, 16, 3), 20 * k, np.uint8)
        written.frames.append((stamp_us * 1000, picture[:, :, 0]))
        (folder / "rectified" / f"{k:06d}.png").write_bytes(png_bytes(picture))
        stamps += f"{stamp_us}\n"
        exposures += f"{stamp_us - 2500}, {stamp_us + 2500}\n"
    (written.path / "images" / "timestamps.txt").write_text(stamps)
    (folder / "exposure_timestamps.txt").write_text(exposures)


def write_eventscape(path: Path, height: int = 24, width: int = 40) -> Sequence:
    """Write one sequence: 25 Hz, 0.4 s; the third file of events is empty, the fifth unsorted."""
    written = Sequence(path, height, width)
    random = np.random.default_rng(5)
    lines, bounds = "", ""
    for name in ("events", "rgb", "depth", "semantic"):
        (path / name / "data").mkdir(parents=True)
    for k in range(10):
        begin_us, end_us = 8_000_000 + 40_000 * k, 8_000_000 + 40_000 * (k + 1)
        events = random_events(10 + k, 0 if k == 2 else 400, begin_us, end_us, height, width)
        # Sorted again, events of one instant keep the order that the file has them in.
        stored = sorted(events, key=lambda event: (event[1], -event[0])) if k == 4 else events
        written.events += sorted(stored, key=lambda event: event[0])
        np.savez(
            path / "events" / "data" / f"01_012_{k:04d}_events.npz",
            x=np.array([e[1] for e in stored], np.uint16),
            y=np.array([e[2] for e in stored], np.uint16),
            t=np.array([e[0] // 1000 for e in stored], np.int64),
            p=np.array([e[3] for e in stored], np.uint8),
        )
        grey = random.integers(0, 256, (height, width)).astype(np.uint8)
        name = f"01_012_{k:04d}"
        colour = np.stack([grey] * 3, axis=-1)
        (path / "rgb" / "data" / f"{name}_image.png").write_bytes(png_bytes(colour))
        depth = random.uniform(3, 1000, (height, width)).astype(np.float32)
        np.save(path / "depth" / "data" / f"{name}_depth.npy", depth)
        written.frames.append((end_us * 1000, grey))
        written.depths.append((end_us * 1000, depth))
        lines += f"{k} {end_us / 1e6!r}\n"
        bounds += f"{k} {begin_us / 1e6!r} {end_us / 1e6!r}\n"
    for name in ("events", "rgb", "depth"):
        (path / name / "data" / "timestamps.txt").write_text(lines)
    (path / "events" / "data" / "boundary_timestamps.txt").write_text(bounds)
    return written


def write_voxel_folder(path: Path, grids: int = 6, depths: int | None = None) -> Sequence:
    """Write an E2Depth folder: 20 Hz; depth stamps 3 ms after those of the grids."""
    height, width, begin_us = 26, 34, 1_504_645_200_000_000
    written = Sequence(path, height, width)
    random = np.random.default_rng(6)
    for name in ("events/voxels", "depth/data", "rgb/davis_left_sync"):
        (path / name).mkdir(parents=True)
    text = {"events/voxels": "", "depth/data": "", "rgb/davis_left_sync": ""}
    for k in range(grids):
        grid = random.normal(0, 2, (5, height, width)).astype(np.float32)
        grid[random.random(grid.shape) < 0.5] = 0
        np.save(path / "events" / "voxels" / f"event_tensor_{k:010d}.npy", grid)
        text["events/voxels"] += f"{k} {(begin_us + 50_000 * k) / 1e6:.18e}\n"
    for k in range(grids if depths is None else depths):
        depth = random.uniform(2, 80, (height, width)).astype(np.float32)
        depth[:3], depth[3, 0], depth[3, 1] = np.nan, np.inf, 0
        stamp_us = begin_us + 50_000 * k + 3_000
        np.save(path / "depth" / "data" / f"depth_{k:010d}.npy", depth)
        text["depth/data"] += f"{k} {stamp_us / 1e6:.18e}\n"
        depth[3, :2] = np.nan
        written.depths.append((stamp_us * 1000, depth))
    for k in range(4 * grids):
        picture = random.integers(0, 256, (height, width)).astype(np.uint8)
        stamp_us = begin_us + 13_250 * (k + 1)
        written.frames.append((stamp_us * 1000, picture))
        file = path / "rgb" / "davis_left_sync" / f"frame_{k:010d}.png"
        file.write_bytes(png_bytes(picture))
        text["rgb/davis_left_sync"] += f"{k} {stamp_us / 1e6:.6f}\n"
    for name, lines in text.items():
        (path / name / "timestamps.txt").write_text(lines)
    return written


def events_between(events: list[Event], start_ns: int, end_ns: int) -> list[Event]:
    """Return the events of [start, end), one by one."""
    return [event for event in events if start_ns <= event[0] < end_ns]


def mono_rows(packets) -> list[Event]:
    """Decode `mono` packets record by record: time, column, row and polarity of 8 bytes each."""
    rows = []
    for packet in packets:
        for (word,) in struct.iter_unpack("<Q", bytes(packet.payload)):
            t = packet.time_base_ns + (word & 0xFFFFFFFF)
            rows.append((t, word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63))
    return rows


def until_error(iterator) -> tuple[list, Exception | None]:
    """Collect what an iterator yields and the error with which it ends."""
    read = []
    try:
        for item in iterator:
            read.append(item)  # noqa: PERF402  (extend would lose what came before the error)
    except Exception as error:  # noqa: BLE001  (the test looks at its type)
        return read, error
    return read, None
