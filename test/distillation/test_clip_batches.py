"""From the store to the network: which clips are drawn, what is cropped, how states are carried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dae_ros.distillation.batches import ClipBatch, ClipSampler
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, open_clip_store
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.cross_context import local_boxes
from dae_ros.distillation.objectives import crop_frames
from dae_ros.distillation.preparation import Preparation, Prepared, at_size, cut_out
from dae_ros.distillation.rollout import roll, roll_clips
from dae_ros.errors import ConfigurationError
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.wedge_teacher import distillation

Settings = Callable[..., TrainingParameters]
CPU = torch.device("cpu")
Pair = tuple[ClipBatch, Prepared, Prepared]


def places(batch: ClipBatch, store: tuple[ClipSequence, ...]) -> list[tuple[str, int]]:
    """Return which sequence and window each clip begins at, found by comparing pixels."""
    found = []
    for clip in batch.windows.numpy():
        for sequence in store:
            for first in range(len(sequence) - len(clip) + 1):
                if np.array_equal(sequence.windows[first : first + len(clip)], clip):
                    found.append((sequence.name, first))
    return found


def test_clips_never_cross_a_restart(clips: str, settings: Settings) -> None:
    """Every allowed start is drawn, those over a break in the sequence never."""
    store = open_clip_store(clips)
    sampler = ClipSampler((store,), settings(batch=4, burn_in=1, unroll=2, cold_start=0.0))
    # 8 windows give 6 starts, 4 and 4 give 2 and 2, 5 give 3.
    assert sampler.clips == 13
    seen = {place for step in range(60) for place in places(sampler.batch(step), store.sequences)}
    first, second, third = (item.name for item in store.split("train"))
    assert seen == {
        *((first, start) for start in range(6)),
        *((second, start) for start in (0, 1, 4, 5)),
        *((third, start) for start in range(3)),
    }
    with pytest.raises(ConfigurationError, match="9 windows in a row"):
        ClipSampler((store,), settings(burn_in=5, unroll=4))


def test_two_parts_make_the_whole_batch(clips: str, settings: Settings) -> None:
    """What two processes draw is, one behind the other, what one draws; steps differ."""
    store = open_clip_store(clips)
    some = settings(batch=4, crop_height=28, crop_width=42)
    whole = ClipSampler((store,), some).batch(3)
    parts = [ClipSampler((store,), some, (index, 2)).batch(3) for index in range(2)]
    for name in ("windows", "depth", "frames", "has_frame", "mirrored", "place"):
        both = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(torch.nan_to_num(both), torch.nan_to_num(getattr(whole, name)))
    other = ClipSampler((store,), some).batch(4)
    assert not torch.equal(other.mirrored, whole.mirrored) or not torch.equal(
        other.windows, whole.windows
    )


def test_a_cold_start_has_no_burn_in(clips: str, settings: Settings) -> None:
    """A share of batches begins with the first window to learn from; labels are the same."""
    store = open_clip_store(clips)
    cold, warm = (
        ClipSampler((store,), settings(burn_in=2, unroll=3, cold_start=share)).batch(0)
        for share in (1.0, 0.0)
    )
    assert (cold.windows.shape[1], warm.windows.shape[1]) == (3, 5)
    assert torch.equal(warm.windows[:, 2:], cold.windows)
    assert torch.equal(warm.depth, cold.depth) and warm.depth.shape[1] == 3
    memoryless = ClipSampler((store,), settings(burn_in=2, unroll=3, cold_start=0.0), memory=False)
    assert memoryless.batch(0).windows.shape[1] == 3


def test_sequences_without_labels_count_as_unknown(tmp_path: Path, settings: Settings) -> None:
    """Clips of a sequence without depth or frames come with NaN depth and no frame."""
    store = wedge_clips(tmp_path, [WedgeSource(1, frames=False, depth=False)], [])
    batch = ClipSampler((open_clip_store(store),), settings()).batch(0)
    assert torch.isnan(batch.depth).all() and not batch.has_frame.any()


@pytest.fixture(scope="module")
def prepared_pair(clips: str, settings: Settings, small_micro: str) -> Pair:
    """The same batch whole and cropped, and the crop's place."""
    loaded = load_weights(small_micro)
    fitting = Fitting(loaded.config, 14, CPU)
    store = open_clip_store(clips)
    batch = ClipSampler((store,), settings(crop_height=28, crop_width=42)).batch(1)
    whole = Preparation(fitting, "tencode")(batch, CPU)
    cut = Preparation(fitting, "tencode", (28, 42), 14)(batch, CPU)
    return batch, whole, cut


