"""Labels of a good teacher pass as they are; those of a failing one do not reach the student."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.online.label_gate import LabelGate
from dae_ros.distillation.online.observation import LabelledClip, Observation, Refusal
from dae_ros.distillation.online.pairing import Pairing
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.events.frame import Frame
from dae_ros.model.configuration import Meaning
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.scrolling_wall import Wall, depth_of_grey

Answer = Callable[[np.ndarray, int], np.ndarray]

PARAMETERS = OnlineParameters.from_mapping(
    {"lead": 0, "burn_in": 1, "unroll": 4, "labels_per_clip": 4, "smallest_contrast": 10.0}
)
WALL = Wall(seed=1, height=42, width=56, duration_ms=850, speed_px_s=90)
METRIC = Meaning(event_encoder="grey", orientation="depth", scale="metric")
DISPARITY = Meaning(event_encoder="grey", orientation="inverse_depth", scale="relative")


class Backend:
    """Answers by a function of each frame and the number of frames that it has seen."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.frames = 0

    def __call__(self, frames: Tensor) -> Tensor:
        answers = []
        for frame in frames.numpy():
            answers.append(np.asarray(self.answer(frame, self.frames), np.float32))
            self.frames += 1
        return torch.from_numpy(np.stack(answers))


def truth(frame: np.ndarray, _: int) -> np.ndarray:
    return depth_of_grey(frame)


def smooth_noise(shape: tuple[int, ...], seed: int, cells: int) -> np.ndarray:
    """Return bumps of deviation 1, `cells` of them along the rows."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.standard_normal((1, 1, cells, cells)))
    bumps = torch.nn.functional.interpolate(
        coarse, size=shape, mode="bicubic", align_corners=False
    )[0, 0].numpy()
    return bumps / bumps.std()


def gate(
    answer: Answer, meaning: Meaning = METRIC, parameters: OnlineParameters = PARAMETERS
) -> tuple[LabelGate, Backend]:
    backend = Backend(answer)
    teacher = FrameTeacher("teacher", "digest", backend, meaning, DepthRange(0.5, 80.0))
    made = LabelGate(parameters, teacher, student_metric=True, device=torch.device("cpu"))
    return made, backend


@pytest.fixture(scope="module")
def clips() -> list[Observation]:
    """Clips of five windows, each ending at a frame, of a wall with noise in its frames."""
    pairing = Pairing(PARAMETERS)
    random = np.random.default_rng(0)
    frames = []
    for at_ms in range(50, 850, 50):
        frame = WALL.frame(at_ms)
        noisy = frame.image + random.integers(0, 2, frame.image.shape)
        frames.append(Frame(frame.stamp_ns, noisy.astype(np.uint8)))
    for item in sorted([*frames, *WALL.packets()], key=lambda item: item.stamp_ns):
        if isinstance(item, Frame):
            pairing.add_frame(item)
        else:
            pairing.feed(item)
    found = []
    while (item := pairing.step()) is not None:
        if isinstance(item, Observation):
            found.append(item)
    assert len(found) == 12
    return found


def depth_of(clip: Observation) -> np.ndarray:
    """What a student that sees the truth says; smoothed a little against the frames' noise."""
    return depth_of_grey(clip.frames)


def run(made: LabelGate, clips: list[Observation]) -> Counter[str]:
    results = [made.label(clip, depth_of(clip)) for clip in clips]
    return Counter(r.reason if isinstance(r, Refusal) else "labelled" for r in results)


def test_a_good_label_is_the_teachers_depth(clips: list[Observation]) -> None:
    """Depth passes unchanged where it counts; burn-in and the far pixels have none."""
    made, _ = gate(truth)
    labelled = made.label(clips[0], depth_of(clips[0]))
    assert isinstance(labelled, LabelledClip)
    assert (labelled.label_metric, labelled.teacher) == (True, "teacher")
    assert labelled.labelled.tolist() == [1, 2, 3, 4]
    expected = depth_of(clips[0])
    for depth, weight, truth_of in zip(labelled.depth, labelled.weight, expected[1:], strict=True):
        far = truth_of > np.quantile(truth_of, 0.98)
        assert np.isnan(depth[far]).all()
        assert not weight[far].any()
        assert (weight[~far] > 0).all()
        np.testing.assert_array_equal(depth[~far], truth_of[~far].astype(np.float16))


