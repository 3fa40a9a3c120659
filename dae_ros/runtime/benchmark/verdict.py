"""What the figures of a machine mean for whoever launches depth on it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from dae_ros.model.device import device_of
from dae_ros.model.weights import load_weights
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.arithmetic import usual_precision
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.benchmark.network_steps import Contender, StepRow
from dae_ros.runtime.benchmark.whole_chain import ChainRow
from dae_ros.runtime.graph_backends import runtime_device
from dae_ros.runtime.torch_precision import usual_torch_precision

# What rounding may cost, in standard deviations of the output, before speed is not worth it.
MOST_DEVIATION = 0.05
LAUNCH = "ros2 launch dae_ros depth.launch.py"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with one network.

    Attributes:
        contender: the fastest that was measured, backend and precision.
        hz: windows per second that it sustains; from the 95 % quantile of a window's time.
        lower_bound: of what this machine can do: there was no time to measure what `auto` comes to.
        command: what to type; the contender's backend and precision unless that is a lower bound.
        sentence: for people, with all of it.
    """

    contender: Contender
    hz: float
    lower_bound: bool
    command: str
    sentence: str


def fastest(rows: list[StepRow]) -> Contender:
    """Return the contender with the shortest step whose rounding costs little."""
    fair = [row for row in rows if row.deviation <= MOST_DEVIATION]
    best = min(fair or rows[:1], key=lambda row: row.p50_ms)
    return best.backend, best.precision


def auto_precision(parameters: DepthParameters, backend: str) -> str:
    """Return what the precision `auto` is on a backend, for weights and device of the parameters.

    Raises:
        WeightsError, ConfigurationError: the weights cannot be loaded, or the device is not there.
    """
    if backend in ("onnxruntime", "tensorrt"):
        # They may see a GPU where PyTorch sees none.
        return usual_precision(on_cpu=runtime_device(parameters.device, backend) == "cpu")
    device = device_of(parameters.device) if backend == "torch" else None
    if device is None or device.type == "cpu":
        return usual_precision(on_cpu=True)
    return usual_torch_precision(device, load_weights(parameters.weights).config)


def contender_of(
    choice: BackendChoice, rows: list[StepRow], parameters: DepthParameters
) -> Contender | None:
    """Return the contender that `auto` comes to; None where it was not measured."""
    auto = (choice.backend, auto_precision(parameters, choice.backend))
    return auto if auto in [(row.backend, row.precision) for row in rows] else None


def launch_command(
    weights: str, contender: Contender, auto: Contender | None, device: str = "auto"
) -> str:
    """Return the command that runs a contender live; it names what differs from `auto`."""
    words = [LAUNCH, f"weights:={weights}"]
    if device != "auto":
        words.append(f"device:={device}")
    backend, precision = contender
    if auto is None or backend != auto[0]:
        words.append(f"backend:={backend}")
    if auto is None or precision != auto[1]:
        words.append(f"precision:={precision}")
    return " ".join([words[0], *map(shlex.quote, words[1:])])


def judge(
    parameters: DepthParameters,
    steps: list[StepRow],
    chains: Mapping[Contender, ChainRow],
    choice: BackendChoice,
    late: Mapping[Contender, str],
) -> Verdict:
    """Return the verdict on one network.

    Where there was no time to measure what `auto` comes to, no other one is advised in its place:
    `auto` chose it because it is fast.

    Args:
        parameters: weights, device, hop.
        steps: of every contender.
        chains: of the fastest and of what `auto` comes to.
        choice: of `auto`, live.
        late: what there was no time for, and what to do about it, see `Contenders`.
    """
    best, auto = fastest(steps), contender_of(choice, steps, parameters)
    chosen = choice.backend, auto_precision(parameters, choice.backend)
    lower_bound = chosen in late
    chain = chains[best]
    hz, wanted_hz = 1e3 / chain.window_p95_ms, 1.0 / parameters.hop_s
    typed = (chosen, chosen) if lower_bound else (best, auto)
    command = launch_command(parameters.weights, *typed, parameters.device)
    backend, precision = best
    # Upwards, with a twentieth to spare.
    hop_s = math.ceil(0.105 * chain.window_p95_ms) / 100
    enough = (
        f"enough for the {wanted_hz:g} Hz of the default hop_s"
        if hz >= wanted_hz
        else f"less than the {wanted_hz:g} Hz of the default hop_s"
    )
    if hz < wanted_hz and not lower_bound:
        enough += (
            f": windows will be skipped; set hop_s to {hop_s:.2f} or more in a params_file, or "
            "take a smaller network"
        )
    sentence = (
        f"{parameters.weights}: {hz:.1f} Hz on {backend} in {precision} (95 % of windows take at "
        f"most {chain.window_p95_ms:.1f} ms), {enough}."
    )
    deviation = next(row.deviation for row in steps if (row.backend, row.precision) == best)
    if precision != "float32":
        sentence += f" {precision} changes depth by {100 * deviation:.1f} % of its spread."
    if lower_bound:
        sentence += (
            f" That is a lower bound: backend auto comes to {' in '.join(chosen)}, which was not "
            "measured."
        )
    elif auto is None:
        sentence += f" backend auto comes to {choice.backend}, which was not measured; see above."
    sentence += f" Type: {command}"
    if lower_bound:
        # On a line of its own: it ends with a command, too.
        sentence += f"\n{' in '.join(chosen)}: {late[chosen]}"
    return Verdict(best, hz, lower_bound, command, sentence)
