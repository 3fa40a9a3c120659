"""Frames and events become clips: cut where the frame was exposed, whole, or not at all."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from dae_ros.distillation.clip_codes import code_of_tencode
from dae_ros.distillation.online.observation import Observation, Refusal
from dae_ros.distillation.online.pairing import Pairing
from dae_ros.errors import ConfigurationError, DistillationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.representation.tencode import tencode, tencode_voxel
from dae_ros.simulation.encoders import create_encoder
from test.reference.scrolling_wall import BASE_NS, MS, Wall, mono_packet

Item = EventPacket | Frame
Result = Observation | Refusal

WALL = Wall(duration_ms=700)
EVENTS = WALL.events()
PACKETS = list(WALL.packets())
# 4 windows of 50 ms.
SMALL = {"lead": 1, "burn_in": 1, "unroll": 2, "labels_per_clip": 2, "smallest_contrast": 10.0}
FRAMES = [WALL.frame(at_ms) for at_ms in range(25, 690, 25)]


def pairing(encoder: str = "tencode", **changes: object) -> Pairing:
    return Pairing(OnlineParameters.from_mapping({**SMALL, **changes}), encoder)


def in_order(frames: list[Frame], packets: list[EventPacket] = PACKETS) -> list[Item]:
    return sorted([*frames, *packets], key=lambda item: item.stamp_ns)


def feed(target: Pairing, item: Item) -> None:
    if isinstance(item, Frame):
        target.add_frame(item)
    else:
        target.feed(item)


def run(target: Pairing, items: list[Item], group: int = 1) -> list[Result]:
    results: list[Result] = []
    for begin in range(0, len(items), group):
        for item in items[begin : begin + group]:
            feed(target, item)
        while (result := target.step()) is not None:
            results.append(result)
    return results


def observations(results: list[Result]) -> list[Observation]:
    return [item for item in results if isinstance(item, Observation)]


def reasons(results: list[Result]) -> Counter[str]:
    return Counter(item.reason for item in results if isinstance(item, Refusal))


def same(first: Observation, second: Observation) -> bool:
    for item in dataclasses.fields(first):
        a, b = getattr(first, item.name), getattr(second, item.name)
        if not np.array_equal(a, b, equal_nan=item.name == "image_speed_px_s"):
            return False
    return True


@pytest.mark.parametrize("encoder", ["tencode", "tencode_voxel"])
def test_windows_are_those_cut_by_hand(encoder: str) -> None:
    """Every window of every clip equals the events of its 50 ms, encoded from all events."""
    encode = tencode if encoder == "tencode" else tencode_voxel
    found = observations(run(pairing(encoder), in_order(FRAMES)))
    assert len(found) > 15
    for clip in found:
        assert len(clip) == 4
        for index, end_ns in enumerate(clip.ends_ns):
            low, high = np.searchsorted(EVENTS.t, [end_ns - 50 * MS, end_ns])
            image = encode(EVENTS.slice(int(low), int(high)), WALL.height, WALL.width)
            np.testing.assert_array_equal(clip.windows[index], code_of_tencode(image))
            assert clip.event_counts[index] == high - low
        assert clip.event_rate_hz == pytest.approx(clip.event_counts.sum() / 0.2)
        assert clip.ends_ns[-1] == clip.end_ns
        assert clip.start_ns == clip.end_ns - 200 * MS


def test_a_clip_ends_at_the_frame_and_carries_those_before() -> None:
    """The last window ends at the newest frame; earlier ones have theirs if within 5 ms."""
    # Every 50 ms +- 4 ms, and every 50 ms + 25 ms, which belong to no window of the former.
    times_ms = sorted([*(250 + 50 * k + (4 if k % 2 else 0) for k in range(8)), 375, 425])
    frames = [WALL.frame(at_ms) for at_ms in times_ms]
    found = observations(run(pairing(), in_order(frames)))
    clip = next(item for item in found if item.end_ns == BASE_NS + 450 * MS)
    assert clip.has_frame.tolist() == [True, True, True, True]
    assert ((clip.frame_ns - BASE_NS) / MS).tolist() == [304, 350, 404, 450]
    for index, at_ms in enumerate([304, 350, 404, 450]):
        np.testing.assert_array_equal(clip.frames[index], WALL.frame(at_ms).image)
    assert clip.masks.all()
    clip = next(item for item in found if item.end_ns == BASE_NS + 425 * MS)
    assert clip.has_frame.tolist() == [False, False, True, True]
    assert not clip.frames[:2].any()
    assert not clip.masks[:2].any()
    assert clip.luminance == pytest.approx(WALL.frame(425).image.mean())
    with pytest.raises(ValueError, match="read-only"):
        clip.frames[0] = 1


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_two_topics_does_not_matter(seed: int) -> None:
    """Frames and packets each in order, mixed and grouped anyhow, give the same clips."""
    expected = observations(run(pairing(), in_order(FRAMES)))
    random = np.random.default_rng(seed)
    packets, frames = list(PACKETS), list(FRAMES)
    mixed: list[Item] = []
    # As a queue of DDS would: up to half a second apart.
    while packets or frames:
        early = bool(packets) and (
            not frames or packets[0].stamp_ns < frames[0].stamp_ns + random.integers(-500, 500) * MS
        )
        mixed.append(packets.pop(0) if early else frames.pop(0))
    assert mixed != in_order(FRAMES)
    found = observations(run(pairing(), mixed, group=int(random.integers(1, 40))))
    assert len(found) == len(expected)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_frame_waits_for_its_events() -> None:
    """Before the events have passed the middle of exposure there is no verdict; then at once."""
    target = pairing()
    run(target, list(PACKETS[:30]))
    target.add_frame(WALL.frame(305))
    assert target.step() is None
    target.feed(PACKETS[30])
    result = target.step()
    assert isinstance(result, Observation)
    assert result.end_ns == BASE_NS + 305 * MS


@pytest.mark.parametrize(("image_stamp", "stamp_ms"), [("start", 390), ("mid", 400), ("end", 410)])
@pytest.mark.parametrize("from_frame", [True, False])
def test_windows_end_at_the_middle_of_exposure(
    image_stamp: str, stamp_ms: int, from_frame: bool
) -> None:
    """With 20 ms of exposure a stamp at its start or end is moved by 10 ms."""
    frame = WALL.frame(400, stamp_ms, exposure_ms=20 if from_frame else 0)
    changes = {"image_stamp": image_stamp, "largest_blur_px": 100.0}
    if not from_frame:
        changes["exposure_s"] = 0.02
    found = observations(run(pairing(**changes), in_order([frame])))
    assert [clip.end_ns - BASE_NS for clip in found] == [400 * MS]


def test_sensor_time_is_converted() -> None:
    """For an encoding that counts from the camera's start clips are cut in its own time."""
    encoder = create_encoder("evt3", WALL.width, WALL.height)
    shifted = dataclasses.replace(EVENTS, t=EVENTS.t - BASE_NS + 5000 * MS)
    packets = []
    for seq, begin_ms in enumerate(range(0, 700, 10)):
        begin_ns = (5000 + begin_ms) * MS
        low, high = (int(i) for i in np.searchsorted(shifted.t, [begin_ns, begin_ns + 10 * MS]))
        payload, time_base_ns = encoder.encode(shifted.slice(low, high))
        stamp_ns = int(EVENTS.t[low])
        packets.append(
            EventPacket("evt3", WALL.height, WALL.width, payload, time_base_ns, stamp_ns, seq)
        )
    found = observations(run(pairing(), in_order([WALL.frame(400)], packets)))
    assert len(found) == 1
    assert abs(found[0].end_ns - 5400 * MS) < 20_000
    low, high = np.searchsorted(shifted.t, [found[0].end_ns - 50 * MS, found[0].end_ns])
    image = tencode(shifted.slice(int(low), int(high)), WALL.height, WALL.width)
    np.testing.assert_array_equal(found[0].windows[-1], code_of_tencode(image))


