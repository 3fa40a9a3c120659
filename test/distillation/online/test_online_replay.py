"""The replay buffer: who may learn, who judges, what stays, what is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.online.density import density_map
from dae_ros.distillation.online.observation import EventClip, LabelledClip, Refusal
from dae_ros.distillation.online.replay import (
    CLIPS_PER_BLOCK,
    Admitted,
    ReplayBuffer,
)
from dae_ros.errors import ConfigurationError
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import WINDOW_NS, observation, small_clip

LENGTH = 4
SPAN_NS = LENGTH * WINDOW_NS
STEP_NS = 100_000_000


def parameters(**changes: object) -> OnlineParameters:
    values = {"lead": 1, "burn_in": 1, "unroll": 2, "labels_per_clip": 1, "replay_clips": 40,
              "judged_blocks": 2}  # fmt: skip
    return OnlineParameters.from_mapping({**values, **changes})


def admitted(buffer: ReplayBuffer, clips: list[LabelledClip]) -> list[Admitted | Refusal]:
    return [buffer.admit(clip) for clip in clips]


def drive(seconds: float, **fields: object) -> list[LabelledClip]:
    """Return a clip every tenth of a second."""
    count = int(seconds * 1e9) // STEP_NS
    return [small_clip(SPAN_NS + i * STEP_NS, **fields) for i in range(count)]  # type: ignore[arg-type]


@given(
    st.integers(0, 400),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.integers(2, 6),
    st.sampled_from([0.0, 0.2, 0.4]),
)
def test_a_clip_is_of_the_side_that_holds_all_of_it(
    tenths: int, block_s: float, every: int, band_s: float
) -> None:
    """Tenth by tenth of a second: held out within one block, learned from where no band is."""
    buffer = ReplayBuffer(
        parameters(block_s=block_s, heldout_every=every, guard_band_s=band_s, replay_clips=8)
    )
    block, band, length = round(block_s * 10), round(band_s * 10), SPAN_NS // 100_000_000

    def side(tenth: int) -> str:
        if tenth // block % every == every - 1:
            return "heldout"
        for near in range(tenth - band, tenth + band + 1):
            if near >= -band and near // block % every == every - 1:
                return "band"
        return "train"

    sides = {side(tenth) for tenth in range(tenths, tenths + length)}
    blocks = {tenth // block for tenth in range(tenths, tenths + length)}
    expected = None
    if sides == {"train"}:
        expected = "train"
    elif sides == {"heldout"} and len(blocks) == 1:
        expected = "heldout"
    assert buffer.split_of(tenths * 10**8, tenths * 10**8 + SPAN_NS) == expected


@settings(max_examples=25)
@given(st.lists(st.integers(1, 900_000_000), min_size=1, max_size=120), st.integers(0, 9))
def test_nothing_leaks_and_nothing_overflows(gaps: list[int], seed: int) -> None:
    """Whatever is offered: sides stay a band apart with all windows, and limits hold."""
    buffer = ReplayBuffer(
        parameters(replay_clips=16, replay_mb=1, seed=seed, largest_similarity=1.0)
    )
    end = SPAN_NS
    keys = []
    for gap in gaps:
        end += gap
        result = buffer.admit(small_clip(end, rate_hz=float(gap), grey=gap % 256))
        if isinstance(result, Admitted):
            keys.append(result.key)
        else:
            assert result.reason in ("split_border", "redundant", "block_full", "crowded")
        assert len(buffer) <= 12 and len(buffer.keys) <= 16
        assert buffer.byte_count <= 1_000_000
    assert keys == list(range(len(keys)))
    learned = [clip.observation for clip in buffer.draw(0, 1000)]
    assert len(learned) == len(buffer)
    for block in buffer.heldout():
        for held in (clip.observation for clip in block.clips):
            assert held.start_ns // (2 * 10**9) == block.index == (held.end_ns - 1) // (2 * 10**9)
            for other in learned:
                apart = max(held.start_ns - other.end_ns, other.start_ns - held.end_ns)
                assert apart >= 500_000_000


def test_bytes_are_a_limit_of_their_own() -> None:
    """Clips go before the memory is full, and one that is larger than all of it is refused."""
    buffer = ReplayBuffer(parameters(replay_mb=1, heldout_every=0, largest_similarity=1.0))
    size = small_clip(SPAN_NS).byte_count
    many = ReplayBuffer(
        parameters(replay_mb=1, heldout_every=0, replay_clips=10_000, largest_similarity=1.0)
    )
    for clip in drive(1.2 * 1e6 / size / 10):
        many.admit(clip)
        assert many.byte_count <= 1_000_000
    assert many.byte_count > 950_000
    huge = small_clip(SPAN_NS, length=5000)
    result = buffer.admit(huge)
    assert isinstance(result, Refusal) and result.reason == "too_large" and len(buffer) == 0


def test_there_is_room_for_what_a_judgement_needs() -> None:
    """Of large clips as many blocks are held out as are judged by; larger ones are named."""
    limit = 1_000_000
    for length, blocks in ((100, 12), (200, 12), (240, None)):
        buffer = ReplayBuffer(parameters(replay_mb=1, judged_blocks=12, largest_similarity=1.0))
        size = small_clip(SPAN_NS, length=length).byte_count
        assert (24 * size <= limit) == (blocks is not None)
        # A clip in the middle of every held-out block, one before it to learn from.
        found = [
            buffer.admit(dataclasses.replace(clip, observation=moved(clip, at_ns)))
            for block in range(30)
            for clip in [small_clip(SPAN_NS, length=length)]
            for at_ns in (block * 10**10 + 4 * 10**9, block * 10**10 + 9 * 10**9)
        ]
        if blocks is None:
            assert {r.reason for r in found if isinstance(r, Refusal)} == {"too_large"}
            assert buffer.no_room is not None and buffer.no_room is found[-1]
            needed = f"'replay_mb' to {-(-24 * size // 10**6)} or more"
            assert needed in buffer.no_room.detail
        else:
            assert buffer.no_room is None
            assert len(buffer.heldout()) >= blocks and len(buffer) >= 12
            assert buffer.byte_count <= limit
    with pytest.raises(ConfigurationError, match="twice 'judged_blocks'"):
        parameters(replay_clips=23, judged_blocks=12)


def moved(clip: LabelledClip, end_ns: int) -> EventClip:
    """The same events, in windows so short that all of them lie in one block."""
    return dataclasses.replace(clip.observation, end_ns=end_ns, window_ns=1_000_000)


def test_a_red_light_replaces_only_its_own_kind() -> None:
    """Two minutes of one kind of clip leave every clip of the other terciles where it was."""
    buffer = ReplayBuffer(parameters(heldout_every=0, replay_clips=36, largest_similarity=1.0))
    random = np.random.default_rng(0)
    for i in range(400):
        rate, grey = random.uniform(2e5, 2e6), int(random.integers(40, 220))
        buffer.admit(small_clip(SPAN_NS + i * STEP_NS, rate_hz=rate, grey=grey))
    before = {clip.observation.end_ns: clip for clip in buffer.draw(0, 100)}
    rates = sorted(clip.observation.event_rate_hz for clip in before.values())
    fast = {end for end, clip in before.items() if clip.observation.event_rate_hz > rates[17]}
    for i in range(400, 1600):
        buffer.admit(small_clip(SPAN_NS + i * STEP_NS, rate_hz=1e4, grey=100))
    after = {clip.observation.end_ns for clip in buffer.draw(0, 100)}
    assert len(after) == 36
    assert len(fast & after) >= 0.7 * len(fast)
    slow = [end for end in after if end >= SPAN_NS + 400 * STEP_NS]
    assert 2 <= len(slow) <= 12


def test_recent_clips_stay_longer() -> None:
    """With a horizon of 10 s, little is left of what was a minute ago; with 1000 s, about half."""
    shares = []
    for horizon_s in (10.0, 1000.0):
        buffer = ReplayBuffer(
            parameters(heldout_every=0, replay_horizon_s=horizon_s, largest_similarity=1.0)
        )
        admitted(buffer, drive(120.0))
        ends = [clip.observation.end_ns for clip in buffer.draw(0, 100)]
        shares.append(np.mean([end < 60 * 10**9 for end in ends]))
    assert shares[0] < 0.1 and 0.2 < shares[1] < 0.8


def test_the_like_of_the_last_clip_is_refused() -> None:
    """The same place of events is redundant, another place is not; a held-out block gets one."""
    buffer = ReplayBuffer(parameters())
    first = buffer.admit(small_clip(10**9, seed=1))
    again = buffer.admit(small_clip(10**9 + STEP_NS, seed=1))
    other = buffer.admit(small_clip(10**9 + 2 * STEP_NS, seed=2))
    assert first == Admitted(0, "train") and other == Admitted(1, "train")
    assert isinstance(again, Refusal) and again.reason == "redundant" and "1.000" in again.detail
    # The same can be said without a label.
    last = small_clip(10**9 + 3 * STEP_NS, seed=2).observation
    foreseen = buffer.foresee(last)
    assert foreseen is not None and foreseen.reason == "redundant"
    assert buffer.foresee(small_clip(10**9 + 3 * STEP_NS, seed=3).observation) is None
    held = admitted(
        buffer,
        [small_clip(second * 10**9 + i * STEP_NS, seed=1) for second in (9, 19) for i in range(3)],
    )
    kinds = [r.split if isinstance(r, Admitted) else r.reason for r in held]
    assert kinds == ["heldout", "redundant", "redundant"] * 2


def test_noise_makes_no_two_places_alike() -> None:
    """Events of noise everywhere do not hide that the others are elsewhere."""
    buffer = ReplayBuffer(parameters(heldout_every=0))
    random = np.random.default_rng(0)
    clips = []
    for number in range(2):
        clip = small_clip(10**9 + number * STEP_NS, seed=1)
        windows = (random.random(clip.observation.windows.shape) < 0.9).astype(np.uint8)
        half = windows.shape[-1] // 2
        windows[..., half * number : half * (number + 1)] = 1
        clips.append(dataclasses.replace(
            clip, observation=dataclasses.replace(clip.observation, windows=windows)
        ))  # fmt: skip
    one, other = (density_map(clip.observation).ravel() for clip in clips)
    assert one @ other > 0.95 * np.linalg.norm(one) * np.linalg.norm(other)
    assert admitted(buffer, clips) == [Admitted(0, "train"), Admitted(1, "train")]


def test_a_block_that_has_no_clip_lacks_one() -> None:
    """Within a held-out block, and until it has a clip; nothing to learn from is lacking."""
    buffer = ReplayBuffer(parameters())
    held_ns, free_ns = 8_500_000_000, 3_000_000_000
    for _ in range(2):
        assert buffer.lacks(held_ns, held_ns + SPAN_NS)
        assert not buffer.lacks(free_ns, free_ns + SPAN_NS)
        assert not buffer.lacks(7_900_000_000, 7_900_000_000 + SPAN_NS)
        assert buffer.admit(small_clip(held_ns + SPAN_NS)) == Admitted(held_ns // 10**10, "heldout")
        assert not buffer.lacks(held_ns, held_ns + SPAN_NS)
        held_ns, free_ns = held_ns + 10**10, free_ns + 10**10


def test_held_out_blocks_are_the_recent_ones() -> None:
    """With room for eight clips, eight blocks are kept of fifteen, each with its newest clip."""
    buffer = ReplayBuffer(parameters(replay_clips=32, largest_similarity=1.0))
    results = admitted(buffer, drive(150.0))
    assert sum(isinstance(r, Refusal) and r.reason == "block_full" for r in results) > 0
    blocks = buffer.heldout()
    assert [block.index for block in blocks] == [4 + 5 * i for i in range(7, 15)]
    assert all(1 <= len(block.clips) <= CLIPS_PER_BLOCK for block in blocks)


def test_draws_depend_on_seed_and_step_alone() -> None:
    """Equal buffers draw equally, another step otherwise, strata equally often, no clip twice."""
    clips = [
        small_clip(SPAN_NS + i * STEP_NS, rate_hz=1e4 if i % 10 else 1e6 + i) for i in range(60)
    ]
    buffers = [
        ReplayBuffer(parameters(heldout_every=0, replay_clips=60, seed=seed, largest_similarity=1))
        for seed in (0, 0, 1)
    ]
    for buffer in buffers:
        admitted(buffer, clips)
    first, second, other = (
        [[clip.observation.end_ns for clip in buffer.draw(step, 5)] for step in range(50)]
        for buffer in buffers
    )
    assert first == second and first != other and first[0] != first[1]
    assert all(len(set(drawn)) == 5 for drawn in first)
    # Of some clips alone.
    among = [clip for clip in buffers[0].clips if clip.observation.end_ns % 3 == 0]
    drawn_ones = {id(clip) for step in range(60) for clip in buffers[0].draw(step, 3, among)}
    assert drawn_ones == {id(clip) for clip in among} and buffers[0].draw(0, 3, ()) == ()
    singles = [buffers[0].draw(step, 1)[0].observation.event_rate_hz for step in range(400)]
    # A tenth of the clips is fast, in a stratum of its own beside one other.
    assert np.mean([rate > 1e5 for rate in singles]) == pytest.approx(1 / 2, abs=0.1)


def test_a_restored_buffer_goes_on_as_the_old_one() -> None:
    """State and clips give the same draws and the same answers; a lost clip is only missing."""
    clips = drive(40.0)
    old = ReplayBuffer(parameters())
    kept = {}
    for clip in clips[:250]:
        result = old.admit(clip)
        if isinstance(result, Admitted):
            kept[result.key] = clip
    new = ReplayBuffer(parameters())
    assert new.restore(old.state(), kept) == 0
    assert new.keys == old.keys and new.byte_count == old.byte_count
    assert admitted(new, clips[250:]) == admitted(old, clips[250:])
    for step in range(5):
        assert [id(clip) for clip in new.draw(step, 4)] == [id(c) for c in old.draw(step, 4)]
    assert [block.index for block in new.heldout()] == [block.index for block in old.heldout()]
    lost = old.keys[3]
    fewer = ReplayBuffer(parameters())
    whole = {key: clip for key, clip in zip(range(10_000), clips, strict=False) if key != lost}
    assert fewer.restore(old.state(), whole) == 1
    assert lost not in fewer.keys
    new.clear()
    assert len(new) == 0 and new.heldout() == ()


def test_density_is_the_share_of_active_pixels() -> None:
    """Cell by cell: pixels of a cell times windows, of which so many have an event."""
    random = np.random.default_rng(0)
    codes = np.where(random.random((3, 26, 35)) < 0.3, 7, 0).astype(np.uint8)
    clip = observation(codes, np.zeros_like(codes), 10**9)
    density = density_map(clip)
    assert density.shape == (12, 16) and density.dtype == np.float32
    for row in range(12):
        for column in range(16):
            cell = codes[
                :,
                26 * row // 12 : 26 * (row + 1) // 12,
                35 * column // 16 : 35 * (column + 1) // 16,
            ]
            assert density[row, column] == pytest.approx((cell != 0).mean(), rel=1e-6)


def test_a_clip_must_fit_its_block() -> None:
    """Blocks and bands that leave no room for a clip are refused with a sentence."""
    for changes in ({"block_s": 0.1}, {"guard_band_s": 4.0}, {"heldout_every": 1}):
        with pytest.raises(ConfigurationError, match=r"held-out block|leaves nothing"):
            parameters(**changes)


@pytest.mark.parametrize(("clips", "share"), [(1, 0.67), (1, 0.5001), (4, 0.9), (3, 0.9)])
def test_a_step_must_have_room_for_a_clip_of_the_deployment(clips: int, share: float) -> None:
    """Anchors alone would teach nothing new for ever, and nobody would say so."""
    with pytest.raises(ConfigurationError, match="nothing of the deployment would be learned"):
        parameters(batch_clips=clips, anchor_share=share)
    assert parameters(batch_clips=2, anchor_share=0.67).batch_clips == 2
    assert parameters(batch_clips=1, anchor_share=0.0).batch_clips == 1
