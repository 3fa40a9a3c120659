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

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Path("config/train/clips_first_weights.yaml")
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
    "micro_memoryless": "`micro_memoryless`, as many weights and no memory",
    "best_constant": "best constant of each frame, which knows its truth",
    "training_mean": "mean depth map of the training worlds",
}


@dataclass(frozen=True)
class Shipped:
    """One file to ship.

    Attributes:
        name: of the file, the card, the manifest entry and the benchmark's contender.
        run: folder of its run, and end of its preset's name.
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


SEEN = """\
The person who walks past stands out in front of what is behind, and the bench of the laboratory
lies in front of its wall. The black panel on that wall becomes a hole behind it, as far as anything
in the picture, and the robot arm before the wall is not told from it. A board held near the camera
is put metres away and is no plane. Where nothing moves, the answer is a room as in training,
whatever is there."""
SEEN_DISTILLED = """\
The person who walks past is nearer than what is behind, but has no clear outline, and the bench of
the laboratory lies in front of its wall. The black panel on that wall becomes a hole behind it, the
farthest thing of all, and the robot arm before the wall is not told from it. A board held near the
camera is put metres away and is no plane. Where nothing moves, the answer is a room as in training,
whatever is there."""

SHIPPED = (
    Shipped(
        "micro",
        "micro",
        "depth_any_event_r",
        "Depth in metres from events: the compact recurrent network, trained by the exact depth\n"
        "of simulated worlds. The default of `depth.launch.py`, `dae-ros bag` and the demo.",
        ("micro_reset", "micro_memoryless"),
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

CARD = """\
# {name}

{title}

Written by `python -m scripts.ship_weights`; the scores are those of
[first_weights.json](../benchmarks/results/first_weights.json).

