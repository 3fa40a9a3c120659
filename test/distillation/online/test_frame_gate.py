"""Which frames and windows are good enough to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.distillation.online.event_gate import FLASH_NS, refuse_flash, refuse_hot_pixels
from dae_ros.distillation.online.frame_agreement import FrameAgreement
from dae_ros.distillation.online.frame_gate import FrameGate, GatedFrame
from dae_ros.distillation.online.image_speed import image_speed_px_s
from dae_ros.distillation.online.observation import Refusal
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.scrolling_wall import BASE_NS, MS, Wall

HEIGHT, WIDTH = 20, 30
GOOD = np.tile(np.linspace(60, 200, WIDTH).astype(np.uint8), (HEIGHT, 1))


def gate(**changes: object) -> FrameGate:
    return FrameGate(OnlineParameters.from_mapping(changes))


def refused(image: np.ndarray) -> str:
    verdict = gate().look(Frame(0, image))
    return verdict.reason if isinstance(verdict, Refusal) else "accepted"


def with_saturated(pixels: int, value: int) -> np.ndarray:
    image = GOOD.copy()
    image.reshape(-1)[:pixels] = value
    return image


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (GOOD, "accepted"),
        (with_saturated(119, 255), "accepted"),
        (with_saturated(120, 255), "saturated"),  # 20 % of 600
        (with_saturated(120, 0), "saturated"),
        (GOOD // 6, "dark"),
        (np.clip(GOOD.astype(int) + 130, 0, 254).astype(np.uint8), "bright"),
        (120 + GOOD // 8, "flat"),
    ],
)
def test_each_bad_exposure_has_its_name(image: np.ndarray, reason: str) -> None:
    """Saturated, dark, bright and flat frames are refused at the start values."""
    assert refused(image) == reason


def test_a_frozen_camera_is_noticed() -> None:
    """A frame that equals the one before in every pixel is refused; one grey level saves it."""
    looked = gate()
    assert isinstance(looked.look(Frame(0, GOOD)), GatedFrame)
    verdict = looked.look(Frame(1, GOOD.copy()))
    assert isinstance(verdict, Refusal)
    assert verdict.reason == "repeated"
    other = GOOD.copy()
    other[3, 4] += 1
    assert isinstance(looked.look(Frame(2, other)), GatedFrame)


def test_saturated_pixels_are_masked_with_a_margin() -> None:
    """Three pixels around one at 255, cut at the border, may not be used."""
    image = GOOD.copy()
    image[1, 10] = 255
    image[19, 29] = 0
    frame = gate().look(Frame(0, image))
    assert isinstance(frame, GatedFrame)
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[0:5, 7:14] = False
    expected[16:20, 26:30] = False
    np.testing.assert_array_equal(frame.mask, expected)
    assert frame.luminance == pytest.approx(image.mean())


@pytest.mark.parametrize(
    ("speed_px_s", "verdict"), [(200, "sharp"), (400, "soft"), (700, "blurred")]
)
def test_blur_is_speed_times_exposure(speed_px_s: float, verdict: str) -> None:
    """With 10 ms of exposure 2 px are sharp, 4 px give no gradient term, 7 px no label."""
    looked = gate()
    frame = looked.look(Frame(0, GOOD, exposure_ns=10 * MS))
    assert isinstance(frame, GatedFrame)
    judged = looked.judge_blur(frame, speed_px_s)
    if isinstance(judged, Refusal):
        assert (judged.reason, verdict) == ("blurred", "blurred")
        assert "7.0 px" in judged.detail
    else:
        assert judged.sharp == (verdict == "sharp")


@pytest.mark.parametrize("unknown", ["exposure", "speed"])
def test_without_exposure_frames_are_compared_with_each_other(unknown: str) -> None:
    """Where blur cannot be predicted, a frame far less sharp than usual is refused."""
    looked = gate()
    exposure_ns = 0 if unknown == "exposure" else 10 * MS
    speed = 1e4 if unknown == "exposure" else np.nan
    random = np.random.default_rng(0)
    noise = random.integers(0, 12, (8, HEIGHT, WIDTH)).astype(np.uint8)
    for index in range(7):
        frame = looked.look(Frame(index, GOOD + noise[index], exposure_ns))
        assert isinstance(frame, GatedFrame)
        assert isinstance(looked.judge_blur(frame, speed), GatedFrame)
    soft = looked.look(Frame(9, GOOD + noise[7] // 4, exposure_ns))
    assert isinstance(soft, GatedFrame)
    verdict = looked.judge_blur(soft, speed)
    assert isinstance(verdict, Refusal)
    assert verdict.reason == "blurred"


@pytest.mark.parametrize("speed_px_s", [100.0, 1000.0])
@pytest.mark.parametrize("direction_deg", [0.0, 30.0, 90.0])
def test_image_speed_is_measured(speed_px_s: float, direction_deg: float) -> None:
    """Edges 15 px apart, each pixel firing twice with jitter, give their speed within a tenth."""
    height, width = 40, 60
    random = np.random.default_rng(2)
    rows, columns = np.mgrid[0:height, 0:width]
    angle = np.deg2rad(direction_deg)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    passages = [(along + 15 * edge) / speed_px_s * 1e9 for edge in range(-5, 6)]
    t = np.stack([p + second for p in passages for second in (0, 0.4e6)])
    t += random.normal(0, 0.05e6, t.shape)
    t, x, y = (v.ravel() for v in np.broadcast_arrays(t, columns, rows))
    keep = (t >= 0) & (t < 50 * MS)
    order = np.argsort(t[keep])
    events = Events(
        t[keep][order].astype(np.int64),
        x[keep][order].astype(np.uint16),
        y[keep][order].astype(np.uint16),
        np.ones(int(keep.sum()), np.uint8),
    )
    assert image_speed_px_s(events, height, width) == pytest.approx(speed_px_s, rel=0.1)


def test_no_motion_no_speed() -> None:
    """Nothing, and noise at random places and times, say nothing about speed."""
    assert np.isnan(image_speed_px_s(Events.empty(), 40, 60))
    random = np.random.default_rng(1)
    noise = Events(
        np.sort(random.integers(0, 50 * MS, 400)),
        random.integers(0, 60, 400).astype(np.uint16),
        random.integers(0, 40, 400).astype(np.uint16),
        random.integers(0, 2, 400).astype(np.uint8),
    )
    assert np.isnan(image_speed_px_s(noise, 40, 60))


def window(t: np.ndarray, pixels: np.ndarray, on: np.ndarray) -> tuple[Events, np.ndarray]:
    """Events of a 20 x 30 sensor, and a code that marks their pixels."""
    order = np.argsort(t, kind="stable")
    events = Events(
        t[order].astype(np.int64),
        (pixels[order] % WIDTH).astype(np.uint16),
        (pixels[order] // WIDTH).astype(np.uint16),
        on[order].astype(np.uint8),
    )
    code = np.zeros(HEIGHT * WIDTH, np.uint8)
    code[pixels] = 1
    return events, code.reshape(HEIGHT, WIDTH)


def test_one_polarity_alone_is_a_flash() -> None:
    """ON over OFF beyond 0.2 to 5 is refused; a few events may be anything."""
    t, pixels = np.arange(600) * 80_000, np.arange(600) % 200
    parameters = OnlineParameters()
    for on_count, expected in ((300, None), (490, None), (510, "flash"), (90, "flash")):
        on = np.arange(600) < on_count
        refusal = refuse_flash(parameters, *window(t, pixels, on))
        assert (refusal and refusal.reason) == expected
    few = refuse_flash(parameters, *window(t[:100], pixels[:100], np.ones(100, bool)))
    assert few is None


def test_all_pixels_at_once_are_a_flash() -> None:
    """Two thirds of the pixels within 5 ms are refused, the same pixels over 50 ms are motion."""
    pixels = np.arange(400)
    on = pixels % 2 == 0
    parameters = OnlineParameters()
    slow = refuse_flash(parameters, *window(pixels * 125_000, pixels, on))
    assert slow is None
    fast = refuse_flash(parameters, *window(7 * MS + pixels * 12_000, pixels, on))
    assert fast is not None
    assert fast.reason == "flash"
    assert "67%" in fast.detail


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_flash_counts_each_pixel_once(seed: int, pixels_used: int) -> None:
    """The largest share within two neighbouring halves of 5 ms equals counting with sets."""
    random = np.random.default_rng(seed)
    halves = np.sort(random.integers(0, 10, 240))
    halves -= halves[0]
    pixels = random.integers(0, pixels_used, 240)
    events, code = window(halves * (FLASH_NS // 2), pixels, np.arange(240) % 2 == 0)
    code[:] = 1  # so that the cheap test beforehand says nothing
    by_half = [set(pixels[halves == half].tolist()) for half in range(11)]
    most = max(len(by_half[half] | by_half[half + 1]) for half in range(10))
    below = OnlineParameters.from_mapping({"flash_share": (most - 0.5) / code.size})
    assert refuse_flash(below, events, code) is not None
    at = OnlineParameters.from_mapping({"flash_share": most / code.size})
    assert refuse_flash(at, events, code) is None


def test_hot_pixels_are_told_from_motion() -> None:
    """Events that come mostly from pixels above 1 kHz are refused; half of them is not yet."""
    parameters = OnlineParameters()
    window_ns = 50 * MS
    moving = np.arange(300)
    for hot_events, expected in ((290, None), (310, "hot_pixels")):
        pixels = np.concatenate([moving, np.full(hot_events, 7)])
        events, _ = window(np.arange(len(pixels)) * 70_000, pixels, pixels % 2 == 0)
        refusal = refuse_hot_pixels(parameters, events, HEIGHT, WIDTH, window_ns)
        assert (refusal and refusal.reason) == expected


def test_the_offset_of_the_clocks_is_measured() -> None:
    """Frames stamped 25 ms early or 20 ms late give that offset, and agree as others do."""
    wall = Wall(duration_ms=900, speed_px_s=120)
    ring = EventRing(3000 * MS, 10_000_000)
    ring.push(wall.events())
    agreements = {}
    for late_ms in (0, 20, -25):
        agreement = FrameAgreement(OnlineParameters())
        for at_ms in range(100, 860, 40):
            frame = wall.frame(at_ms, at_ms + late_ms)
            agreement.add(ring, frame.stamp_ns, frame.image, np.ones(frame.image.shape, bool))
        refusal = agreement.refusal()
        assert (refusal and refusal.reason) == ("desynchronised" if late_ms else None)
        assert agreement.offset_ns == -late_ms * MS
        agreements[late_ms] = agreement.correlation
    assert agreements[0] > 0.9
    assert agreements[20] == pytest.approx(agreements[0], abs=0.02)
    assert agreements[-25] == pytest.approx(agreements[0], abs=0.02)


def noisy_agreement(wall: Wall, kept: float, times_ms: range) -> FrameAgreement:
    """Compare a wall as a blunt and noisy camera sees it: few of its events, noise in frames."""
    random = np.random.default_rng(0)
    seen, count = wall.events(), 60_000
    chosen = random.random(len(seen)) < kept
    noise_ns = BASE_NS + np.sort(random.integers(0, wall.duration_ms * 1000, count)) * 1000
    noise = Events(
        noise_ns, random.integers(0, wall.width, count, np.uint16),
        random.integers(0, wall.height, count, np.uint16), random.integers(0, 2, count, np.uint8),
    )  # fmt: skip
    columns = [np.concatenate([getattr(seen, c)[chosen], getattr(noise, c)]) for c in "txyp"]
    order = np.argsort(columns[0], kind="stable")
    ring = EventRing(3000 * MS, 10_000_000)
    ring.push(Events(*(column[order] for column in columns)))
    agreement = FrameAgreement(OnlineParameters())
    for at_ms in times_ms:
        frame = wall.frame(at_ms)
        grey = frame.image + random.normal(0.0, 2.0, frame.image.shape)
        image = grey.clip(0, 255).round().astype(np.uint8)
        agreement.add(ring, frame.stamp_ns, image, np.ones(image.shape, bool))
    return agreement


def test_noise_hides_no_agreement() -> None:
    """Of a blunt and noisy camera neighbouring pixels together still show what frames show."""
    wall = Wall(duration_ms=1500, speed_px_s=80, height=84, width=112)
    agreement = noisy_agreement(wall, 0.008, range(100, 1460, 40))
    assert agreement.refusal() is None
    assert agreement.correlation > 0.25


def test_a_camera_that_stands_still_disagrees_with_nothing() -> None:
    """Frames that differ by their noise alone say nothing about events, which are noise as well."""
    wall = Wall(duration_ms=1500, speed_px_s=0.0, height=84, width=112)
    agreement = noisy_agreement(wall, 1.0, range(100, 1460, 40))
    assert agreement.refusal() is None and np.isnan(agreement.correlation)


def test_the_wall_is_what_it_says() -> None:
    """The reference scene: frames at their instants, events as the frames change, in order."""
    wall = Wall(duration_ms=80)
    events = wall.events()
    assert (np.diff(events.t) >= 0).all()
    sums = np.zeros((wall.height, wall.width))
    np.add.at(sums, (events.y, events.x), np.where(events.p > 0, 0.1, -0.1))
    change = np.log(wall.grey(79)) - np.log(wall.grey(0))
    assert np.corrcoef(sums.ravel(), change.ravel())[0, 1] > 0.95
    assert wall.frame(50).stamp_ns == BASE_NS + 50 * MS