def test_a_crop_is_cut_after_encoding(prepared_pair: Pair) -> None:
    """Images and depth of a crop are slices of the whole, the same in all windows of a clip."""
    batch, whole, cut = prepared_pair
    assert whole.boxes is None and cut.images.shape[3:] == (28, 42)
    for clip, box in enumerate(cut.boxes * torch.tensor([56, 84, 56, 84])):
        top, left, bottom, right = (round(float(edge)) for edge in box)
        assert (bottom - top, right - left) == (28, 42)
        # Of 29 and 43 places, as the draw says.
        assert top == int(batch.place[clip, 0] * 29) and left == int(batch.place[clip, 1] * 43)
        area = np.s_[..., top:bottom, left:right]
        assert torch.equal(cut.images[clip], whole.images[clip][area])
        assert torch.equal(cut.depth[clip], whole.depth[clip][area])
        # The teacher's crop of the frame covers the same pixels.
        every = cut.frames.flatten(0, 1)
        seen = crop_frames(every, cut.boxes, cut.frames.shape[1])
        windows = slice(clip * batch.unroll, (clip + 1) * batch.unroll)
        assert torch.equal(seen[windows], cut.frames[clip][area])
    assert len({tuple(box) for box in cut.boxes.tolist()}) > 1


def test_images_are_what_the_live_node_sees(prepared_pair: Pair) -> None:
    """An uncropped clip is Tencode, mirrored where drawn, normalised as the estimator does."""
    batch, whole, _ = prepared_pair
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for clip in range(len(batch.windows)):
        image = tencode_of_code(batch.windows[clip])
        depth = batch.depth[clip].float()
        if batch.mirrored[clip]:
            image, depth = image.flip(-1), depth.flip(-1)
        torch.testing.assert_close(whole.images[clip], (image - mean) / deviation)
        assert torch.equal(whole.depth[clip], depth)


def test_crops_that_cannot_be_are_refused(prepared_pair: Pair, small_micro: str) -> None:
    """A crop must be a multiple of the network's and not larger than its input."""
    batch, _, _ = prepared_pair
    fitting = Fitting(load_weights(small_micro).config, 14, CPU)
    with pytest.raises(ConfigurationError, match="multiples of 14"):
        Preparation(fitting, "tencode", (30, 42), 14)
    with pytest.raises(ConfigurationError, match="larger than the network's input"):
        Preparation(fitting, "tencode", (70, 42), 14)(batch, CPU)


def test_depth_of_a_frame_student_belongs_to_frames(clips: str, settings: Settings) -> None:
    """A network of frames learns only from windows that end at a frame."""
    batch = ClipSampler((open_clip_store(clips),), settings()).batch(0)
    batch.has_frame[0, -1] = False
    loaded = untrained("micro_frames")
    prepared = Preparation(Fitting(loaded.config, 14, CPU), "grey")(batch, CPU)
    assert prepared.images.shape[2:] == (1, 126, 196)
    assert torch.isnan(prepared.depth[0, -1]).all() and torch.isfinite(prepared.depth[1]).all()


def test_padded_networks_compare_at_the_sensors_size(tmp_path: Path, settings: Settings) -> None:
    """E2Depth pads to multiples of 8 and is compared, and cropped, in pixels of the sensor."""
    source = WedgeSource(1, height=30, width=44)
    store = open_clip_store(wedge_clips(tmp_path, [source], [], "voxel_grid"))
    batch = ClipSampler((store,), settings(crop_height=16, crop_width=24)).batch(0)
    loaded = untrained("tiny_e2depth")
    fitting = Fitting(loaded.config, loaded.network.multiple, CPU)
    whole = Preparation(fitting, "voxel_grid")
    prepared = whole(batch, CPU)
    assert prepared.images.shape[3:] == (32, 48) and prepared.depth.shape[2:] == (30, 44)
    predictions = torch.arange(32 * 48.0).reshape(1, 1, 32, 48).repeat(2, batch.unroll, 1, 1)
    compared = whole.compared(predictions, (30, 44))
    assert torch.equal(compared, predictions[:, :, 1:31, 2:46])
    cut = Preparation(fitting, "voxel_grid", (16, 24), 8)(batch, CPU)
    assert cut.images.shape[3:] == (16, 24) == cut.depth.shape[2:]