| | |
|---|---|
| file | `{name}.safetensors`, float16, {size_mb:.1f} MB |
| sha256 | `{sha256}` |
| network | [`{network}`](../docs/model.md#compact-networks), {weights_m:.2f} M weights |
| input | {input} px |
| output | metres along the optical axis |
| licence | Apache-2.0 |

## What its number means

Metres, learned from simulated worlds alone. In worlds like those it is as right as the tables below
say, and in the worst of them no better than a constant. On a real camera in a real place nothing
was measured: near and far may be told apart, but the metres are a guess. Nothing that can hurt
somebody may rest on this number.

## How it was made

* Data: `{recipe}`, simulated at {width}x{height} px:
  {train_sequences} worlds to train on ({train_windows} windows of 50 ms), {heldout_sequences} held
  out ({heldout_windows}). Digest of the clips: `{clips}`.
{train_seeds}
{heldout_seeds}
* Worlds that decided nothing: `{unseen_recipe}`, {unseen_sequences} of them
  ({unseen_windows} windows). Digest of the clips: `{unseen_clips}`.
{unseen_seeds}
* Command: `scripts/train_first_weights.sh`, which makes the worlds from their seeds and trains all
  weights of this folder.
* Settings: `config/train/first_weights_{run}.yaml`, seed {seed}: {steps} updates of {batch} clips
  of {unroll} windows, arithmetic in {precision}. The last weights ship, those of update
  {step}. Other processors, and other numbers of threads than the settings', give other bits.
* Time: {updates_min:.0f} minutes of updates by the clock, on a CPU core that other work shared;
  no GPU.
* Packed from the run's checkpoint `{packed_from}`.
{encoder}{teachers}
## On held-out worlds

Whole worlds that no training saw: other seeds of the same kinds of scene, and besides drones in a
warehouse and another lens. They helped to choose settings and recipe
([first_weights.md](../docs/first_weights.md#held-out-worlds)). Every window of each, the state
carried through, then the mean over worlds. The first four columns after least squares on each frame
(scale ≥ 0), the others in metres as they are.

{scores}
{verdict}{pictures}
## On worlds that decided nothing

Worlds with which nothing was chosen, scored in the same way and reported as it came out: other
seeds again, all lights and motions, fog, two other lenses, and the `yard`, a kind of place that no
training has: containers, crates and poles under the open sky.

{unseen_scores}
{unseen_verdict}
The yards, worst first, all pixels with ground truth:

{yards}
{unseen_pictures}
## Where it fails

The held-out worlds, worst first, all pixels with ground truth:

{worlds}

{limits}
"""

ENCODER = """\
* Encoder: began as that of `{digest}`{name}, all
  but its first layer.
"""

TEACHER = """\
* Teacher: `{digest}`{name}, on the frames
  of the training worlds. True depth was used for scores alone.
"""

WORLDS = """
![held-out worlds](../benchmarks/results/first_weights_worlds.png)
"""

UNSEEN_WORLDS = """
![worlds that decided nothing](../benchmarks/results/first_weights_unseen.png)
"""

LIMITS_OF_EVENTS = """\
Besides:

* Real sensors, real scenes, lenses and sizes of things other than those above: not trained, not
  measured.
* Where nothing moves there are no events, and depth is what was seen before, or a guess. The first
  windows after a reset have no memory yet.
* What has no texture inside of its edges is filled in."""

LIMITS_OF_FRAMES = """\
Besides:

* Real cameras, real scenes, lenses and sizes of things other than those above: not trained, not
  measured.
* Frames that are dark, saturated or blurred by motion say little."""

ZERO_SHOT = """
## On real recordings

Nothing real was in its training, and there is no truth to compare with: this is for the eye, and
the metres of the legend are the network's own. Made by `python -m scripts.zero_shot {name}`.

![events, camera frames and depth of real recordings](../docs/images/zero_shot_{name}.png)
"""


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
    settings = json.loads(provenance["settings"])
    contender, clips = results["contenders"][item.name], results["clips"]
    unseen = results["unseen"]

    def named(template: str, digest: str) -> str:
        name = names_of_runs.get(digest)
        return template.format(
            digest=digest, name=f" (`{name}`, before it was packed)" if name else ""
        )

    teachers = [named(TEACHER, digest) for digest in json.loads(provenance["teachers"]).values()]
    encoder = provenance.get("encoder_from")
    frames_in = loaded.meaning.event_encoder == "grey"
    height, width = loaded.config.input_format.at_least or (0, 0)
    text = CARD.format(
        name=item.name,
        title=item.title,
        size_mb=path.stat().st_size / 1e6,
        sha256=loaded.digest,
        network=settings["weights"].removeprefix("untrained:"),
        weights_m=sum(weight.numel() for weight in loaded.network.parameters()) / 1e6,
        input=f"{'grey frames' if frames_in else 'Tencode of 50 ms of events'}, {height}x{width}",
        recipe=RECIPE,
        width=clips["width"],
        height=clips["height"],
        train_sequences=clips["train_sequences"],
        train_windows=clips["train_windows"],
        train_seeds=seeds(RECIPE, "train"),
        heldout_sequences=clips["heldout_sequences"],
        heldout_windows=clips["heldout_windows"],
        heldout_seeds=seeds(RECIPE, "heldout"),
        unseen_recipe=UNSEEN_RECIPE,
        unseen_sequences=unseen["clips"]["heldout_sequences"],
        unseen_windows=unseen["clips"]["heldout_windows"],
        unseen_seeds=seeds(UNSEEN_RECIPE, "heldout"),
        unseen_clips=unseen["clips"]["digest"],
        clips=clips["digest"],
        run=item.run,
        seed=settings["seed"],
        steps=contender["steps"],
        batch=settings["batch"],
        unroll=settings["unroll"],
        precision=settings["precision"],
        step=contender["step"],
        encoder=named(ENCODER, encoder) if encoder else "",
        updates_min=contender["updates_min"],
        packed_from=provenance["packed_from"],
        teachers="".join(teachers),
        scores=scores(item, results),
        verdict=verdict(item, results, "All of it with one seed of training."),
        pictures="" if frames_in else WORLDS,
        worlds=worlds(item, results),
        unseen_scores=scores(item, unseen),
        unseen_verdict=verdict(item, unseen),
        unseen_pictures="" if frames_in else UNSEEN_WORLDS,
        yards=worlds(item, unseen, "yard"),
        limits=LIMITS_OF_FRAMES if frames_in else LIMITS_OF_EVENTS,
    )
    if frames_in:
        return text
    return text + ZERO_SHOT.format(name=item.name) + (f"\n{item.seen}\n" if item.seen else "")


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
    if item.name != "micro":
        return ""
    missed = [
        f"{goal['goal']} over {PIXEL_WORDS[goal['pixels']]} pixels, it has {number(goal['value'])}"
        for goal in results["goals"]
        if not goal["met"]
    ]
    sentences = [f"Missed goals: {'; '.join(missed) or 'none'}."]
    own, other = (
        results["contenders"][name]["sequences"] for name in ("micro", "micro_memoryless")
    )
    for key, pixels in (("aligned_abs_rel", "all"), ("events_aligned_abs_rel", "event")):
        better = sum(own[name][key] < other[name][key] for name in own)
        sentences.append(
            f"Memory helps in {better} of {len(own)} worlds, after least squares, {pixels} pixels."
        )
    return "\n" + textwrap.fill(" ".join([*sentences, closing]).strip(), 98) + "\n"


def worlds(item: Shipped, results: Mapping[str, Any], kind: str = "") -> str:
    """Return the table of worlds, the worst first.

    Args:
        item: what the card is of.
        results: of a set of worlds, as in `scores`.
        kind: of scene; all where it is empty.
    """
    own = results["contenders"][item.name]["sequences"]
    constant = results["contenders"]["best_constant"]["sequences"]
    shown = [name for name in own if not kind or f"_{kind}_" in name]
    keys = (
        "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
        "metric_delta_1",
    )  # fmt: skip
    lines = [row(["world", *(COLUMNS[key] for key in keys), "Abs Rel of best constant"])]
    lines.append(row(["---"] * (len(keys) + 2)))
    for name in sorted(shown, key=lambda name: -(own[name]["aligned_abs_rel"] or 0.0)):
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
