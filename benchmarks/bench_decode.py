"""Decoding rates, side by side with the decoders that install from PyPI.

    python -m benchmarks.bench_decode [--quick]

EVT 3.0 from a file (page cache, reading included) against expelliarmus (C), faery (Rust) and
evlib (Rust; builds a data frame), and in packets as a node receives them (1 ms, the recording's
own). Then every other encoding from memory. One thread each; CPU time of the process, contenders
interleaved, medians over the rounds; a ratio is the median of the ratios of each round. A
contender whose event count differs is named below the table.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.event_goals import decode_goals
from benchmarks.goals import conclude
from benchmarks.record import record
from dae_ros.events.cdr import read_packet
from dae_ros.events.codecs import create_decoder, supported_encodings, warm_up
from dae_ros.runtime.benchmark.event_path import Packets, decode_packets, in_packets
from dae_ros.simulation.moving_texture import moving_texture

CANNOT = -1  # events of a contender that gives up on a stream
# Events of a chunk still fit into the second cache, and each call of the decoder has much to do.
CHUNK_OCTETS = 2**18
PEERS = ("faery", "expelliarmus", "evlib")
Contender = Callable[[], int]


def raw_file(folder: Path, payload: bytes, width: int, height: int) -> Path:
    """Write a Prophesee `.raw` file whose header all contenders understand."""
    header = (
        "% camera_integrator_name Prophesee\n% date 2025-01-01 00:00:00\n% evt 3.0\n"
        f"% format EVT3;height={height};width={width}\n% geometry {width}x{height}\n"
        "% integrator_name Prophesee\n% plugin_name hal_plugin_prophesee\n"
        "% sensor_generation 4.2\n% end\n"
    )
    path = folder / "stream.raw"
    path.write_bytes(header.encode() + payload)
    return path


def ours_from_file(path: Path, width: int, height: int, *, columns: bool = False) -> int:
    """Decode a file in chunks of 256 kB.

    To packed events, 8 octets each, as the surface takes them, or on to their columns.
    """
    decoder = create_decoder("evt3", width, height)
    events = 0
    with path.open("rb") as file:
        while file.readline() != b"% end\n":
            pass
        while chunk := file.read(CHUNK_OCTETS):
            for part in decoder.decode_packet(chunk).segments:
                events += len(part.t) if columns else len(part)
    return events


def peers(path: Path) -> dict[str, Contender]:
    """Return the peers that are installed, each decoding all of `path`."""
    contenders: dict[str, Contender] = {}
    if find_spec("faery"):
        import faery

        def decode_faery() -> int:
            return sum(len(packet) for packet in faery.events_stream_from_file(path))

        contenders["faery"] = decode_faery
    if find_spec("expelliarmus"):
        from expelliarmus import Wizard

        def decode_expelliarmus() -> int:
            events = Wizard(encoding="evt3").read(path)  # None: a word that it does not know
            return CANNOT if events is None else len(events)

        contenders["expelliarmus"] = decode_expelliarmus
    if find_spec("evlib"):
        for variable in ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):  # read when it is imported
            os.environ.setdefault(variable, "1")
        import evlib

        def decode_evlib() -> int:
            return int(evlib.load_events(str(path)).collect().height)

        contenders["evlib"] = decode_evlib
    return contenders


def cpu_seconds(contender: Contender) -> float:
    """Return the CPU time of this process for one run."""
    start = time.process_time()
    contender()
    return time.process_time() - start


def compare(contenders: dict[str, Contender], events: int, rounds: int) -> dict[str, Any]:
    """Run all contenders in turn, `rounds` times; the first of them is ours."""
    counted = {name: contender() for name, contender in contenders.items()}
    seconds: dict[str, list[float]] = {
        name: [] for name, number in counted.items() if number != CANNOT
    }
    for _ in range(rounds):
        for name, times in seconds.items():
            times.append(cpu_seconds(contenders[name]))
    first = next(iter(contenders))
    result: dict[str, Any] = {"events": events, "counted": counted}
    result["mev_per_s"] = {
        name: round(events / statistics.median(times) / 1e6, 1) for name, times in seconds.items()
    }
    result["ratio_ours_to"] = {
        name: round(statistics.median(b / a for a, b in zip(seconds[first], times, strict=True)), 2)
        for name, times in seconds.items()
        if name != first
    }
    return result


def recorded_packets() -> Packets:
    """Return the payloads of the real EVT 3.0 recording, none where it is not at hand."""
    default = Path(__file__).resolve().parents[2] / "shared" / "recordings"
    folder = Path(os.environ.get("DAE_ROS_RECORDINGS", default)) / "evt3_640x480"
    path = folder / "test_events_1.db3"
    if not path.is_file():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as storage:
        rows = storage.execute("SELECT data FROM messages ORDER BY timestamp").fetchall()
    packets = [read_packet("event_camera_msgs/msg/EventPacket", row[0]) for row in rows]
    return [(bytes(packet.payload), 0) for packet in packets]


def table_row(name: str, octets_per_event: float, result: dict[str, Any]) -> str:
    """Return one line of the markdown table: rates, and ratios of ours to each peer."""
    rates, ratios = result["mev_per_s"], result["ratio_ours_to"]
    cells = [
        name,
        f"{octets_per_event:.2f}",
        f"{rates['ours']:.0f}",
        f"{rates['ours_columns']:.0f}",
        f"{rates['ours_packets']:.0f}",
    ]
    for peer in PEERS:
        if peer in rates:
            cells.append(f"{rates[peer]:.0f} (x{ratios[peer]:.1f})")
        else:
            cells.append("gives up" if peer in result["counted"] else "not installed")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run everything, print markdown tables and write `results/decode.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300,000 events and 3 rounds")
    quick = parser.parse_args().quick
    events_wanted, rounds = (300_000, 3) if quick else (3_000_000, 9)
    load = os.getloadavg()[0]
    for encoding in supported_encodings():
        warm_up(encoding)
    results: dict[str, Any] = {"rounds": rounds, "chunk_octets": CHUNK_OCTETS}

    versions = [
        f"{peer} {metadata.version(peer)}" if find_spec(peer) else f"{peer} not installed"
        for peer in PEERS
    ]
    print(f"EVT 3.0, Mev/s on one core (ratio: ours / peer); {', '.join(versions)}\n")
    print(
        "| stream | B/event | ours, file | ours, file to columns | ours, packets | "
        + " | ".join(PEERS)
        + " |"
    )
    print("|---|---|---|---|---|---|---|---|")
    evt3: dict[str, Any] = {}
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as folder:

        def run(label: str, packets: Packets, events: int, width: int, height: int) -> None:
            payload = b"".join(octets for octets, _ in packets)
            path = raw_file(Path(folder), payload, width, height)
            contenders: dict[str, Contender] = {
                "ours": partial(ours_from_file, path, width, height),
                "ours_columns": partial(ours_from_file, path, width, height, columns=True),
                "ours_packets": partial(decode_packets, "evt3", packets, width, height),
                **peers(path),
            }
            result = compare(contenders, events, rounds)
            result["octets_per_event"] = round(len(payload) / events, 2)
            evt3[label] = result
            print(table_row(label, len(payload) / events, result), flush=True)
            for contender, counted in result["counted"].items():
                if counted not in (events, CANNOT):
                    remarks.append(f"{label}: {contender} finds {counted} events of {events}")

        for name, width, height in (("VGA", 640, 480), ("HD", 1280, 720)):
            for rate in (1, 10, 50, 100):
                events = moving_texture(height, width, rate, events_wanted)
                packets = in_packets("evt3", events, width, height, 1.0)
                run(f"{name} {rate} Mev/s", packets, len(events), width, height)
        recorded = recorded_packets()
        if recorded:
            run(
                "recording, 0.17 Mev/s",
                recorded,
                decode_packets("evt3", recorded, 640, 480),
                640,
                480,
            )
    results["evt3"] = evt3
    print("", *remarks, sep="\n")

    print("\nOther encodings, 346x260 at 10 Mev/s, packets of 10 ms from memory\n")
    print("| encoding | B/event | Mev/s |")
    print("|---|---|---|")
    events = moving_texture(260, 346, 10, events_wanted)
    others: dict[str, Any] = {}
    for encoding in supported_encodings():
        packets = in_packets(encoding, events, 346, 260, 10.0)
        contender = partial(decode_packets, encoding, packets, 346, 260)
        result = compare({"ours": contender}, len(events), rounds)
        result["octets_per_event"] = round(sum(len(q) for q, _ in packets) / len(events), 2)
        others[encoding] = result
        rate = result["mev_per_s"]["ours"]
        print(f"| {encoding} | {result['octets_per_event']} | {rate:.0f} |")
    results["encodings"] = others
    conclude(results, decode_goals(results), load)
    print(f"\nwritten to {record('decode', results)}")


if __name__ == "__main__":
    main()
