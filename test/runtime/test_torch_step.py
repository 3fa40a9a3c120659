"""Steps at fixed addresses: the same numbers as the network written out, and what a GPU needs.

Long because runs with and without graphs, of one camera and of several, are compared by the same
stand-ins and oracles, which stand here.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import ModelConfig, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.representation.event_image import EventImage, planes_of
from dae_ros.representation.tencode_code import unpack_tencode
from dae_ros.runtime.background import in_background
from dae_ros.runtime.torch_process import EXACT_ARITHMETIC, RECORDING, release_unused
from dae_ros.runtime.torch_runner import DirectRunner, GraphRunner, Runner
from dae_ros.runtime.torch_slots import MOST_SLOTS, SlotPool
from dae_ros.runtime.torch_step import Precision, StaticStep, StaticWeights
from test.reference.eager_steps import EagerSteps, echo
from test.reference.packed_tencode import packed

CPU = torch.device("cpu")
SIZE = (60, 80)


def small(name: str) -> LoadedModel:
    """Return random weights of a network in a size for tests."""
    if name == "tiny convgru":
        loaded = untrained("tiny")
        config = cast("ModelConfig", loaded.config)
        config = dataclasses.replace(config, recurrence="convgru")
        torch.manual_seed(3)
        return dataclasses.replace(loaded, config=config, network=build_network(config).eval())
    if name == "vits shaped":
        loaded = untrained("tiny")
        config = variant("vits", input_height=70, input_width=98)
        torch.manual_seed(4)
        return dataclasses.replace(loaded, config=config, network=build_network(config).eval())
    return untrained(name)


def images(count: int, channels: int = 3, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return `count` images of noise."""
    rng = np.random.default_rng(seed)
    return [rng.random((channels, *SIZE), dtype=np.float32) for _ in range(count)]


