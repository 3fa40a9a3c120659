"""Why depth was not compared with ground truth, in words: the one reason that is true."""

from __future__ import annotations


def why_nothing_was_compared(
    *, depths: int, truths: int, refusal: str | None, wrong_size: int, tolerance_s: float
) -> str:
    """Return the reason why no pair of depth and ground truth was scored.

    Args:
        depths, truths: images that came.
        refusal: why what came cannot be scored at all, None where it can.
        wrong_size: pairs of images of different sizes.
        tolerance_s: furthest that the two of a pair may lie apart.
    """
    if not depths and not truths:
        return "neither depth nor ground truth came"
    if not truths:
        return f"no ground truth came, but {_counted(depths, 'depth image')}"
    if not depths:
        return f"no depth image came, but {_counted(truths, 'truth')}"
    if refusal is not None:
        return refusal
    if wrong_size:
        return (
            f"{_counted(wrong_size, 'pair')} of depth and ground truth had different sizes; "
            "compare with the depth of the event camera's pixels"
        )
    return (
        f"no depth image lies within {tolerance_s:g} s of a truth "
        f"({_counted(depths, 'depth image')}, {_counted(truths, 'truth')})"
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