def test_no_clip_reaches_over_a_lost_packet() -> None:
    """After a loss the next clip begins where events go on; before it nothing is lost."""
    packets = [packet for packet in PACKETS if packet.seq != 30]  # 300 to 310 ms
    results = run(pairing(), in_order(FRAMES, packets))
    ends_ms = [(clip.end_ns - BASE_NS) / MS for clip in observations(results)]
    # That events have passed 300 ms is known only from packet 31, whose first event comes just
    # after 310 ms.
    assert ends_ms == [*range(200, 300, 25), *range(525, 690, 25)]
    assert reasons(results)["no_history"] == 7 + 9


def test_a_jump_of_time_begins_anew() -> None:
    """When the recording loops, clips of the second pass equal those of the first."""
    first = observations(run(pairing(), in_order(FRAMES)))
    target = pairing()
    again = [dataclasses.replace(packet, seq=packet.seq + 70) for packet in PACKETS]
    items = [*in_order(FRAMES), *in_order(FRAMES, again)]
    found = observations(run(target, items))
    assert len(found) == 2 * len(first)
    assert all(same(a, b) for a, b in zip(found[len(first) :], first, strict=True))


def test_another_resolution_begins_anew() -> None:
    """A camera of another size replaces the first; frames of the old size are refused."""
    target = pairing()
    run(target, in_order(FRAMES))
    larger = Wall(height=40, width=60, duration_ms=500)
    later = 1000 * MS
    packets = [
        dataclasses.replace(
            packet, seq=None, stamp_ns=packet.stamp_ns + later,
            time_base_ns=packet.time_base_ns + later,
        )
        for packet in larger.packets()
    ]  # fmt: skip
    frames = [
        dataclasses.replace(larger.frame(at_ms), stamp_ns=larger.frame(at_ms).stamp_ns + later)
        for at_ms in (300, 400)
    ]
    old = dataclasses.replace(WALL.frame(350), stamp_ns=BASE_NS + 350 * MS + later)
    results = run(target, in_order([*frames, old], packets))
    assert reasons(results) == {"other_size": 1}
    assert [clip.windows.shape for clip in observations(results)] == [(4, 40, 60)] * 2