def test_bilinear_cuts_by_hand() -> None:
    """Whole pixels come out as they are; twice the size is the usual bilinear picture."""
    maps = torch.arange(24.0).reshape(1, 4, 6)
    box = torch.tensor([[0.25, 1 / 3, 0.75, 1.0]], dtype=torch.float64)
    assert torch.allclose(cut_out(maps, box, (2, 4)), maps[:, 1:3, 2:6])
    doubled = cut_out(maps, box, (4, 8))[0, 0]
    # Half a small pixel is a quarter of a large one: row 0.75, columns from 1.75 in steps of 0.5.
    expected = 6 * 0.75 + torch.arange(1.75, 5.75, 0.5).clamp(max=5.0)
    assert torch.allclose(doubled, expected, atol=1e-5)


def test_nan_does_not_spread_when_labels_shrink() -> None:
    """Labels change size by the nearest pixel."""
    maps = torch.arange(64.0).reshape(1, 8, 8)
    maps[0, 1, 1] = torch.nan
    small = at_size(maps, (4, 4))
    assert int(torch.isnan(small).sum()) <= 1
    assert set(small[torch.isfinite(small)].tolist()) <= set(range(64))


def test_local_boxes_stay_inside_and_vary(settings: Settings) -> None:
    """Each clip has a box of half the sides inside of the image; the draw repeats itself."""
    some = distillation(settings, batch=3, local_global_crops=2, local_global_size=0.5, seed=1)
    boxes = local_boxes((40, 60), some, 5)
    assert boxes == local_boxes((40, 60), some, 5)
    assert boxes != local_boxes((40, 60), some, 6)
    assert (len(boxes), len(boxes[0])) == (2, 3)
    for top, left, bottom, right in (box for crop in boxes for box in crop):
        assert top >= 0 and bottom <= 40 and bottom - top == 20
        assert left >= 0 and right <= 60 and right - left == 30


@pytest.mark.parametrize("name", ["tiny", "tiny_e2depth"])
def test_rolling_is_stepping(name: str) -> None:
    """All windows at once through the encoder give what steps one by one give."""
    network = untrained(name).network
    size, channels = ((70, 98), 3) if name == "tiny" else ((16, 24), 5)
    images = torch.rand(2, 4, channels, *size, generator=torch.Generator().manual_seed(1))
    state = network.initial_state(2, *size)
    with torch.no_grad():
        rolled, last = roll(network, images, state)
        for step in range(4):
            prediction, state = network(images[:, step], state)
            torch.testing.assert_close(rolled[:, step], prediction[:, 0], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(last, state, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    for wanted in (0, 1, 3):
        with torch.no_grad():
            some, last = roll(network, images, network.initial_state(2, *size), wanted)
        assert some.shape == (2, wanted, *size)
        torch.testing.assert_close(some, rolled[:, 4 - wanted :], rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(last, state, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_rolling_has_the_gradient_of_stepping() -> None:
    """Of every weight, through all windows and the state between them."""
    network = untrained("tiny").network
    images = torch.rand(2, 3, 3, 70, 98, generator=torch.Generator().manual_seed(4))
    weight = torch.rand(2, 3, 70, 98, generator=torch.Generator().manual_seed(5))
    rolled, _ = roll(network, images, network.initial_state(2, 70, 98))
    state, stepped = network.initial_state(2, 70, 98), []
    for step in range(3):
        prediction, state = network(images[:, step], state)
        stepped.append(prediction[:, 0])
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    mine = torch.autograd.grad((weight * rolled).sum(), learned, allow_unused=True)
    theirs = torch.autograd.grad(
        (weight * torch.stack(stepped, dim=1)).sum(), learned, allow_unused=True
    )
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            scale = float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_burn_in_carries_the_state_and_no_gradient() -> None:
    """The last windows see what came before; gradients do not."""
    network = untrained("tiny").network
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(1, 5, 3, 70, 98, generator=generator, requires_grad=True)
    predictions = roll_clips(network, images, 2)
    whole, _ = roll(network, images, network.initial_state(1, 70, 98))
    torch.testing.assert_close(predictions, whole[:, 3:], rtol=1e-4, atol=1e-5)
    alone = roll_clips(network, images[:, 3:], 2)
    assert (alone - predictions).abs().max() > 1e-3
    (gradient,) = torch.autograd.grad(predictions.sum(), images)
    assert (gradient[:, :3] == 0).all() and (gradient[:, 3:] != 0).any()