def test_weights_follow_the_events(clips: list[Observation]) -> None:
    """Weight is 0.3 without events, 1 from a fifth of active pixels in 14 px on; by hand."""
    values = {**dataclasses.asdict(PARAMETERS), "largest_flicker": 1.0}
    made, _ = gate(truth, parameters=OnlineParameters.from_mapping(values))
    windows = clips[0].windows.copy()
    windows[2] = 0
    windows[2, 12:40:4, 12:40:4] = 5  # one pixel in sixteen
    labelled = made.label(dataclasses.replace(clips[0], windows=windows), depth_of(clips[0]))
    assert isinstance(labelled, LabelledClip)
    weight = labelled.weight[labelled.labelled == 2][0]
    assert weight[0, 50] in (0, round(255 * 0.3))
    row, column = 25, 26
    inside = windows[2, row - 6 : row + 8, column - 6 : column + 8] > 0
    assert inside.size == 196
    assert weight[row, column] == round(255 * (0.3 + 0.7 * inside.mean() / 0.2))
    assert labelled.weight[0].max() == 255


def _frozen_after(count: int) -> Answer:
    kept: list[np.ndarray] = []

    def answer(frame: np.ndarray, seen: int) -> np.ndarray:
        if seen <= count:
            kept.append(frame)
        return depth_of_grey(kept[-1])[: frame.shape[0], : frame.shape[1]]

    return answer


def _white(frame: np.ndarray, seen: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seen).standard_normal(frame.shape))


FAILING: dict[str, tuple[Answer, set[str]]] = {
    "random_pixels": (_white, {"noisy"}),
    "random_shapes": (
        lambda frame, seen: 5 * np.exp(0.7 * smooth_noise(frame.shape, seen, 3)),
        {"flicker", "negative_scale", "uncorrelated", "inconsistent_flip"},
    ),
    "constant": (lambda frame, seen: np.full(frame.shape, 5.0), {"constant"}),
    "constant_of_each_frame": (
        lambda frame, seen: np.full(frame.shape, 3.0 + seen % 5), {"constant"},
    ),
    "inverted": (lambda frame, seen: 60 / depth_of_grey(frame), {"negative_scale"}),
    "negated": (lambda frame, seen: 30 - depth_of_grey(frame), {"negative_scale"}),
    "frozen": (_frozen_after(0), {"frozen"}),
    "frozen_later": (_frozen_after(9), {"labelled", "frozen", "inconsistent_flip"}),
    "ramp": (
        lambda frame, seen: np.linspace(9, 2, frame.shape[0])[:, None] * np.ones(frame.shape),
        {"frozen"},
    ),
    "noisy": (
        lambda frame, seen: depth_of_grey(frame) * (1 + 0.2 * (_white(frame, seen) > 1)),
        {"noisy"},
    ),
    "blotchy": (
        lambda frame, seen: depth_of_grey(frame) * np.exp(
            0.5 * smooth_noise(frame.shape, seen, 5)
        ),
        {"flicker", "negative_scale", "uncorrelated", "inconsistent_flip"},
    ),
    "not_finite": (lambda frame, seen: np.full(frame.shape, np.nan), {"not_finite"}),
    "huge": (lambda frame, seen: depth_of_grey(frame) * 1e6, {"not_finite"}),
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILING)
def test_a_failing_teacher_is_refused(failure: str, clips: list[Observation]) -> None:
    """Every clip of a teacher that is random, constant, upside down, frozen or noisy is refused."""
    answer, expected = FAILING[failure]
    found = run(gate(answer)[0], clips)
    assert set(found) <= expected
    # The one that begins well may label until it freezes.
    assert found["labelled"] <= (2 if failure == "frozen_later" else 0)


@pytest.mark.parametrize("failure", ["random_shapes", "blotchy"])
@pytest.mark.parametrize("without", ["student", "student_and_flicker"])
def test_one_check_alone_is_enough(failure: str, without: str, clips: list[Observation]) -> None:
    """With a student that agrees with anything a failing teacher still contradicts itself."""
    changes: dict[str, object] = {"smallest_correlation": -1.0}
    if without == "student_and_flicker":
        changes["largest_flicker"] = 1e30
    values = {**dataclasses.asdict(PARAMETERS), **changes}
    answer, expected = FAILING[failure]
    found = run(gate(answer, parameters=OnlineParameters.from_mapping(values))[0], clips)
    assert found["labelled"] == 0
    assert set(found) <= expected