def as_tencode(noise: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return a Tencode made of noise, as planes and as its code."""
    on, seen = noise[0] > 0.4, noise[2] > 0.3
    image = np.where(seen, np.stack([on, noise[1], ~on]), 0).astype(np.float32)
    return image, packed(image)


def changed(loaded: LoadedModel) -> LoadedModel:
    """Return a copy of which every weight is another, the positions among them."""
    network = copy.deepcopy(loaded.network)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return dataclasses.replace(loaded, network=network)


def made(loaded: LoadedModel, precision: Precision = "float32", cameras: int = 1) -> StaticStep:
    return StaticStep(StaticWeights(loaded, CPU, precision), cameras, *SIZE)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("tiny", "float32"),
        ("tiny convgru", "float32"),
        ("micro", "float32"),
        ("vits shaped", "float32"),
        ("tiny_e2depth", "float32"),
        ("tiny", "bfloat16"),
        ("tiny", "float16"),
        ("micro", "bfloat16"),
        ("tiny_ereformer", "bfloat16"),
    ],
)
def test_steps_are_those_of_the_network_bit_for_bit(name: str, precision: Precision) -> None:
    """Three steps, a reset, two steps: the numbers and states of new tensors at each step.

    In half precision autocast rounds the weights at each step there.
    """
    loaded = small(name)
    step, expected = made(loaded, precision), EagerSteps(loaded, precision)
    runner = DirectRunner(step)
    for index, image in enumerate(images(5, step.shape[1])):
        if index == 3:
            step.reset()
            expected.reset()
        (prediction,), (largest,) = runner.run([image])
        np.testing.assert_array_equal(prediction, expected.step(image))
        for ours, theirs in zip(step.state, expected.state, strict=True):
            assert torch.equal(ours, theirs)
        assert largest == max(
            np.abs(prediction).max(), *(float(tensor.abs().max()) for tensor in step.state)
        )


def addresses(step: StaticStep) -> list[int]:
    """Return where everything lies that a step reads or writes."""
    network = step.weights.network
    tensors = [*network.parameters(), *network.buffers(), *step.states[0], *step.states[1]]
    return [tensor.data_ptr() for tensor in (*tensors, step.present)]


def test_nothing_moves_while_states_take_turns() -> None:
    """Steps, resets and new weights leave every address; each step writes what the last read."""
    step = made(small("tiny"))
    runner = DirectRunner(step)
    before = addresses(step)
    assert len(set(before)) == len(before)
    for index, image in enumerate(images(5)):
        assert step.parity == index % 2
        read = [tensor.clone() for tensor in step.states[step.parity]]
        runner.run([image])
        assert all(torch.equal(a, b) for a, b in zip(read, step.states[index % 2], strict=True))
        assert not torch.equal(read[0], step.state[0])
    step.weights.load(changed(small("tiny")).network)
    step.reset()
    runner.run(images(1))
    assert addresses(step) == before


@pytest.mark.parametrize("name", ["tiny", "tiny convgru", "micro", "tiny_ereformer"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_loaded_weights_are_as_if_fresh(name: str, precision: Precision) -> None:
    """After `load` a step gives the bits of weights that were never others, positions included."""
    loaded = small(name)
    step, others = made(loaded, precision), changed(loaded)
    image = images(1, step.shape[1])[0]
    first = DirectRunner(step).run([image])[0]
    step.weights.load(others.network)
    step.reset()
    expected = DirectRunner(made(others, precision)).run([image])[0]
    np.testing.assert_array_equal(DirectRunner(step).run([image])[0], expected)
    assert not np.array_equal(first, expected)


def test_the_given_network_is_left_alone() -> None:
    """Neither other weights nor another size or precision reach the network that was given."""
    loaded = small("tiny")
    before = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    step = made(loaded, "bfloat16")
    step.weights.load(changed(loaded).network)
    after = loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_step_that_fails_changes_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error half-way leaves the state that the step began with."""
    step = made(small("tiny"))
    runner = DirectRunner(step)
    runner.run(images(1))
    before = [tensor.clone() for tensor in step.state]
    with monkeypatch.context() as patch:
        patch.setattr(step.weights.fitting, "restore", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.run(images(1))
    assert all(torch.equal(a, b) for a, b in zip(before, step.state, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["prediction", "first state", "last state"])
def test_one_number_that_is_not_finite_is_seen(
    monkeypatch: pytest.MonkeyPatch, bad: float, place: str
) -> None:
    """The largest magnitude of a camera, and of no other, tells of one bad number anywhere."""
    step = made(small("tiny"), cameras=2)
    network = type(step.weights.network)
    forward = network.forward

    def spoiled(*arguments: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        prediction, state = forward(*arguments)
        tensors = {"prediction": prediction, "first state": state[0], "last state": state[-1]}
        tensors[place][1, 0, 0, 0] = bad
        return prediction, state

    monkeypatch.setattr(network, "forward", spoiled)
    largest = DirectRunner(step).run(images(2))[1]
    assert np.isfinite(largest).tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "precision", "cameras"),
    [
        ("tiny", "float32", 1),
        ("tiny convgru", "bfloat16", 1),
        ("tiny", "bfloat16", 2),
        ("micro", "float32", 2),
        ("tiny_e2depth", "bfloat16", 1),
        ("tiny_ereformer", "float32", 1),
    ],
)
def test_a_step_never_looks_at_a_value(name: str, precision: Precision, cameras: int) -> None:
    """Tensors without values run through: nothing is read back, so that a GPU can record it."""
    step = made(small(name), precision, cameras)
    with FakeTensorMode(allow_non_fake_inputs=True), step.weights.arithmetic():
        predictions, largest = step.advance(torch.zeros(step.shape), 0)
    assert predictions.shape == (cameras, *SIZE)
    assert largest.shape == (cameras,)


def test_looking_at_a_value_would_be_noticed() -> None:
    """The test above fails where a step reads a number."""
    with (
        FakeTensorMode(),
        pytest.raises(DataDependentOutputException),
    ):
        bool(torch.zeros(3).sum() > 0)


def test_three_cameras_are_three_single_ones() -> None:
    """Cameras that come and go, one reset alone: each as if it had the network for itself."""
    loaded = small("tiny")
    step = made(loaded, cameras=3)
    together = DirectRunner(step)
    steps = [made(loaded) for _ in range(3)]
    alone = [DirectRunner(single) for single in steps]
    for turn, there in enumerate([(0, 1, 2), (1, 2), (0,), (0, 1, 2), (2, 0)]):
        given = images(3, seed=turn)
        if turn == 3:
            step.reset(1)
            steps[1].reset()
        before = [tensor.clone() for tensor in step.state]
        predictions, _ = together.run([given[k] if k in there else None for k in range(3)])
        for camera in range(3):
            if camera not in there:
                for old, new in zip(before, step.state, strict=True):
                    assert torch.equal(old[camera], new[camera])
                continue
            (expected,), _ = alone[camera].run([given[camera]])
            np.testing.assert_allclose(predictions[camera], expected, rtol=1e-5, atol=1e-5)
            for ours, theirs in zip(step.state, steps[camera].state, strict=True):
                torch.testing.assert_close(ours[camera], theirs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "cameras"), [("tiny", 1), ("tiny_e2depth", 1), ("tiny", 2)])
def test_replayed_steps_are_the_direct_ones(name: str, cameras: int) -> None:
    """Through fixed buffers and something that replays: the same bits, and new weights count."""
    loaded = small(name)
    step, direct = made(loaded, cameras=cameras), made(loaded, cameras=cameras)
    replayed, expected = GraphRunner(step, echo), DirectRunner(direct)
    assert replayed.fallback is None
    before = addresses(step)
    results = []
    for turn in range(6):
        given: list[NDArray[np.float32] | None] = [*images(cameras, step.shape[1], seed=turn)]
        if turn == 3:
            for each in (step, direct):
                each.weights.load(changed(loaded).network)
                each.reset()
        if turn == 4:
            given[1:] = [None] * (cameras - 1)
        there = [camera for camera, image in enumerate(given) if image is not None]
        ours, theirs = replayed.run(given), expected.run(given)
        results += [(mine[there], other[there]) for mine, other in zip(ours, theirs, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(step.state, direct.state, strict=True))
    # Compared at the end: what was handed out must not be written over.
    for mine, other in results:
        np.testing.assert_array_equal(mine, other)
    assert addresses(step) == before


def test_tencode_goes_over_in_sixteen_bits() -> None:
    """The bits of a step on what the codes stand for; other images go over as they are."""
    loaded = small("tiny")
    replayed, expected = GraphRunner(made(loaded), echo), DirectRunner(made(loaded))
    for index, noise in enumerate(images(4)):
        image, code = as_tencode(noise)
        given: EventImage = code if index == 1 else image
        meant = unpack_tencode(code)
        assert not np.array_equal(image, meant)
        if index == 2:
            given = meant = noise
        ours, theirs = replayed.run([given]), expected.run([meant])
        np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("make", [DirectRunner, lambda step: GraphRunner(step, echo)])
@pytest.mark.parametrize("cameras", [1, 2])
def test_codes_are_stepped_as_the_planes_they_stand_for(
    make: Callable[[StaticStep], Runner], cameras: int
) -> None:
    """A code alone, beside another, a camera without a window and planes that are no Tencode."""
    loaded = small("tiny")
    step, other = made(loaded, cameras=cameras), made(loaded, cameras=cameras)
    runner, expected = make(step), DirectRunner(other)
    for turn, noise in enumerate(images(4)):
        code = as_tencode(noise)[1]
        rest = ([as_tencode(noise[::-1])[1]], [None], [noise], [noise])[turn][: cameras - 1]
        given: list[EventImage | None] = [code, *rest]
        before = code.copy()
        planes = [None if image is None else planes_of(image) for image in given]
        ours, theirs = runner.run(given), expected.run(planes)
        np.testing.assert_array_equal(code, before)
        for camera, image in enumerate(given):
            if image is not None:
                np.testing.assert_array_equal(ours[0][camera], theirs[0][camera])
        assert all(torch.equal(a, b) for a, b in zip(step.state, other.state, strict=True))


def test_a_step_that_cannot_be_recorded_runs_directly(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is logged, and the results are those of the direct step from a zero state."""

    def refused(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        function()
        raise RuntimeError("operation not permitted when stream is capturing")

    loaded = small("tiny")
    runner = GraphRunner(made(loaded), refused)
    assert "not permitted" in str(runner.fallback)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not permitted" in caplog.text
    expected = DirectRunner(made(loaded))
    for image in images(3):
        np.testing.assert_array_equal(runner.run([image])[0], expected.run([image])[0])


def test_steps_are_recorded_one_at_a_time() -> None:
    """Whoever records meanwhile waits, from the first direct step to the last comparison."""
    loaded, inside, most = small("tiny"), 0, 0

    def slow(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        replay = echo(function)
        inside -= 1
        return replay

    steps = [made(loaded) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        runners = list(threads.map(lambda step: GraphRunner(step, slow), steps))
    assert most == 1 and all(runner.fallback is None for runner in runners)


def test_the_cache_is_not_emptied_while_a_step_is_recorded() -> None:
    """Whoever gives memory back waits for the end of the recording."""
    with RECORDING:
        work = in_background(lambda: release_unused(torch.device("cuda")))
        assert not work.join(0.2)
    assert work.join(60.0) and work.result() is None


def precisions() -> list[str]:
    kinds = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    return [kind.fp32_precision for kind in kinds]


def test_arithmetic_stays_exact_until_the_last_thread_has_left() -> None:
    """A step that ends does not take the setting from one that is recorded on another thread."""
    before = precisions(), torch.backends.cudnn.deterministic
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(EXACT_ARITHMETIC)
    second.enter_context(EXACT_ARITHMETIC)
    first.close()
    assert (precisions(), torch.backends.cudnn.deterministic) == (["ieee"] * 3, True) != before
    second.close()
    assert (precisions(), torch.backends.cudnn.deterministic) == before


@pytest.mark.parametrize(
    ("asked", "variable"),
    [
        ("torch.backends.fp32_precision = 'tf32'", "0"),
        ("torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True", "0"),
        ("torch.set_float32_matmul_precision('high')", "0"),
        ("pass", "1"),
    ],
)
def test_float32_is_float32_whatever_was_asked_for_before(asked: str, variable: str) -> None:
    """By either of PyTorch's settings or by the environment, twice in a row; then as it was."""
    program = f"""
import torch
from dae_ros.runtime.torch_process import EXACT_ARITHMETIC
{asked}
kinds = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
before = [kind.fp32_precision for kind in kinds]
assert "tf32" in before
for _ in range(2):
    with EXACT_ARITHMETIC:
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
        assert torch.backends.cudnn.deterministic
    assert [kind.fp32_precision for kind in kinds] == before
    assert not torch.backends.cudnn.deterministic
"""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": variable}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize("asked", ["True", "False"])
def test_float32_is_float32_with_a_pytorch_of_the_older_settings_alone(asked: str) -> None:
    """Before 2.9 it has no others."""
    program = f"""
import torch
from dae_ros.runtime.torch_process import EXACT_ARITHMETIC
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
del type(torch.backends).fp32_precision, type(cudnn).fp32_precision, type(cudnn).conv
cudnn.allow_tf32 = matmul.allow_tf32 = {asked}
for _ in range(2):
    with EXACT_ARITHMETIC:
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == (False, False, True)
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == ({asked}, {asked}, False)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("part", "fault"), [(0, "output"), (1, "state"), (2, "all")])
def test_replays_that_deviate_are_not_used(part: int, fault: str) -> None:
    """One stale thing in one of the three graphs (two steps, the image) is found before any use."""
    loaded = small("tiny")
    step = made(loaded)
    recorded = 0

    def faulty(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        nonlocal recorded
        recorded += 1
        if recorded != part + 1:
            return echo(function)
        if fault == "all":
            return lambda: torch.empty(0)
        output = function()

        def replay() -> Tensor:
            if fault == "output":
                function()
            else:
                before = [tensor.clone() for tensor in step.states[1 - part]]
                output.copy_(function())
                for tensor, value in zip(step.states[1 - part], before, strict=True):
                    tensor.copy_(value)
            return output

        return replay

    runner = GraphRunner(step, faulty)
    assert recorded == 3
    assert str(runner.fallback).startswith("replayed, the ")
    expected = DirectRunner(made(loaded))
    for image in images(2):
        np.testing.assert_array_equal(runner.run([image])[0], expected.run([image])[0])


def test_slots_are_filled_again() -> None:
    """What was given back holds the next weights, without a state; never more than three stay."""
    loaded, others = small("tiny"), changed(small("tiny"))
    pool = SlotPool(CPU, "float32")
    slot = pool.take(loaded)
    step, runner = slot.fit(*SIZE)
    runner.run(images(1))
    pool.give_back(slot)
    again = pool.take(others)
    assert again is slot
    assert again.fit(*SIZE)[0] is step
    expected = DirectRunner(made(others)).run(images(1))[0]
    np.testing.assert_array_equal(runner.run(images(1))[0], expected)
    taken = [again, *(pool.take(loaded) for _ in range(MOST_SLOTS))]
    for one in taken:
        pool.give_back(one)
    kept = [pool.take(loaded) for _ in range(MOST_SLOTS + 1)]
    assert len({id(one) for one in kept} & {id(one) for one in taken}) == MOST_SLOTS


def test_a_slot_that_cannot_be_filled_goes() -> None:
    """Weights of another network leave the pool as it was without that slot."""
    pool = SlotPool(CPU, "float32")
    slot = pool.take(small("tiny"))
    pool.give_back(slot)
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):
        pool.take(small("micro"))
    taken = [pool.take(small("tiny")) for _ in range(MOST_SLOTS)]
    assert slot not in taken
    for one in taken:
        pool.give_back(one)
    assert {id(pool.take(small("tiny"))) for _ in range(MOST_SLOTS)} == {id(one) for one in taken}


def test_another_size_makes_another_step() -> None:
    """The step for a size is kept until another size is asked for."""
    slot = SlotPool(CPU, "float32").take(small("tiny"))
    first, _ = slot.fit(*SIZE)
    assert slot.fit(*SIZE)[0] is first
    second, runner = slot.fit(61, 99)
    assert (slot.step, second.shape[2:]) == (second, (61, 99))
    assert runner.run([np.zeros((3, 61, 99), np.float32)])[0].shape == (1, 61, 99)
