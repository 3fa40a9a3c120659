"""`dae-ros bench`: what this machine can do, and what to type to make it do that."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dae_ros.cli.progress import ProgressBar
from dae_ros.cli.shared_options import parse_size
from dae_ros.cli.usage import WrongUsage, usage
from dae_ros.parameters import DepthParameters

if TYPE_CHECKING:
    from dae_ros.runtime.benchmark.event_path import EventPathRow
    from dae_ros.runtime.benchmark.network_steps import Contender, StepRow
    from dae_ros.runtime.benchmark.verdict import Verdict
    from dae_ros.runtime.benchmark.whole_chain import ChainRow

DESCRIPTION = """\
Measure this machine in less than two minutes, and say what to type.

  events     packets of a synthetic camera to event images, at 1 and 10 Mev/s: how much of a core
             the camera costs, whatever network follows
  network    one step of the weights on every backend that is installed, in turns; what is not
             installed is listed with the command that installs it
  chain      packets to depth through the pipeline of `dae-ros bag` and of the live node, with the
             fastest backend and with what `backend: auto` comes to
  verdict    how many Hz of depth that is, and the launch arguments that give it

Nothing else should run meanwhile: the load of the machine is in the first line."""

EPILOG = """\
reading the tables:
  p50, p95   half of the steps, and 95 % of them, take at most so long (wall time); CPU ms is over
             all threads. A p95 far above p50 means that something else wants the cores.
  deviation  how far the output is from PyTorch in float32, in % of the output's spread; bfloat16
             is fast only on processors that have it
  Hz         of the verdict: one second over the p95 of a window's time on the worker (encoding and
             network). The default asks for 20 (hop_s 0.05).

A checkpoint is exported once for each sensor size (seconds for `micro`, a minute or more for
`vits`); the file stays in the cache, where depth_node finds it. What does not fit into --within
is listed as not measured, with the command that prepares it for the next time. Where that is
what `backend: auto` comes to, the Hz are a lower bound, and no other backend is advised.

examples:
  dae-ros bench
  dae-ros bench --weights micro untrained:vits --size 640x480 --out bench.json
  dae-ros bench --threads 1 --seconds 20        one core for the network, quicker and coarser

