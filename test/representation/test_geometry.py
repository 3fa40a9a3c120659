"""Network sizes of the publication and camera matrices under resizing."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.representation.geometry import (
    network_size,
    scale_camera_matrix,
    scale_projection_matrix,
)


@pytest.mark.parametrize(
    ("sensor", "configured", "network"),
    [
        ((260, 346), (266, 350), (266, 350)),
        ((320, 640), (322, 644), (322, 644)),
        ((480, 640), (322, 644), (490, 644)),  # a tie that floating-point noise decides
        ((480, 640), (266, 350), (266, 350)),
        ((480, 640), (518, 518), (518, 686)),
        ((260, 346), (518, 518), (518, 686)),
        ((320, 640), (266, 350), (266, 532)),
        ((720, 1280), (364, 644), (364, 644)),
    ],
)
def test_network_size_of_the_publication(
    sensor: tuple[int, int], configured: tuple[int, int], network: tuple[int, int]
) -> None:
    """The sizes that the published code computes, as (height, width)."""
    assert network_size(*sensor, *configured) == network


def test_network_size_is_a_multiple_and_not_below_the_input() -> None:
    """Any sensor gives multiples of the patch size that reach the input size."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width, want_height, want_width = rng.integers(1, 1300, 4).tolist()
        for multiple in (14, 32):
            rows, columns = network_size(height, width, want_height, want_width, multiple)
            assert rows % multiple == columns % multiple == 0
            assert rows >= want_height
            assert columns >= want_width
    with pytest.raises(ConfigurationError, match="positive"):
        network_size(0, 346, 266, 350)


def test_scaled_matrices_project_to_the_same_place() -> None:
    """A ray hits the same spot of the picture, measured in shares of its width and height."""
    k = [223.9, 0.0, 170.7, 0.0, 223.6, 128.1, 0.0, 0.0, 1.0]
    p = [220.0, 0.0, 171.0, -22.0, 0.0, 221.0, 129.0, 1.5, 0.0, 0.0, 1.0, 0.0]
    old, new = (260, 346), (133, 519)
    scaled_k = np.array(scale_camera_matrix(k, old, new)).reshape(3, 3)
    scaled_p = np.array(scale_projection_matrix(p, old, new)).reshape(3, 4)
    rng = np.random.default_rng(1)
    for point in rng.uniform((-3, -2, 1), (3, 2, 9), (50, 3)):
        for before, after in (
            (np.array(k).reshape(3, 3) @ point, scaled_k @ point),
            (np.array(p).reshape(3, 4) @ [*point, 1], scaled_p @ [*point, 1]),
        ):
            u, v = before[:2] / before[2]
            new_u, new_v = after[:2] / after[2]
            assert (new_u + 0.5) / new[1] == pytest.approx((u + 0.5) / old[1])
            assert (new_v + 0.5) / new[0] == pytest.approx((v + 0.5) / old[0])
    assert scaled_k[0, 1] == scaled_k[2, 0] == 0.0
    assert scaled_k[2, 2] == 1.0


def test_uncalibrated_and_wrong_matrices() -> None:
    """All zeros mean uncalibrated and stay so; a matrix of another length is refused."""
    assert scale_camera_matrix([0.0] * 9, (10, 10), (20, 5)) == [0.0] * 9
    assert scale_projection_matrix([0.0] * 12, (10, 10), (20, 5)) == [0.0] * 12
    with pytest.raises(ConfigurationError, match="9 numbers"):
        scale_camera_matrix([0.0] * 12, (10, 10), (20, 5))
    with pytest.raises(ConfigurationError, match="positive sizes"):
        scale_projection_matrix([0.0] * 12, (10, 0), (20, 5))
