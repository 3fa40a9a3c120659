"""The model cards of the weights that ship: facts and numbers from files, words from here."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dae_ros.model.checkpoint import LoadedModel, read_provenance
from scripts.model_card_text import (
    CARD,
    ENCODER,
    LIMITS_OF_EVENTS,
    LIMITS_OF_FRAMES,
    MEANING,
    SEEN,
    SEEN_DISTILLED,
    TEACHER,
    UNSEEN_WORLDS,
    WORLDS,
    ZERO_SHOT,
)

ROOT = Path(__file__).resolve().parent.parent
# Folder of clips below that of the runs -> its recipe, and its field in the results.
RECIPES = {
    "clips": Path("config/train/clips_first_weights.yaml"),
    "clips_wider": Path("config/train/clips_wider_worlds.yaml"),
}
UNSEEN_RECIPE = Path("config/train/clips_unseen_worlds.yaml")

COLUMNS = {
    "aligned_abs_rel": "Abs Rel", "aligned_delta_1": "δ1", "aligned_rmse": "RMSE m",
    "aligned_positive_scale": "s > 0", "metric_abs_rel": "metric Abs Rel",
    "metric_delta_1": "metric δ1", "metric_rmse": "metric RMSE m",
}  # fmt: skip
PIXEL_WORDS = {"all": "all", "events": "event"}
PIXELS = {"": "All pixels with ground truth", "events_": "Pixels with ground truth and events"}
IN_WORDS = {
    "micro_reset": "`micro`, state cleared before every window",
    "micro_first": "`micro` after the first of its two runs",
    "micro_memoryless": "`micro_memoryless`, as many weights and no memory",
    "best_constant": "best constant of each frame, which knows its truth",
    "training_mean": "mean depth map of both sets of training worlds",
}


@dataclass(frozen=True)
class Shipped:
    """One file to ship.

    Attributes:
        name: of the file, the card, the manifest entry and the benchmark's contender.
        run: folder of its last run.
        network: as the manifest has it.
        title: what it is.
        beside: contenders whose scores stand beside its own.
        seen: what somebody saw in the picture of real recordings; look again with other weights.
    """

    name: str
    run: str
    network: str
    title: str
    beside: tuple[str, ...]
    seen: str = ""


SHIPPED = (
    Shipped(
        "micro",
        "micro_wider",
        "depth_any_event_r",
        "Depth in metres from events: the compact recurrent network, trained by the exact depth\n"
        "of simulated worlds. The default of `depth.launch.py`, `dae-ros bag` and the demo.",
        ("micro_reset", "micro_first", "micro_memoryless"),
        SEEN,
    ),
    Shipped(
        "micro_distilled",
        "distilled",
        "depth_any_event_r",
        "Depth in metres from events: the network and the worlds of `micro`, taught by what\n"
        "`micro_frames` says about the camera's frames. True depth reached it through that\n"
        "teacher alone, whose encoder it also began with.",
        ("micro", "micro_frames"),
        SEEN_DISTILLED,
    ),
    Shipped(
        "micro_frames",
        "frames",
        "depth_any_event",
        "Depth in metres from grey camera frames, trained by the exact depth of simulated worlds:\n"
        "the teacher of `micro_distilled`, where no file of Depth Anything V2 is at hand. It\n"
        "takes no events.",
        ("micro",),
    ),
)


def write_card(
    item: Shipped,
    loaded: LoadedModel,
    results: Mapping[str, Any],
    names_of_runs: Mapping[str, str],
) -> str:
    """Return a card as Markdown.

    Args:
        item: what it is of.
        loaded: the file that ships.
        results: of the benchmark, for fields see benchmarks/bench_first_weights.py.
        names_of_runs: sha256 of a run's checkpoint -> name under which it ships.
    """
    path = loaded.path or Path()
    provenance = read_provenance(path)
    contender, clips = results["contenders"][item.name], results["clips"]
    unseen, runs = results["unseen"], contender["runs"]

    def named(template: str, digest: str) -> str:
        name = names_of_runs.get(digest)
        return template.format(
            digest=digest, name=f" (`{name}`, before it was packed)" if name else ""
        )

    teachers = [named(TEACHER, digest) for digest in json.loads(provenance["teachers"]).values()]
    encoder = runs[0]["encoder_from"]
    frames_in = loaded.meaning.event_encoder == "grey"
    height, width = loaded.config.input_format.at_least or (0, 0)
    text = CARD.format(
        name=item.name,
        title=item.title,
        size_mb=path.stat().st_size / 1e6,
        sha256=loaded.digest,
        network=runs[0]["weights"].removeprefix("untrained:"),
        weights_m=sum(weight.numel() for weight in loaded.network.parameters()) / 1e6,
        input=f"{'grey frames' if frames_in else 'Tencode of 50 ms of events'}, {height}x{width}",
        width=clips["width"],
        height=clips["height"],
        runs="\n".join(map(run_words, runs)),
        data="\n".join(
            data_words(name, results) for name in dict.fromkeys(r["clips"] for r in runs)
        ),
        heldout_sequences=clips["heldout_sequences"],
        heldout_windows=clips["heldout_windows"],
        heldout_recipe=RECIPES["clips"],
        heldout_seeds=seeds(RECIPES["clips"], "heldout"),
        unseen_recipe=UNSEEN_RECIPE,
        unseen_sequences=unseen["clips"]["heldout_sequences"],
        unseen_windows=unseen["clips"]["heldout_windows"],
        unseen_seeds=seeds(UNSEEN_RECIPE, "heldout"),
        unseen_clips=unseen["clips"]["digest"],
        last="last run" if len(runs) > 1 else "run",
        step=contender["step"],
        encoder=named(ENCODER, encoder) if encoder else "",
        meaning=meaning(item, results, unseen),
        packed_from=provenance["packed_from"],
        teachers="".join(teachers),
        scores=scores(item, results),
        verdict=verdict(item, results, "All of it with one seed of training."),
        pictures="" if frames_in else WORLDS,
        worlds=worlds(item, results),
        unseen_scores=scores(item, unseen),
        unseen_verdict=verdict(item, unseen),
        unseen_pictures="" if frames_in else UNSEEN_WORLDS,
        unseen_worlds=worlds(item, unseen),
        limits=LIMITS_OF_FRAMES if frames_in else LIMITS_OF_EVENTS,
    )
    if frames_in:
        return text
    return text + ZERO_SHOT.format(name=item.name) + (f"\n{item.seen}\n" if item.seen else "")


def run_words(run: Mapping[str, Any]) -> str:
    """Return an item of a list: what one run did, as the results have it, and how long it took."""
    minutes = run["updates_min"]
    text = (
        f"* Run `config/train/first_weights_{run['run']}.yaml`, seed {run['seed']}: {run['steps']} "
        f"updates of {run['batch']} clips of {run['unroll']} windows of "
        f"`{RECIPES[run['clips']].name}`, "
        f"arithmetic in {run['precision']}; {minutes:.0f} minutes of updates by the clock"
        f"{', where 60 was the aim' if minutes > 60 else ''}. It ended with `{run['sha256'][:12]}`."
    )
    return textwrap.fill(text, 98, subsequent_indent="  ", break_long_words=False)


def data_words(name: str, results: Mapping[str, Any]) -> str:
    """Return items of a list: the training worlds of a folder of clips, with their seeds."""
    clips = results[name]
    text = (
        f"* Data: `{RECIPES[name]}`: {clips['train_sequences']} worlds to train on "
        f"({clips['train_windows']} windows of 50 ms). Digest of the clips: `{clips['digest']}`."
    )
    if name != "clips":
        again = len(worlds_of(RECIPES[name]) & worlds_of(RECIPES["clips"]))
        text += (
            f" {again} of them have the seed of a world of `{RECIPES['clips'].name}`, so its place "
            "and its sensor, seen through another lens."
        )
    words = textwrap.fill(text, 98, subsequent_indent="  ", break_long_words=False)
    return f"{words}\n{seeds(RECIPES[name], 'train')}"


def worlds_of(path: Path) -> set[tuple[str, int]]:
    """Return scene and seed of the worlds that a recipe trains on."""
    recipe = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    return {
        (group["world"]["scene"], seed)
        for group in recipe["train"]
        for seed in range(group["seeds"][0], group["seeds"][1] + 1)
    }


def seeds(path: Path, split: str) -> str:
    """Return an item of a list: the worlds of a split of a recipe with their seeds."""
    recipe = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    spans: list[tuple[str, int, int]] = []
    for group in recipe[split]:
        world, (first, last) = group["world"], group["seeds"]
        name = world.get("scene", world.get("preset"))
        if spans and spans[-1][0] == name and spans[-1][2] + 1 == first:
            first = spans.pop()[1]
        spans.append((name, first, last))
    words = [
        f"{name} {first} to {last}" if first < last else f"{name} {first}"
        for name, first, last in spans
    ]
    text = f"* Seeds of {split}: {', '.join(words)}."
    return textwrap.fill(text, 98, subsequent_indent="  ")


def scores(item: Shipped, results: Mapping[str, Any]) -> str:
    """Return the two tables of means over a set of worlds: the results, or their `unseen`."""
    contenders = results["contenders"]
    rows = {item.name: f"**`{item.name}`**"}
    rows |= {
        name: IN_WORDS.get(name, f"`{name}`")
        for name in (*item.beside, "best_constant", "training_mean")
    }
    tables = []
    for prefix, words in PIXELS.items():
        lines = [row([f"{words}:", *COLUMNS.values()]), row(["---"] * (len(COLUMNS) + 1))]
        for name, shown in rows.items():
            found = contenders[name]["scores"]
            lines.append(row([shown, *(number(found.get(prefix + key)) for key in COLUMNS)]))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def verdict(item: Shipped, results: Mapping[str, Any], closing: str = "") -> str:
    """Return what the scores mean beside the goals; the goals are those of the default, `micro`.

    Args:
        item: what the card is of.
        results: of a set of worlds, as in `scores`.
        closing: one more sentence.
    """
    missed = [
        f"{goal['goal']} over {PIXEL_WORDS[goal['pixels']]} pixels, it has {number(goal['value'])}"
        for goal in results["goals"]
        if not goal["met"] and (item.name == "micro" or item.name in goal["goal"])
    ]
    sentences = [f"Missed goals: {'; '.join(missed) or 'none'}."]
    if item.name == "micro_frames":
        return ""
    if item.name != "micro":
        return "\n" + textwrap.fill(sentences[0], 98) + "\n"
    own, other = (
        results["contenders"][name]["sequences"] for name in ("micro", "micro_memoryless")
    )
    for alignment, words in (("aligned", "after least squares"), ("metric", "in metres")):
        all_pixels, event_pixels = (
            sum(own[name][key] < other[name][key] for name in own)
            for key in (f"{alignment}_abs_rel", f"events_{alignment}_abs_rel")
        )
        sentences.append(
            f"Memory helps {words} in {all_pixels} of {len(own)} worlds over all pixels, in "
            f"{event_pixels} over event pixels."
        )
    return "\n" + textwrap.fill(" ".join([*sentences, closing]).strip(), 98) + "\n"


def meaning(item: Shipped, *sets: Mapping[str, Any]) -> str:
    """Return what the number means, with how often it is worse than a constant."""
    counts = []
    for results in sets:
        own = results["contenders"][item.name]["sequences"]
        constant = results["contenders"]["best_constant"]["sequences"]
        worse = [own[name]["metric_abs_rel"] > constant[name]["aligned_abs_rel"] for name in own]
        counts += [sum(worse), len(worse)]
    first, of_first, second, of_second = counts
    text = MEANING.format(first=first, of_first=of_first, second=second, of_second=of_second)
    return textwrap.fill(" ".join(text.split()), 100)


def worlds(item: Shipped, results: Mapping[str, Any]) -> str:
    """Return the table of worlds, the worst first.

    Args:
        item: what the card is of.
        results: of a set of worlds, as in `scores`.
    """
    own = results["contenders"][item.name]["sequences"]
    constant = results["contenders"]["best_constant"]["sequences"]
    keys = (
        "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
        "metric_delta_1",
    )  # fmt: skip
    lines = [row(["world", *(COLUMNS[key] for key in keys), "Abs Rel of best constant"])]
    lines.append(row(["---"] * (len(keys) + 2)))
    for name in sorted(own, key=lambda name: -(own[name]["aligned_abs_rel"] or 0.0)):
        cells = [number(own[name].get(key)) for key in keys]
        best = number(constant[name]["aligned_abs_rel"])
        words = f"{name.removeprefix('heldout/')} {results['worlds'][name]}".strip()
        lines.append(row([words, *cells, best]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def number(value: float | None) -> str:
    """Return three digits, or a dash where there is no number."""
    return "-" if value is None else f"{value:.3f}"
