"""Recordings of the simulator in foreign layouts: read byte by byte, and by this package."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import struct
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # noqa: F401  (the filter of the events)
import numpy as np
import pytest
import yaml
from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_typestore

from dae_ros.bags.dsec_writer import DsecWriter
from dae_ros.bags.mvsec_writer import MvsecWriter, quaternion
from dae_ros.bags.raw_writer import RawWriter
from dae_ros.bags.recording import open_recording
from dae_ros.bags.simulated import SimulationWriter
from dae_ros.errors import ConfigurationError, RecordingError, reason_of
from dae_ros.events.cdr import read_packet
from dae_ros.events.codecs import create_decoder
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.presets import preset
from dae_ros.simulation.simulation import START_NS, DepthTruth, Item, Simulation
from dae_ros.simulation.worlds import create_world
from test.reference.evt3_words import Evt3Words
from test.reference.full_disk import no_room_beyond

HEIGHT, WIDTH = 48, 64
ABSOLUTE = preset("street_day", height=HEIGHT, width=WIDTH, duration_s=0.2, encoding="dvs_msgs")
WORLD = create_world(ABSOLUTE)
CAMERA = WORLD.camera
ROS1 = get_typestore(Stores.ROS1_NOETIC)


@dataclasses.dataclass
class Run:
    """A simulation and what it yields."""

    simulation: Simulation
    items: list[Item]

    @property
    def events(self) -> list[tuple[int, int, int, int]]:
        everything = Events.concatenate([item for item in self.items if isinstance(item, Events)])
        columns = (everything.t, everything.x, everything.y, everything.p)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def of(self, kind: type) -> list:
        return [item for item in self.items if isinstance(item, kind)]

    def into(self, writer: SimulationWriter) -> None:
        for item in self.items:
            writer.write(item)
        writer.close()


def simulate(parameters: SimulatorParameters) -> Run:
    simulation = Simulation(parameters, WORLD)
    return Run(simulation, list(simulation.items()))


@pytest.fixture(scope="module")
def run() -> Run:
    return simulate(ABSOLUTE)


def matrix_of(x: float, y: float, z: float, w: float) -> np.ndarray:
    """The rotation that q v q* is, for the three unit vectors."""
    u = np.array([x, y, z])
    return np.stack(
        [2 * (u @ v) * u + (w * w - u @ u) * v + 2 * w * np.cross(u, v) for v in np.eye(3)], axis=1
    )


def test_mvsec_bags_hold_every_message(run: Run, tmp_path: Path) -> None:
    """Both bags, read message by message, hold the run: events, frames, depth, poses."""
    run.into(MvsecWriter(tmp_path / "drive", run.simulation))
    events, frames, depths, poses, counters = [], [], [], [], []
    for name in ("drive_data.bag", "drive_gt.bag"):
        with Reader(tmp_path / name) as reader:
            types = {c.topic: c.msgtype for c in reader.connections}
            for connection, time_ns, data in reader.messages():
                if connection.topic == "/davis/left/events":
                    seq, seconds, nanoseconds, size = struct.unpack_from("<IIII", data)
                    counters.append(seq)
                    at = 16 + size
                    assert struct.unpack_from("<II", data, at) == (HEIGHT, WIDTH)
                    (count,) = struct.unpack_from("<I", data, at + 8)
                    records = struct.iter_unpack("<HHIIB", data[at + 12 :])
                    found = [(s * 10**9 + n, x, y, p) for x, y, s, n, p in records]
                    assert len(found) == count
                    assert time_ns == seconds * 10**9 + nanoseconds == found[0][0]
                    events += found
                    continue
                message = ROS1.deserialize_ros1(data, connection.msgtype)
                stamp = message.header.stamp
                assert time_ns == stamp.sec * 10**9 + stamp.nanosec
                if connection.topic == "/davis/left/image_raw":
                    assert message.encoding == "mono8"
                    frames.append((time_ns, message.data.reshape(HEIGHT, WIDTH)))
                elif connection.topic == "/davis/left/depth_image_raw":
                    assert message.encoding == "32FC1"
                    depths.append((time_ns, message.data.view(np.float32).reshape(HEIGHT, WIDTH)))
                elif connection.topic == "/davis/left/pose":
                    poses.append((time_ns, message.pose))
                else:
                    assert message.K.tolist() == CAMERA.matrix().ravel().tolist()
            assert types["/davis/left/events" if "data" in name else "/davis/left/pose"] in (
                "dvs_msgs/msg/EventArray",
                "geometry_msgs/msg/PoseStamped",
            )
    assert events == run.events
    assert counters == list(range(len(counters)))
    for found, expected in ((frames, run.of(Frame)), (depths, run.of(DepthTruth))):
        assert [time_ns for time_ns, _ in found] == [item.stamp_ns for item in expected]
        for (_, image), item in zip(found, expected, strict=True):
            whole = item.image if isinstance(item, Frame) else item.depth
            np.testing.assert_array_equal(image, whole)
    for (_, pose), truth in zip(poses, run.of(DepthTruth), strict=True):
        turn = pose.orientation
        found = matrix_of(turn.x, turn.y, turn.z, turn.w)
        np.testing.assert_allclose(found, truth.pose.rotation, atol=1e-12)
        np.testing.assert_array_equal(
            [pose.position.x, pose.position.y, pose.position.z], truth.pose.position
        )


def test_quaternions_of_all_kinds_of_turns() -> None:
    """Quarter and half turns about every axis, and random ones, are what they should be."""
    vectors = [angle * axis for axis in np.eye(3) for angle in (0.0, np.pi / 2, np.pi, -np.pi / 2)]
    vectors += list(np.random.default_rng(1).uniform(-2.0, 2.0, (20, 3)))
    for vector in vectors:
        turn, _ = cv2.Rodrigues(vector)
        found = quaternion(turn)
        assert np.linalg.norm(found) == pytest.approx(1.0)
        assert found[3] >= 0.0
        np.testing.assert_allclose(matrix_of(*found), turn, atol=1e-9)


def test_mvsec_bags_are_read_back(run: Run, tmp_path: Path) -> None:
    """This package reads the pair of bags as one recording, to the nanosecond."""
    run.into(MvsecWriter(tmp_path / "drive", run.simulation))
    with open_recording([tmp_path / "drive_data.bag", tmp_path / "drive_gt.bag"]) as recording:
        decoder = create_decoder("event_array_ros1", WIDTH, HEIGHT)
        parts = [decoder.decode(p.payload, p.time_base_ns) for p in recording.event_packets()]
        everything = Events.concatenate(parts)
        assert recording.topics["/davis/left/depth_image_raw"].count == 5
    assert everything.t.tolist() == [t for t, *_ in run.events]


def test_dsec_files_are_those_of_the_layout(run: Run, tmp_path: Path) -> None:
    """Read by h5py and OpenCV alone, the folder holds events, index, disparity and frames."""
    path = tmp_path / "drive"
    run.into(DsecWriter(path, run.simulation))
    offset_us = START_NS // 1000
    with h5py.File(path / "events/left/events.h5") as file:
        columns = [file[f"events/{name}"][()] for name in "txyp"]
        assert [c.dtype.name for c in columns] == ["uint32", "uint16", "uint16", "uint8"]
        assert file["t_offset"][()] == offset_us
        index = file["ms_to_idx"][()].tolist()
    t_us = columns[0].astype(np.int64)
    found = zip(*(c.tolist() for c in ((t_us + offset_us) * 1000, *columns[1:])), strict=True)
    assert list(found) == run.events
    # The published definition, ms by ms.
    assert len(index) == t_us[-1] // 1000 + 1
    for ms, at in enumerate(index):
        assert t_us[at] >= 1000 * ms
        assert at == 0 or t_us[at - 1] < 1000 * ms
    with h5py.File(path / "events/left/rectify_map.h5") as file:
        assert file["rectify_map"][7, 11].tolist() == [11.0, 7.0]
    calibration = yaml.safe_load((path / "calibration/cam_to_cam.yaml").read_text())
    q = calibration["disparity_to_depth"]["cams_03"]
    stamps = [int(line) for line in (path / "disparity/timestamps.txt").read_text().split()]
    truths = run.of(DepthTruth)
    assert stamps == [truth.stamp_ns // 1000 for truth in truths]
    for number, truth in enumerate(truths):
        image = cv2.imread(str(path / f"disparity/event/{2 * number:06d}.png"), cv2.IMREAD_ANYDEPTH)
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image == 0, np.isnan(truth.depth))
        disparity = image / 256.0
        # OpenCV's reprojection, Z / W, at every pixel.
        with np.errstate(divide="ignore"):
            depth = q[2][3] / (q[3][2] * disparity)
        known = image > 0
        exact = q[2][3] / q[3][2] / truth.depth[known].astype(float)
        assert np.abs(disparity[known] - exact).max() <= 0.5 / 256 + 1e-9
        np.testing.assert_allclose(depth[known], truth.depth[known], rtol=0.02)
    exposures = (path / "images/left/exposure_timestamps.txt").read_text().splitlines()[1:]
    for number, frame in enumerate(run.of(Frame)):
        image = cv2.imread(str(path / f"images/left/ev_inf/{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, frame.image)
        start, end = (int(v) for v in exposures[number].split(","))
        assert 1000 * (end - start) == frame.exposure_ns
        assert (start + end) // 2 * 1000 == pytest.approx(frame.stamp_ns, abs=1000)


def test_what_is_too_near_for_sixteen_bits_has_no_disparity(run: Run, tmp_path: Path) -> None:
    """Disparity above 65535 / 256 px is unknown instead of wrapped around."""
    nearest = CAMERA.fx * 0.6 / 256
    truth = run.of(DepthTruth)[0]
    depth = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    depth[0, :3] = (0.9 * nearest, 1.1 * nearest, 1e-6)
    writer = DsecWriter(tmp_path / "near", run.simulation)
    writer.write(dataclasses.replace(truth, depth=depth))
    writer.close()
    image = cv2.imread(str(tmp_path / "near/disparity/event/000000.png"), cv2.IMREAD_ANYDEPTH)
    assert image[0, :4].tolist() == [0, round(65536 / 1.1), 0, 0]


def test_dsec_folders_are_read_back(run: Run, tmp_path: Path) -> None:
    """This package reads the folder as a recording with events, frames, depth, calibration."""
    path = tmp_path / "drive"
    run.into(DsecWriter(path, run.simulation))
    with open_recording(path, size=(HEIGHT, WIDTH)) as recording:
        counts = {name: info.count for name, info in recording.topics.items()}
        events = []
        for message in recording.messages(["/dsec/left_rect/events"]):
            packet = read_packet(message.type, message.data)
            decoded = create_decoder(packet.encoding, WIDTH, HEIGHT).decode(
                packet.payload, packet.time_base_ns
            )
            events += zip(
                decoded.t.tolist(),
                decoded.x.tolist(),
                decoded.y.tolist(),
                decoded.p.tolist(),
                strict=True,
            )
    assert events == run.events
    assert counts["/dsec/left_rect/depth_truth"] == 5
    assert counts["/dsec/left_rect/image_raw"] == len(run.of(Frame))


def test_raw_files_hold_the_events(tmp_path: Path) -> None:
    """A header of lines with %, then words that a plain decoder turns into the run's events."""
    run = simulate(dataclasses.replace(ABSOLUTE, encoding="evt3"))
    path = tmp_path / "drive.raw"
    run.into(RawWriter(path, run.simulation))
    header, _, words = path.read_bytes().partition(b"% end\n")
    lines = header.decode().splitlines()
    assert "% evt 3.0" in lines
    assert f"% format EVT3;height={HEIGHT};width={WIDTH}" in lines
    decoded = Evt3Words(WIDTH, HEIGHT).decode(words)
    assert [tuple(event) for event in itertools.chain(*decoded.segments)] == run.events
    with open_recording(path) as recording:
        decoder = create_decoder("evt3", WIDTH, HEIGHT)
        parts = [decoder.decode(p.payload, p.time_base_ns) for p in recording.event_packets()]
    assert Events.concatenate(parts).t.tolist() == [t for t, *_ in run.events]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MvsecWriter, "drive_gt.bag"),
        (DsecWriter, "drive"),
        (RawWriter, "drive"),
    ],
)
def test_nothing_is_overwritten_and_nothing_half_has_the_name(
    run: Run, tmp_path: Path, kind: type, name: str
) -> None:
    """Until it is closed a recording is called .partial; one that exists is refused."""
    writer = kind(tmp_path / "drive", run.simulation)
    for item in run.items[:10]:
        writer.write(item)
    assert all(path.name.endswith(".partial") for path in tmp_path.iterdir())
    writer.close()
    assert (tmp_path / name).exists()
    with pytest.raises(RecordingError, match="exists already"):
        kind(tmp_path / "drive", run.simulation)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (MvsecWriter, {"drive_data.bag.partial", "drive_gt.bag.partial"}),
        (DsecWriter, {"drive.partial"}),
        (RawWriter, {"drive.partial"}),
    ],
)
def test_a_full_disk_leaves_nothing_with_the_name(
    run: Run, tmp_path: Path, kind: type, left: set[str]
) -> None:
    """What did not fit is called .partial still, also after it was closed."""

    def fill() -> None:
        with contextlib.closing(kind(tmp_path / "drive", run.simulation)) as writer:
            for item in 40 * run.items:
                writer.write(item)

    with no_room_beyond(30_000), pytest.raises(OSError, match="File too large") as caught:
        fill()
    assert reason_of(caught.value) == "File too large"
    assert {path.name for path in tmp_path.iterdir()} == left


def test_dsec_refuses_a_lens_with_distortion(tmp_path: Path) -> None:
    """Disparity belongs to a rectified camera."""
    camera = dataclasses.replace(CAMERA, distortion=(-0.2, 0.0, 0.0, 0.0, 0.0))
    bent = dataclasses.replace(WORLD, camera=camera)
    with pytest.raises(ConfigurationError, match="without distortion"):
        DsecWriter(tmp_path / "drive", Simulation(ABSOLUTE, bent))
    assert not any(tmp_path.iterdir())
