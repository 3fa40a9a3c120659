"""Every benchmark, one after the other: `make bench`, or `python -m benchmarks.run [names]`.

Each runs in a process of its own, prints its table and writes `benchmarks/results/<name>.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

# Name -> what it answers. The slowest are last.
BENCHMARKS = {
    "decode": "decoding against faery, expelliarmus and evlib",
    "tencode": "packets to Tencode against decoders with numpy, tonic, evlib and faery",
    "reception": "dvs_msgs at 2 Mev/s over DDS: messages received, CPU",
    "networks": "one step of every network on the CPU",
    "gpu": "steps, cameras and training on a GPU, beside the floors of its measured peaks",
    "backends": "one step on PyTorch, onnxruntime and OpenVINO, and how far they are apart",
    "export_sizes": "how far exported graphs are from PyTorch at six sizes of the sensor",
    "skipping": "what skipped windows do to the recurrent state",
    "transport": "latency of 2 MB messages under the settings of the launch files",
    "simulator": "speed of the simulator, preset by preset",
    "memory": "resident memory over 100,000 windows",
    "costs": "how cost grows with event rate, resolution, cameras and overlap",
    "latency": "from a packet to the depth topic over DDS, stage by stage; steps beside decoding",
    "soak": "ten minutes of the running node at 10 Mev/s: memory, losses, latency",
    "overload": "floods of 1 to 100 Mev/s under every overload policy, and the recovery",
}
# What a benchmark exits with that the machine has nothing for; it says so in a sentence.
LEFT_OUT = 2


def main() -> int:
    """Run the chosen benchmarks; return 1 if one of them failed, one that was left out aside."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    given = parser.parse_args()
    names = given.names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        print(f"\n## {name}: {BENCHMARKS[name]}\n", flush=True)
        begin_s = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.bench_{name}"]
        code = subprocess.run(command, check=False).returncode
        # Who asks for it by name is to know that it was not measured.
        if code and (code != LEFT_OUT or given.names):
            failed.append(name)
        print(f"\n{name}: {time.monotonic() - begin_s:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
