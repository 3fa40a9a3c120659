"""Turn finished runs into the weights that ship: `models/*.safetensors`, cards and manifest.

    python -m scripts.ship_weights output/first_weights

The folder is what scripts/train_first_weights.sh leaves. Of each run, last.safetensors (the
best was chosen on held-out worlds, which it could not be scored on any more) becomes
`models/<name>.safetensors` in half precision, with its meta-data. The scores come from
benchmarks/results/first_weights.json; where that file is of other weights, the benchmark is run
first. The same runs and scores give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dae_ros.errors import DaeError, WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, read_provenance, save_checkpoint
from dae_ros.model.manifest import read_manifest
from scripts.model_card import ROOT, SHIPPED, Shipped, write_card

# What is written for the folder in which somebody trained.
FOLDER = "output/first_weights"
LARGEST_MB = 25.0
NOTE = (
    "trained on simulated worlds only: in worlds like those its metres are as right as "
    "models/{name}.md says, everywhere else they are a guess"
)


def main(arguments: list[str] | None = None) -> int:
    """Pack, measure where needed, write cards and manifest; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what scripts/train_first_weights.sh left")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="where to put them")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "benchmarks" / "results" / "first_weights.json",
        help="scores of bench_first_weights",
    )
    parser.add_argument("--processes", type=int, default=2, help="of the measurement")
    options = parser.parse_args(arguments)
    try:
        packed = {item: pack(item, options.folder, options.models) for item in SHIPPED}
        total_mb = sum(_file(loaded).stat().st_size for loaded in packed.values()) / 1e6
        if total_mb > LARGEST_MB:
            raise WeightsError(f"{total_mb:.1f} MB are too large to ship ({LARGEST_MB:g} MB)")
        runs = {
            read_provenance(_file(loaded))["packed_from"]: item.name
            for item, loaded in packed.items()
        }
        results = measured(options.folder, options.results, runs, options.processes)
        manifest = options.models / "manifest.yaml"
        text = manifest.read_text(encoding="utf-8")
        for item, loaded in packed.items():
            text = with_entry(text, item.name, entry(item, loaded))
            card = write_card(item, loaded, results, runs)
            (options.models / f"{item.name}.md").write_text(card, encoding="utf-8")
        manifest.write_text(text, encoding="utf-8")
        read_manifest(options.models)
    except DaeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(packed)} files, {total_mb:.1f} MB, with cards and manifest in {options.models}")
    return 0


def pack(item: Shipped, folder: Path, models: Path) -> LoadedModel:
    """Write one file of half precision and return it as it loads.

    Raises:
        WeightsError: the run has no checkpoint, or its meta-data names a place of one machine.
    """
    source = folder / item.run / "last.safetensors"
    loaded = load_checkpoint(source)
    target = models / f"{item.name}.safetensors"
    save_checkpoint(
        target,
        loaded.network,
        loaded.meaning,
        dtype=torch.float16,
        extra={**without_places(read_provenance(source)), "packed_from": loaded.digest},
        notes=[NOTE.format(name=item.name)],
    )
    return load_checkpoint(target, name=item.name)


def without_places(provenance: Mapping[str, str]) -> dict[str, str]:
    """Write `output/first_weights` for the folder in which a run found its clips.

    Raises:
        WeightsError: another absolute path is left.
    """
    trained_in = str(Path(json.loads(provenance["settings"])["clips"]).parent)
    result = {
        key: value.replace(f"{trained_in}/", f"{FOLDER}/") for key, value in provenance.items()
    }
    for key, value in result.items():
        found = re.search(r'(?:^|["\s,])([/~][\w./-]+)', value)
        if found:
            raise WeightsError(
                f"the meta-data '{key}' names {found[1]}, a place of one machine; train with paths "
                "below one folder, as scripts/train_first_weights.sh does",
                key=key,
            )
    return result


def measured(
    folder: Path, path: Path, runs: Mapping[str, str], processes: int
) -> Mapping[str, Any]:
    """Return the benchmark's results of exactly these weights, measuring them if there are none.

    Args:
        folder: of the runs.
        path: of the results.
        runs: sha256 of a run's checkpoint -> name.
        processes: of the measurement.

    Raises:
        WeightsError: the benchmark failed, or measured others.
    """
    results, reason = _results(path, runs)
    if results is None:
        print(f"{reason}: measuring, which takes some minutes", flush=True)
        command = [sys.executable, "-m", "benchmarks.bench_first_weights"]
        command += ["--folder", str(folder.resolve()), "--out", str(path.parent.resolve())]
        command += ["--processes", str(processes)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise WeightsError("the weights could not be measured; its reason is above")
        results, reason = _results(path, runs)
    if results is None:
        raise WeightsError(f"{reason} after it was measured", path=str(path))
    return results


def _results(path: Path, runs: Mapping[str, str]) -> tuple[Mapping[str, Any] | None, str]:
    """Return the results, or None and why they are not those of these weights."""
    if not path.is_file():
        return None, f"there is no {path.name}"
    results: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["results"]
    if results["windows_per_sequence"] != "all":
        return None, f"{path.name} is of some windows of each world only"
    if "unseen" not in results:
        return None, f"{path.name} is without the worlds that decided nothing"
    others = [
        name
        for digest, name in runs.items()
        if results["contenders"].get(name, {}).get("sha256") != digest
    ]
    return (None, f"{path.name} is of other {', '.join(others)}") if others else (results, "")


def entry(item: Shipped, loaded: LoadedModel) -> str:
    """Return the block of the manifest."""
    meaning, path = loaded.meaning, _file(loaded)
    height, width = loaded.config.input_format.at_least or (None, None)
    source = "grey camera frames" if meaning.event_encoder == "grey" else "events"
    fields = {
        "network": item.network,
        "encoder": loaded.config.summary()["encoder"],
        "file": path.name,
        "url": "null",
        "source": f'"trained by this project, see models/{item.name}.md"',
        "size_bytes": path.stat().st_size,
        "sha256": loaded.digest,
        "licence": "Apache-2.0",
        "input_height": height,
        "input_width": width,
        "output": f'"metres from {source}, learned on simulated worlds; a guess elsewhere"',
        "output_scale": 1.0,
        "meaning": f"{{event_encoder: {meaning.event_encoder}, "
        f"orientation: {meaning.orientation}, scale: {meaning.scale}}}",
        "shipped": "true",
    }
    lines = [f"  - name: {item.name}", *(f"    {key}: {value}" for key, value in fields.items())]
    return "\n".join(lines) + "\n"


def with_entry(manifest: str, name: str, block: str) -> str:
    """Return the manifest's text with this block in place of the entry of that name, or behind."""
    found = re.search(rf"^  - name: {re.escape(name)}\n(?:    .*\n)*", manifest, re.MULTILINE)
    if found is None:
        return manifest + block
    return manifest[: found.start()] + block + manifest[found.end() :]


def _file(loaded: LoadedModel) -> Path:
    if loaded.path is None:
        raise WeightsError(f"{loaded.name} has no file")
    return loaded.path


if __name__ == "__main__":
    sys.exit(main())