def test_a_part_of_the_frame_is_compared(clips: list[Observation]) -> None:
    """A teacher that mirrors faithfully but says where things mostly are fails on a part."""

    def answer(frame: np.ndarray, seen: int) -> np.ndarray:
        centre = np.abs(np.linspace(-1, 1, frame.shape[1]))[None, :] ** 2
        tilt = np.abs(np.linspace(-1, 1, frame.shape[0]))[:, None] ** 2
        return depth_of_grey(frame) + 12 * centre + 12 * tilt

    # What is this smooth and this near to the truth passes where less confidence is asked for.
    strict = dataclasses.replace(PARAMETERS, smallest_confidence=0.6)
    assert set(run(gate(answer, parameters=strict)[0], clips)) == {"inconsistent_crop"}


def test_where_a_part_is_seen_otherwise_weighs_less(clips: list[Observation]) -> None:
    """Pixels of which the teacher says something else on a part of the frame lose their weight."""

    def answer(frame: np.ndarray, _: int) -> np.ndarray:
        depth = depth_of_grey(frame)
        if frame.shape != (42, 56):
            depth[10:16, 10:20] += 8
        return depth

    made, _ = gate(answer)
    labelled = made.label(clips[0], depth_of(clips[0]), thorough=True)
    plain, _ = gate(truth)
    expected = plain.label(clips[0], depth_of(clips[0]), thorough=True)
    assert isinstance(labelled, LabelledClip)
    assert isinstance(expected, LabelledClip)
    doubted = labelled.weight[-1] < 0.5 * expected.weight[-1]
    rows, columns = np.nonzero(doubted)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (6, 10)
    assert doubted.sum() > 50


def test_good_teachers_of_every_space_pass(clips: list[Observation]) -> None:
    """Depth of any scale, blurred, and disparity up to scale and shift are accepted."""

    def blurred(frame: np.ndarray, _: int) -> np.ndarray:
        image = torch.from_numpy(depth_of_grey(frame))[None, None]
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")
        return torch.nn.functional.avg_pool2d(padded, 5, 1)[0, 0].numpy()

    def disparity(frame: np.ndarray, _: int) -> np.ndarray:
        return 30 / depth_of_grey(frame) + 4

    for made, _ in (gate(lambda frame, _: 3 * depth_of_grey(frame)), gate(blurred)):
        assert run(made, clips[::2]) == {"labelled": 6}
    made, _ = gate(disparity, DISPARITY)
    assert run(made, clips[::2]) == {"labelled": 6}
    labelled = made.label(clips[-1], depth_of(clips[-1]))
    assert isinstance(labelled, LabelledClip)
    assert not labelled.label_metric


def test_a_quarter_of_the_labels_is_asked_for_twice(clips: list[Observation]) -> None:
    """One label in four costs four more answers (mirrored and cropped, whole each time)."""
    made, backend = gate(truth)
    for clip in clips[:8]:
        assert isinstance(made.label(clip, depth_of(clip)), LabelledClip)
    assert backend.frames == 8 * 4 + 8 * 4
    made, backend = gate(truth)
    assert isinstance(made.label(clips[0], depth_of(clips[0]), thorough=True), LabelledClip)
    assert backend.frames == 4 + 4 * 4


def test_a_scale_that_jumps_is_refused_until_it_lasts(clips: list[Observation]) -> None:
    """A tenth of the depth is refused, and accepted once most of what was seen says so."""
    factor = {"now": 1.0}
    made, _ = gate(lambda frame, _: factor["now"] * depth_of_grey(frame))

    def label(clip: Observation) -> str:
        result = made.label(clip, depth_of(clip))
        return result.reason if isinstance(result, Refusal) else "labelled"

    assert [label(clip) for clip in clips[:3]] == ["labelled"] * 3
    factor["now"] = 0.1
    # 12 labels of the old scale; each clip brings 4 of the new one, and counts from the next on.
    assert [label(clip) for clip in clips[3:9]] == ["scale_jump"] * 4 + ["labelled"] * 2


def test_labels_of_another_student_have_another_scale(clips: list[Observation]) -> None:
    """Where other weights are published, their first labels say what is usual for them."""
    made, _ = gate(truth)
    assert run(made, clips[:3]) == {"labelled": 3}
    made.forget_scales()
    result = made.label(clips[3], 10 * depth_of(clips[3]))
    assert isinstance(result, LabelledClip)
    result = made.label(clips[4], 10 * depth_of(clips[4]))
    assert isinstance(result, LabelledClip)
    result = made.label(clips[5], depth_of(clips[5]))
    assert isinstance(result, Refusal) and result.reason == "scale_jump"


