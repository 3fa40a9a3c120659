"""Whether a candidate may be published: better where the robot is, and nowhere worse than before.

A candidate is compared with what is published and with the original on the same clips, each rolled
through from a zero state: held-out blocks of the deployment say whether it is better, anchors
whether something was forgotten. Limits against the original do not move with publications, so that
many small steps cannot add up. What was published is compared with the original again each time: a
place may change. Every limit is written so that NaN breaks it. Reasons and numbers: docs/online.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.comparison import (
    Comparison,
    Trio,
    log_ratio,
    of_blocks,
    ratio,
)
from dae_ros.distillation.online.forgetting import forgetting
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip, Refusal
from dae_ros.distillation.online.paired_gain import Gain, paired_gain
from dae_ros.distillation.online.replay import HeldoutBlock
from dae_ros.distillation.online.verdict import PUBLISHED_WORSE, Verdict, note_fit
from dae_ros.parameters.distillation import OnlineParameters

# Largest |ln| of median depth over the original's in the deployment, where metres are compared with
# metres: what knows rooms alone sees streets at a quarter of their distances. A scale that is wrong
# shows as an error there; this is against what no place explains.
LARGEST_METRIC_DRIFT = math.log(6.0)
# Whether the published weights are still worth it is judged by so many blocks at most, the newest.
NEWEST_BLOCKS = 6
# A label that grows with the published depth and falls with the candidate's.
_INVERTED_SHARE = 0.05
_UNSCORED = "holds NaN, infinity, or numbers so large that they cannot be scored"


class Guard:
    """Judges candidates.

    Args:
        original: from before adaptation.
        parameters: unroll, trim, seed and the group "Guard".
        metric: whether the networks give metres.
    """

    def __init__(
        self, original: ClipNetwork, parameters: OnlineParameters, *, metric: bool
    ) -> None:
        self._parameters = parameters
        self._comparison = Comparison(original, parameters, metric=metric)

    def judge(
        self,
        candidate: ClipNetwork,
        published: ClipNetwork,
        blocks: Sequence[HeldoutBlock],
        anchors: Sequence[LabelledClip],
        pause: Callable[[], None] = lambda: None,
    ) -> Verdict:
        """Compare a candidate with the published and the original network.

        Args:
            candidate: with plain weights of its own.
            published: the same object as long as its weights are; they must not change.
            blocks: held-out clips of the deployment, oldest first.
            anchors: clips to measure forgetting by; nothing was learned from them either.
            pause: called after each clip, where a loop may give way to others.
        """
        blocks = [kept for block in blocks if (kept := self._with_labels(block)).clips]
        evidence, numbers = self._evidence(blocks, anchors)
        if evidence:
            return Verdict(tuple(evidence), numbers)
        clips = [*(clip for block in blocks for clip in block.clips), *anchors]
        self._comparison.begin(candidate, published, clips)
        trios: dict[int, Trio] = {}
        for clip in clips:
            trios[id(clip)] = trio = self._comparison.compare(clip)
            broken = _not_finite(trio)
            if broken:
                return Verdict(tuple(broken), numbers)
            pause()
        held = [[trios[id(clip)] for clip in block.clips] for block in blocks]
        of_anchors = [(clip, trios[id(clip)]) for clip in anchors]
        refusals = [
            *self._output([trios[id(clip)] for clip in clips], numbers),
            *self._scale([trio for block in held for trio in block], "heldout", numbers),
            *self._scale([t for clip, t in of_anchors if _pinned(clip, t)], "pinned", numbers),
            *self._scale([t for clip, t in of_anchors if not _pinned(clip, t)], "anchor", numbers),
            *self._gain(held, numbers),
            *forgetting(of_anchors, self._parameters, numbers),
        ]
        worse = self._published_worse(held, numbers)
        if refusals and worse is not None:
            refusals.append(worse)
        return Verdict(tuple(refusals), numbers)

    def release_memory(self) -> None:
        """Give up what can be computed again."""
        self._comparison.release_memory()

    def _with_labels(self, block: HeldoutBlock) -> HeldoutBlock:
        """Return the clips of a block that can be scored."""
        kept = [
            (clip, stratum)
            for clip, stratum in zip(block.clips, block.strata, strict=True)
            if self._comparison.labelled(clip)
        ]
        return HeldoutBlock(
            block.index, tuple(clip for clip, _ in kept), tuple(stratum for _, stratum in kept)
        )

    def _evidence(
        self, blocks: Sequence[HeldoutBlock], anchors: Sequence[LabelledClip]
    ) -> tuple[list[Refusal], dict[str, float]]:
        strata = {stratum for block in blocks for stratum in block.strata}
        fewest, fewest_strata = self._parameters.judged_blocks, self._parameters.judged_strata
        numbers: dict[str, float] = {
            "heldout_blocks": len(blocks),
            "heldout_strata": len(strata),
            "heldout_clips": sum(len(block.clips) for block in blocks),
            "anchor_clips": len(anchors),
        }
        missing = []
        if len(blocks) < fewest:
            missing.append(f"{len(blocks)} of {fewest} held-out blocks")
        if len(strata) < fewest_strata:
            missing.append(f"{len(strata)} of {fewest_strata} kinds of scene in them")
        if not anchors:
            missing.append("no anchor to measure forgetting by")
        if not missing:
            return [], numbers
        return [Refusal("not_enough_evidence", "there are " + ", ".join(missing))], numbers

    def _output(self, trios: list[Trio], numbers: dict[str, float]) -> Iterable[Refusal]:
        """Compare what needs no label."""
        limits = self._parameters
        numbers["spread"] = statistics.median(
            ratio(trio.candidate.spread, trio.published.spread) for trio in trios
        )
        if not numbers["spread"] >= limits.smallest_spread:
            yield Refusal(
                "dead_output",
                f"the spread over the image is {numbers['spread']:.3f} of the published one's, and "
                f"{limits.smallest_spread:g} is the least",
            )
        numbers["saturated"] = statistics.fmean(trio.candidate.saturated for trio in trios)
        numbers["saturated_published"] = statistics.fmean(
            trio.published.saturated for trio in trios
        )
        if not numbers["saturated"] <= max(
            limits.largest_saturation, numbers["saturated_published"]
        ):
            yield Refusal(
                "saturated",
                f"{numbers['saturated']:.1%} of the pixels are at an end of the range, and "
                f"{limits.largest_saturation:.1%} may be",
            )
        numbers["jitter"] = ratio(
            statistics.fmean(trio.candidate.jitter for trio in trios),
            statistics.fmean(trio.published.jitter for trio in trios),
        )
        note_fit(limits.largest_jitter, numbers["jitter"], 1.0, numbers)
        if not numbers["jitter"] <= limits.largest_jitter:
            yield Refusal(
                "flicker",
                f"depth trembles {numbers['jitter']:.3f} times as much as the published one's, and "
                f"{limits.largest_jitter:g} times is allowed",
            )
        # Where the original stands for a label, nothing was measured of the original itself.
        labelled = [trio for trio in trios if trio.labelled]
        numbers["positive_scale"] = statistics.fmean(
            trio.candidate.positive_scale for trio in labelled
        )
        numbers["positive_scale_published"] = statistics.fmean(
            trio.published.positive_scale for trio in labelled
        )
        least = numbers["positive_scale_published"] - _INVERTED_SHARE
        if not numbers["positive_scale"] >= least:
            yield Refusal(
                "inverted",
                f"{numbers['positive_scale']:.1%} of the labels grow with its depth, and "
                f"{numbers['positive_scale_published']:.1%} with the published one's",
            )

    def _scale(self, trios: list[Trio], where: str, numbers: dict[str, float]) -> Iterable[Refusal]:
        """Compare median depths, window by window, in the deployment or (`anchor`) before it."""
        if not trios:
            return
        limits = self._parameters
        # Metres that are scored as metres may be corrected in larger steps; the scale of relative
        # depth is nobody's to judge.
        metric = all("metric_abs_rel" in trio.original.scores for trio in trios)
        step = limits.largest_metric_scale_step if metric else limits.largest_scale_step
        drift = limits.largest_scale_drift
        if metric and where != "anchor":
            drift = max(drift, LARGEST_METRIC_DRIFT)
        for name, reference, limit, reason in (
            ("step", "published", step, "scale_step"),
            ("drift", "original", drift, "scale_drift"),
        ):
            found = log_ratio(trios, reference)
            numbers[f"{where}_log_scale_{name}"] = found
            if name == "step":
                note_fit(limit, abs(found), 0.0, numbers)
            if not abs(found) <= limit:
                yield Refusal(
                    reason,
                    f"the median depth on {where} clips is {found:+.3f} in log off the "
                    f"{reference} one's, and {limit:g} is allowed",
                )

    def _gain(self, held: list[list[Trio]], numbers: dict[str, float]) -> Iterable[Refusal]:
        """Compare errors on held-out blocks."""
        limits = self._parameters
        metric = all("metric_abs_rel" in t.original.scores for block in held for t in block)
        for kind in ("metric", "aligned") if metric else ("aligned",):
            for score in ("abs_rel", "delta_1"):
                for who in ("candidate", "published", "original"):
                    numbers[f"heldout_{kind}_{score}_{who}"] = float(
                        of_blocks(held, who, f"{kind}_{score}").mean()
                    )
        kind = "metric" if metric else "aligned"
        gain = self._paired(held, "published", kind)
        over_original = self._paired(held, "original", kind)
        numbers |= {
            "gain": gain.mean,
            "gain_lower": gain.lower,
            "gain_upper": gain.upper,
            "gain_over_original": over_original.mean,
            "gain_over_original_lower": over_original.lower,
            "gain_over_original_upper": over_original.upper,
        }
        if not (gain.lower > 0 and gain.mean >= limits.smallest_gain):
            yield Refusal(
                "no_gain",
                f"the error on held-out clips falls by {gain.mean:+.2%} ({gain.lower:+.2%} to "
                f"{gain.upper:+.2%}), and {limits.smallest_gain:.2%} beyond doubt is asked for",
            )
        if not over_original.mean >= 0:
            yield Refusal(
                "worse_than_original",
                f"the error on held-out clips is {-over_original.mean:.2%} above the original's",
            )
        aligned = self._paired(held, "published", "aligned").mean
        aligned_over_original = self._paired(held, "original", "aligned").mean
        numbers |= {"aligned_gain": aligned, "aligned_gain_over_original": aligned_over_original}
        if (
            gain.upper < 0
            or over_original.upper < 0
            or not all(
                value >= -limits.largest_forgetting for value in (aligned, aligned_over_original)
            )
        ):
            yield Refusal(
                "worse",
                f"the error on held-out clips changes by {-gain.mean:+.2%} against the published "
                f"one and {-over_original.mean:+.2%} against the original, in shape by "
                f"{-aligned:+.2%} and {-aligned_over_original:+.2%}",
            )

    def _published_worse(self, held: list[list[Trio]], numbers: dict[str, float]) -> Refusal | None:
        """Say whether the original would pass as a candidate, or was better in shape beyond doubt.

        Shape alone takes back only what is surely below what a candidate may lose: what was just
        allowed must not be taken back for a little more. The newest blocks alone count: the place
        may have changed.
        """
        limits = self._parameters
        held = held[-min(limits.judged_blocks, NEWEST_BLOCKS) :]
        kind = "metric" if "heldout_metric_abs_rel_original" in numbers else "aligned"
        back = self._paired(held, "published", kind, who="original")
        shape = self._paired(held, "published", "aligned", who="original")
        numbers |= {"gain_of_going_back": back.mean, "shape_gain_of_going_back": shape.mean}
        passes = back.lower > 0 and back.mean >= limits.smallest_gain
        if not passes and not shape.lower > limits.largest_forgetting:
            return None
        return Refusal(
            PUBLISHED_WORSE,
            "the original's error on held-out clips is below the published one's by "
            f"{back.mean:.2%} ({back.lower:.2%} to {back.upper:.2%}), in shape by {shape.mean:.2%} "
            f"({shape.lower:.2%} to {shape.upper:.2%})",
        )

    def _paired(
        self, held: list[list[Trio]], reference: str, kind: str, who: str = "candidate"
    ) -> Gain:
        return paired_gain(
            of_blocks(held, who, f"{kind}_abs_rel"),
            of_blocks(held, reference, f"{kind}_abs_rel"),
            self._parameters.confidence,
            self._parameters.seed,
        )


def _pinned(clip: LabelledClip, trio: Trio) -> bool:
    """Whether an anchor shows the deployment: it has a teacher's label."""
    return trio.labelled and clip.teacher != GROUND_TRUTH


def _not_finite(trio: Trio) -> list[Refusal]:
    found = []
    if not trio.candidate.finite:
        found.append(Refusal("not_finite", f"its output {_UNSCORED}"))
    elif not (trio.published.finite and trio.original.finite):
        found.append(
            Refusal("nothing_to_compare", f"the published or the original output {_UNSCORED}")
        )
    if trio.original.finite and not trio.published.finite:
        found.append(
            Refusal(PUBLISHED_WORSE, f"the published output {_UNSCORED}, the original's none")
        )
    return found