def test_every_nth_usable_frame() -> None:
    """A stride of 3 gives every third clip, and may change on the way."""
    everything = observations(run(pairing(), in_order(FRAMES)))
    target = pairing()
    target.stride = 3
    found = observations(run(target, in_order(FRAMES)))
    ends = [clip.end_ns for clip in everything]
    assert [clip.end_ns for clip in found] == ends[::3]
    assert all(same(a, b) for a, b in zip(found, everything[::3], strict=True))


def test_what_is_wanted_comes_at_the_shortest_stride() -> None:
    """Where a clip is wanted it comes at the shortest stride, elsewhere at that of the others."""
    ends = [clip.end_ns for clip in observations(run(pairing(), in_order(FRAMES)))]
    length_ns = ends[0] - observations(run(pairing(), in_order(FRAMES)))[0].start_ns
    first, last = ends[5], ends[9]
    asked = []

    def wanted(start_ns: int, end_ns: int) -> bool:
        asked.append(end_ns - start_ns)
        return first <= end_ns <= last

    target = pairing(shortest_stride=2)
    target.stride, target.wanted = 100, wanted
    found = [clip.end_ns for clip in observations(run(target, in_order(FRAMES)))]
    assert found == [ends[5], ends[7], ends[9]]
    assert set(asked) == {length_ns}


def test_a_standing_camera_still_steps_the_state() -> None:
    """Windows without events stay in the clip, marked as too few to learn from."""
    wall = Wall(duration_ms=700, still_from_ms=400)
    frames = [wall.frame(at_ms) for at_ms in (300, 400)]
    noisy = wall.frame(500)
    noisy.image[0, 0] += 1  # a camera's frames differ even where nothing moves
    frames.append(noisy)
    # One event of noise says that time goes on; this encoding has no time words.
    last = Events(
        np.array([BASE_NS + 695 * MS]), np.zeros(1, np.uint16), np.zeros(1, np.uint16),
        np.ones(1, np.uint8),
    )  # fmt: skip
    packets = [*list(wall.packets())[:-1], mono_packet(last, 28, 42, 69, BASE_NS + 690 * MS)]
    found = observations(run(pairing(), in_order(frames, packets)))
    assert found[0].supported.all()
    clip = found[-1]
    assert clip.end_ns == BASE_NS + 500 * MS
    assert clip.supported.tolist() == [True, True, False, False]
    assert clip.event_counts[2:].tolist() == [0, 0]
    assert np.isnan(clip.image_speed_px_s)


def test_what_is_missing_is_said() -> None:
    """No events, no frames, and a camera that stopped are named, and forgotten when it comes."""
    target = pairing()
    assert (held := target.holding()) is not None
    assert held.reason == "no_events"
    run(target, list(PACKETS))
    assert (held := target.holding()) is not None
    assert held.reason == "no_frames"
    run(target, [WALL.frame(600)])
    assert target.holding() is None
    assert (held := target.holding(BASE_NS + 3000 * MS)) is not None
    assert held.reason == "no_events"
    run(target, [WALL.frame(650, stamp_ms=2000)])
    assert (held := target.holding()) is not None
    assert (held.reason, "1.3 s old" in held.detail) == ("no_events", True)