`python -m benchmarks.run` of the repository compares with other packages, and takes hours
(benchmarks/README.md). What the backends are: docs/backends.md."""

_SHARES = {"events": 0.25, "network": 0.5, "chain": 0.25}
# To make a camera's packets and to compare outputs, beside what is timed.
_BESIDE_S = 10.0
_PACKAGES = ("numpy", "numba", "torch", "onnxruntime", "openvino")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "bench",
        help="what this machine can do: events, backends, Hz of depth",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["micro"],
        metavar="WEIGHTS",
        help="checkpoints, names from `dae-ros models list`, or untrained:NAME (default: micro)",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        default=(260, 346),
        metavar="WxH",
        help="of the sensor (default: 346x260)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="CPU threads of the network; 0, the default, leaves one core to ROS and the decoder",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=40.0,
        metavar="S",
        help="to measure for, in all; loading and exporting come on top (default: 40)",
    )
    parser.add_argument(
        "--within",
        type=float,
        default=100.0,
        metavar="S",
        help="for everything, loading and exporting included; what does not fit is left out and "
        "named (default: 100)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all figures there")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        WrongUsage: options out of range, no such folder, or weights that are no checkpoint or take
            camera frames.
        DaeError: the weights cannot be loaded.
    """
    begin_s = time.monotonic()
    if not 0.0 < args.seconds <= 3600.0:
        raise WrongUsage(f"--seconds must be above 0 and at most 3600, not {args.seconds:g}")
    if not args.seconds < args.within <= 86_400.0:
        raise WrongUsage(
            f"--within must be above --seconds ({args.seconds:g}) and at most 86400, not "
            f"{args.within:g}: loading and exporting need time as well"
        )
    if args.out is not None and not args.out.parent.is_dir():
        raise WrongUsage(f"there is no folder {args.out.parent} to write {args.out.name} to")
    if args.out is not None and args.out.is_dir():
        raise WrongUsage(f"--out {args.out} is a folder; give the name of a file in it")
    exported = [weights for weights in args.weights if weights.endswith(".onnx")]
    if exported:
        raise WrongUsage(
            f"{exported[0]} is exported for one backend's kind; give the checkpoint that it was "
            "made from, and every backend is measured"
        )
    with usage():
        all_parameters = [
            DepthParameters.from_mapping(
                {"weights": weights, "device": args.device, "threads": args.threads}
            )
            for weights in args.weights
        ]
    # numba and the network take seconds to import, which --help does not need.
    from dae_ros.model.device import device_of
    from dae_ros.model.weights import load_weights
    from dae_ros.runtime.benchmark.event_path import measure_event_path
    from dae_ros.runtime.benchmark.machine import machine, versions
    from dae_ros.runtime.network_settings import network_threads
    from dae_ros.runtime.processor import processor_flags, said_of
    from dae_ros.runtime.window_encoder import EVENT_ENCODERS

    # What cannot be measured is told before anything is.
    device_of(args.device)
    for weights in args.weights:
        if load_weights(weights).meaning.event_encoder not in EVENT_ENCODERS:
            raise WrongUsage(
                f"{weights} takes camera frames, and a synthetic event camera is what there is to "
                "measure with; give weights that take events"
            )
    height, width = args.size
    about = machine()
    threads = network_threads(all_parameters[0])
    print(
        f"{about['cpu']['model']}, {about['cpu']['usable_cores']} cores, load "
        f"{about['load_1_minute']}; sensor {width}x{height} px, {threads} threads for the network"
    )
    print(f"flags that matter to networks: {said_of(processor_flags())}")
    if about["load_1_minute"] > 1.0:
        print("something else is running: figures will be too slow; stop it and measure again")
    bar = ProgressBar()
    events = measure_event_path(
        height, width, args.seconds * _SHARES["events"], _part(bar, 0.0, _SHARES["events"])
    )
    bar.close()
    _print_events(events)
    results, verdicts = [], []
    rest = 1.0 - _SHARES["events"]
    for number, parameters in enumerate(all_parameters):
        begin = _SHARES["events"] + rest * number / len(all_parameters)
        # What one network leaves of its share of the time is for those after it.
        share_s = (begin_s + args.within - time.monotonic()) / (len(all_parameters) - number)
        result, verdict = _network(
            parameters, args, bar, begin, rest / len(all_parameters), time.monotonic() + share_s
        )
        results.append(result)
        verdicts.append(verdict)
    print()
    for verdict in verdicts:
        print(verdict.sentence)
    if args.out is not None:
        document = {
            "machine": about,
            "packages": versions(_PACKAGES),
            "sensor_px": [height, width],
            "threads": threads,
            "seconds": args.seconds,
            "within_s": args.within,
            "events": [dataclasses.asdict(row) for row in events],
            "networks": results,
        }
        args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"-> {args.out}")
    return 0


