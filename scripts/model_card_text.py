"""What the cards of the weights say, with gaps for what was measured."""

from __future__ import annotations

SEEN = """\
The person who walks past stands out in front of what is behind, but a narrow thing as near stands
in the same place before and after. The bench of the laboratory lies in front of its wall, which is
put several times farther away than a laboratory is deep, with holes in it that are not there, and
the robot arm before the wall is not told from it. A board held near the camera is put metres away
and is no plane. Where nothing moves, the answer is a room as in training, whatever is there."""

SEEN_DISTILLED = """\
The person who walks past is nearer than what is behind, but has no clear outline, and the bench
of the laboratory lies in front of its wall, which is put far behind where it is. The black
panel on that wall becomes a hole behind it, the farthest thing of all, and the robot arm before
the wall is not told from it. A board held near the camera is put metres away and is no plane.
Where nothing moves, the answer is a room as in training, whatever is there."""

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

{meaning}

## How it was made

* Everything is simulated, at {width}x{height} px.
{data}
* Held out: `{heldout_recipe}`, {heldout_sequences} worlds ({heldout_windows} windows).
{heldout_seeds}
* Worlds that decided nothing: `{unseen_recipe}`, {unseen_sequences} of them
  ({unseen_windows} windows). Digest of the clips: `{unseen_clips}`.
{unseen_seeds}
* Command: `scripts/train_first_weights.sh`, which makes the worlds from their seeds and trains all
  weights of this folder.
{runs}
* The last weights of the {last} ship, those of update {step}. Other processors, and other
  numbers of threads than the settings', give other bits. No GPU; a CPU core that other work shared.
* Packed from the run's checkpoint `{packed_from}`.
{encoder}{teachers}
## On held-out worlds

Whole worlds that no training saw: other seeds of the same kinds of scene, and besides another lens
and drones in a warehouse, of which second runs saw others. They helped to choose settings and
recipe ([first_weights.md](../docs/first_weights.md#held-out-worlds)). Every window of each, the
state carried through, then the mean over worlds. The first four columns after least squares on
each frame (scale ≥ 0), the others in metres as they are.

{scores}
{verdict}{pictures}
## On worlds that decided nothing

Worlds with which nothing was chosen, scored in the same way and reported as it came out: other
seeds again, all lights and motions, fog, two other lenses (one of them is in the first set too),
and the `yard`, a kind of place that neither training nor the first set has: containers, crates and
poles under the open sky.

{unseen_scores}
{unseen_verdict}
All of them, worst first, all pixels with ground truth:

{unseen_worlds}
{unseen_pictures}
## Where it fails

The held-out worlds, worst first, all pixels with ground truth:

{worlds}

{limits}
"""

MEANING = """\
Metres, learned from simulated worlds alone. In worlds like those it is as right as the tables below
say. Its metres are worse than the best constant of each frame, which knows the truth, in {first}
of {of_first} held-out worlds and in {second} of {of_second} that decided nothing. On a real camera
in a real place nothing was measured: near and far may be told apart, but the metres are a guess.
Nothing that can hurt somebody may rest on this number."""

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

One window of each world, the middle one, whatever is seen there; Abs Rel is that of this window, in
metres, not the mean of the world. Grey is where there is no depth.
"""

UNSEEN_WORLDS = """
![worlds that decided nothing](../benchmarks/results/first_weights_unseen.png)

One window of each world, the middle one, whatever is seen there; Abs Rel is that of this window, in
metres, not the mean of the world. Grey is where there is no depth.
"""

LIMITS_OF_EVENTS = """\
Besides:

* Fog, yards, drones in warehouses and lenses that bend are the worst of what was measured, for
  `micro_distilled` nights on foot as well; some of it is no better than a constant. See the tables.
* Real sensors, real scenes, lenses and sizes of things other than those above: not trained, not
  measured.
* Where nothing moves there are no events, and depth is what was seen before, or a guess. The first
  windows after a reset have no memory yet.
* What has no texture inside of its edges is filled in."""

LIMITS_OF_FRAMES = """\
Besides:

* Lenses that are wider than in training, drones in yards and warehouses: often no better than a
  constant.
* Real cameras, real scenes, lenses and sizes of things other than those above: not trained, not
  measured.
* Frames that are dark, saturated or blurred by motion say little."""

ZERO_SHOT = """
## On real recordings

Nothing real was in its training, and there is no truth to compare with: this is for the eye, and
the metres of the legend are the network's own. Made by `python -m scripts.zero_shot {name}`.

![events, camera frames and depth of real recordings](../docs/images/zero_shot_{name}.png)
"""
