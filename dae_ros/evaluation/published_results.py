"""The numbers that others quote for the published protocols, to stand beside a run's.

Values of arXiv 2509.15224 (ICCV 2025) as quoted by second sources, not checked against its
tables. They are per-frame affine-aligned (`scoring.PUBLISHED`), the mean of the sequences of
`protocols.TEST_SPLIT`. Missing entries were not found.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One network on one data set.

    Attributes:
        dataset: name of the protocol.
        training: `synthetic` (EventScape only), `distilled` (frame teacher's labels on the
            target, no ground truth) or `supervised` (LiDAR of the target).
        network: as named in the paper.
        abs_rel, rmse, delta_1: published variant, rmse in metres; None: not found.
    """

    dataset: str
    training: str
    network: str
    abs_rel: float
    rmse: float | None
    delta_1: float | None


PUBLISHED_ROWS = (
    PublishedRow("mvsec", "synthetic", "E2Depth", 0.527, 7.894, 0.363),
    PublishedRow("mvsec", "synthetic", "EReFormer", 0.518, 8.423, 0.361),
    PublishedRow("mvsec", "synthetic", "DepthAnyEvent", 0.466, 7.824, 0.408),
    PublishedRow("mvsec", "synthetic", "DepthAnyEvent-R", 0.469, 8.064, 0.428),
    PublishedRow("mvsec", "distilled", "E2Depth", 0.400, 6.786, 0.479),
    PublishedRow("mvsec", "distilled", "DepthAnyEvent", 0.397, 6.910, 0.461),
    PublishedRow("mvsec", "distilled", "DepthAnyEvent-R", 0.399, 6.830, 0.462),
    PublishedRow("mvsec", "supervised", "E2Depth", 0.420, 7.268, 0.432),
    PublishedRow("mvsec", "supervised", "DepthAnyEvent", 0.373, 6.627, 0.471),
    PublishedRow("mvsec", "supervised", "DepthAnyEvent-R", 0.365, 6.465, 0.489),
    PublishedRow("dsec", "synthetic", "E2Depth", 0.395, 13.258, 0.409),
    PublishedRow("dsec", "synthetic", "EReFormer", 0.297, 11.608, 0.524),
    PublishedRow("dsec", "synthetic", "DepthAnyEvent", 0.297, 11.072, 0.519),
    PublishedRow("dsec", "synthetic", "DepthAnyEvent-R", 0.276, 10.942, 0.555),
    PublishedRow("dsec", "distilled", "DepthAnyEvent-R", 0.226, None, None),
    PublishedRow("dsec", "supervised", "DepthAnyEvent-R", 0.191, None, None),
)