def _network(
    parameters: DepthParameters,
    args: argparse.Namespace,
    bar: ProgressBar,
    begin: float,
    share: float,
    end_s: float,
) -> tuple[dict[str, Any], Verdict]:
    """Measure one network until about `end_s` of the monotonic clock; print its tables."""
    from dae_ros.runtime.backend_choice import choose_backend
    from dae_ros.runtime.benchmark.network_steps import (
        Deadlines,
        find_contenders,
        measure_steps,
        parameters_of,
    )
    from dae_ros.runtime.benchmark.verdict import contender_of, fastest, judge
    from dae_ros.runtime.benchmark.whole_chain import measure_chain, medium_camera
    from dae_ros.runtime.estimator import hampered_by

    height, width = args.size
    seconds = args.seconds / len(args.weights)
    measuring_s = seconds * (_SHARES["network"] + _SHARES["chain"])
    contenders = find_contenders(
        parameters,
        height,
        width,
        _part(bar, begin, 0.4 * share),
        Deadlines(exports_s=end_s - measuring_s - _BESIDE_S, steps_s=end_s),
    )
    seconds *= min(1.0, max(0.0, end_s - time.monotonic()) / measuring_s)
    steps = measure_steps(
        contenders,
        height,
        width,
        seconds * _SHARES["network"],
        _part(bar, begin + 0.4 * share, 0.35 * share),
    )
    choice = choose_backend(parameters)
    offline = choose_backend(dataclasses.replace(parameters, overload="queue"))
    wanted: list[Contender] = [fastest(steps)]
    auto = contender_of(choice, steps, parameters)
    if auto is not None and auto not in wanted:
        wanted.append(auto)
    packets = medium_camera(height, width, min(1.0, max(0.2, seconds)))
    chains: dict[Contender, ChainRow] = {}
    for number, contender in enumerate(wanted):
        part = 0.25 * share / len(wanted)
        chains[contender] = measure_chain(
            parameters_of(parameters, contender),
            contenders.there[contender],
            packets,
            seconds * _SHARES["chain"] / len(wanted),
            _part(bar, begin + 0.75 * share + number * part, part),
        )
    bar.close()
    verdict = judge(parameters, steps, chains, choice, contenders.late)
    _print_network(parameters.weights, steps, list(chains.values()))
    for (backend, precision), estimator in contenders.there.items():
        for reason in hampered_by(estimator):
            print(f"{backend} {precision}: {reason}")
    not_measured = {**contenders.absent, **contenders.late}
    for (backend, precision), reason in not_measured.items():
        print(f"not measured: {backend} {precision}: {reason}")
    print(f"backend auto, live: {choice}")
    print(f"backend auto, recordings: {offline}")
    result = {
        "weights": parameters.weights,
        "steps": [dataclasses.asdict(row) for row in steps],
        "not_measured": {" ".join(name): text for name, text in not_measured.items()},
        "chains": [dataclasses.asdict(row) for row in chains.values()],
        "auto": {"live": dataclasses.asdict(choice), "recordings": dataclasses.asdict(offline)},
        "verdict": dataclasses.asdict(verdict),
    }
    return result, verdict


def _part(bar: ProgressBar, begin: float, share: float) -> Callable[[float, str], None]:
    """Return a report of a part of the whole."""
    return lambda done, detail: bar.update(min(1.0, begin + share * done), detail)


def _print_events(rows: list[EventPathRow]) -> None:
    print("\npackets to event images, one core")
    print(
        f"{'encoding':<13}{'Mev/s':>6}{'decodes Mev/s':>15}{'ms per window':>15}{'of a core':>11}"
    )
    for row in rows:
        print(
            f"{row.encoding:<13}{row.rate_mevs:>6}{row.decode_mevs:>15.0f}{row.window_ms:>15.2f}"
            f"{row.core_share:>11.1%}"
        )


def _print_network(weights: str, steps: list[StepRow], chains: list[ChainRow]) -> None:
    print(f"\n{weights}: one step")
    print(
        f"{'backend':<13}{'precision':<11}{'p50 ms':>8}{'p95 ms':>8}{'CPU ms':>8}{'deviation':>11}"
    )
    for row in steps:
        print(
            f"{row.backend:<13}{row.precision:<11}{row.p50_ms:>8.1f}{row.p95_ms:>8.1f}"
            f"{row.cpu_ms:>8.1f}{row.deviation:>11.2%}"
        )
    print(f"\n{weights}: the whole chain, packets to depth, p50 / p95 ms")
    print(
        f"{'backend':<13}{'precision':<11}{'windows/s':>10}{'encode':>14}{'infer':>16}{'total':>16}"
    )
    for chain in chains:
        cells = [
            f"{chain.stages[stage]['p50_ms']:.1f} / {chain.stages[stage]['p95_ms']:.1f}"
            for stage in ("encode", "infer", "total")
        ]
        print(
            f"{chain.backend:<13}{chain.precision:<11}{chain.windows_per_s:>10.1f}{cells[0]:>14}"
            f"{cells[1]:>16}{cells[2]:>16}"
        )