def test_a_label_that_stops_with_the_camera_is_old(clips: list[Observation]) -> None:
    """A frozen label of an earlier place stays refused although frames stop changing."""
    made, _ = gate(_frozen_after(0))
    still = []
    for order, clip in enumerate(clips[:8]):
        frames = clip.frames.copy()
        frames[:] = clips[3].frames[-1] if order > 3 else frames
        still.append(dataclasses.replace(clip, frames=frames))
    assert run(made, still) == {"frozen": 8}


@pytest.mark.parametrize("value", [np.nan, 2.0])
def test_a_student_without_an_opinion_cannot_judge(value: float, clips: list[Observation]) -> None:
    """Where the student's depth is not finite or constant the label is refused for that."""
    prediction = np.full(clips[0].windows.shape, value, np.float32)
    verdict = gate(truth)[0].label(clips[0], prediction)
    assert isinstance(verdict, Refusal)
    assert verdict.reason == ("student_constant" if value == 2.0 else "student_not_finite")


def test_only_windows_with_frame_and_events_are_labelled(clips: list[Observation]) -> None:
    """Windows to learn from need both; with none left there is no label to ask for."""
    made, backend = gate(truth)
    frames, events = np.array([1, 0, 1, 1, 1], bool), np.array([1, 1, 0, 1, 1], bool)
    clip = dataclasses.replace(clips[0], has_frame=frames, supported=events)
    labelled = made.label(clip, depth_of(clip))
    assert isinstance(labelled, LabelledClip)
    assert labelled.labelled.tolist() == [3, 4]
    assert np.isfinite(labelled.depth).any(axis=(1, 2)).all()
    seen = backend.frames
    verdict = made.label(dataclasses.replace(clip, supported=np.zeros(5, bool)), depth_of(clip))
    assert isinstance(verdict, Refusal)
    assert (verdict.reason, backend.frames) == ("few_events", seen)


def test_labels_are_spread_over_the_clip(clips: list[Observation]) -> None:
    """With two labels for four windows the last is one of them; masks keep pixels out."""
    values = {**dataclasses.asdict(PARAMETERS), "labels_per_clip": 2}
    made, _ = gate(truth, parameters=OnlineParameters.from_mapping(values))
    masks = clips[0].masks.copy()
    masks[-1, :5] = False
    state = (np.ones((1, 2, 3), np.float16),)
    labelled = made.label(
        dataclasses.replace(clips[0], masks=masks), depth_of(clips[0]),
        state=state, state_version=7,
    )  # fmt: skip
    assert isinstance(labelled, LabelledClip)
    assert labelled.labelled.tolist() == [2, 4]
    assert labelled.weight.any(axis=(1, 2)).all()
    assert not labelled.weight[-1, :5].any()
    assert (labelled.state_version, len(labelled.state)) == (7, 1)
    assert labelled.byte_count == labelled.observation.byte_count + 2 * (42 * 56 * 3 + 8) + 12


def test_a_restart_does_not_let_a_bad_teacher_say_what_is_usual(clips: list[Observation]) -> None:
    """Scales and the last label are remembered: ten times the depth, or the same label, is told."""
    before, _ = gate(truth)
    assert run(before, clips[:4]) == {"labelled": 4}
    state = torch.load(saved(before.state()), weights_only=True)
    frozen = depth_of(clips[3])[-1]
    for answer, reason in (
        (lambda frame, _: 10 * depth_of_grey(frame), "scale_jump"),
        (lambda *_: frozen, "frozen"),
    ):
        resumed, fresh = gate(answer)[0], gate(answer)[0]
        resumed.restore(state)
        assert run(resumed, clips[5:6]) == {reason: 1}
        if reason == "scale_jump":
            assert run(fresh, clips[5:6]) == {"labelled": 1}
    # One that goes on, and one that was restored, remember the same afterwards.
    resumed, _ = gate(truth)
    resumed.restore(state)
    run(before, clips[4:6])
    run(resumed, clips[4:6])
    assert resumed.state()["scales"] == before.state()["scales"]
    assert resumed.state()["labels"] == before.state()["labels"]


def saved(state: dict[str, object]) -> io.BytesIO:
    """Return a state as it comes from the disk."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file