def test_frames_without_events_do_not_pile_up() -> None:
    """Beyond `waiting_frames` the oldest is refused."""
    results = run(pairing(waiting_frames=5), list(FRAMES))
    assert reasons(results) == {"without_events": len(FRAMES) - 5}


def test_frames_of_the_past_are_refused() -> None:
    """What the ring has lost cannot be cut again, and a frame may not come twice."""
    wall = Wall(duration_ms=1800, speed_px_s=60)
    target = pairing(ring_s=1.2)
    results = run(target, [*wall.packets(), wall.frame(300), wall.frame(1700), wall.frame(1700)])
    assert list(reasons(results)) == ["no_history", "repeated"]
    assert len(observations(results)) == 1


@pytest.mark.parametrize(("late_ms", "caught"), [(0, False), (-25, True), (20, True)])
def test_clocks_that_differ_show_in_the_pictures(late_ms: int, caught: bool) -> None:
    """Frames stamped 20 ms too late or 25 ms too early do not fit the events; right ones do."""
    wall = Wall(duration_ms=1500, speed_px_s=120)
    frames = [wall.frame(at_ms, at_ms + late_ms) for at_ms in range(50, 1400, 40)]
    results = run(pairing(), in_order(frames, list(wall.packets())))
    assert (reasons(results)["desynchronised"] > 15) == caught
    late = [clip for clip in observations(results) if clip.end_ns > BASE_NS + 700 * MS]
    assert bool(late) != caught


def test_pixels_that_differ_show_in_the_pictures() -> None:
    """Frames that are mirrored against the events are refused; right again, they are used."""
    wall = Wall(duration_ms=2600, speed_px_s=120)
    frames = [wall.frame(at_ms) for at_ms in range(50, 2500, 40)]
    mirrored = [
        dataclasses.replace(frame, image=np.ascontiguousarray(frame.image[:, ::-1]))
        if frame.stamp_ns < BASE_NS + 1300 * MS
        else frame
        for frame in frames
    ]
    results = run(pairing(), in_order(mirrored, list(wall.packets())))
    assert reasons(results)["misaligned"] > 10
    ends_ms = [(clip.end_ns - BASE_NS) / MS for clip in observations(results)]
    assert not [end for end in ends_ms if 700 < end < 1300]
    assert [end for end in ends_ms if end > 2200]


def test_refusals_and_clips_are_counted() -> None:
    """Counts name every frame that came and what became of it, and the stream's own reasons."""
    target = pairing()
    broken = dataclasses.replace(PACKETS[-1], encoding="morse", seq=70)
    items = [*in_order(FRAMES), broken, WALL.frame(680)]
    results = run(target, items)
    counts = target.counts()
    assert counts["frames"] == len(FRAMES) + 1
    assert counts["observations"] == len(observations(results))
    assert counts["no_history"] == reasons(results)["no_history"] == 7
    assert counts["unsupported_encoding"] == 1
    assert counts["frames"] == len(results)


def test_only_what_a_byte_can_code() -> None:
    """Students of voxel grids are refused with what to do; a clip without a last frame too."""
    with pytest.raises(ConfigurationError, match="dae-ros distill"):
        pairing("voxel_grid")
    clip = observations(run(pairing(), in_order(FRAMES)))[0]
    with pytest.raises(DistillationError, match="ends at a camera frame"):
        dataclasses.replace(clip, has_frame=np.zeros(4, bool))
    with pytest.raises(DistillationError, match="'sharp'"):
        dataclasses.replace(clip, sharp=np.zeros(3, bool))
    assert clip.byte_count == 3 * 4 * 28 * 42 + 4 * (3 + 2 * 8)


def test_empty_packets_are_packets() -> None:
    """The reference's packets keep every event, and the empty ones their number."""
    empty = mono_packet(EVENTS.slice(0, 0), WALL.height, WALL.width, 3, BASE_NS)
    assert len(empty.payload) == 0
    assert sum(len(packet.payload) for packet in PACKETS) == 8 * len(EVENTS)
