"""Everything that compiles or allocates on first use, done before the first packet."""

from __future__ import annotations

import numpy as np

from dae_ros.events import codecs
from dae_ros.events.packet import Events
from dae_ros.representation.surface import TencodeSurface
from dae_ros.representation.tencode import tencode_voxel
from dae_ros.representation.tencode_code import unpack_tencode
from dae_ros.representation.voxel_grid import voxel_grid
from dae_ros.runtime.estimator import DepthEstimator, SizedEstimator

# The camera's size is not known yet; any network accepts this one.
HEIGHT, WIDTH = 260, 346


def warm_up(estimator: DepthEstimator) -> None:
    """Load or compile the kernels of every decoder and encoder, and run the network once.

    On the thread that will run the pipeline: some backends keep state per thread. A network that
    is built for one size waits for the camera's.
    """
    for encoding in codecs.supported_encodings():
        codecs.warm_up(encoding)
    TencodeSurface(1, 1)
    unpack_tencode(np.zeros((1, 1), np.uint16))
    one = Events(
        np.zeros(1, np.int64), np.zeros(1, np.uint16), np.zeros(1, np.uint16), np.ones(1, np.uint8)
    )
    tencode_voxel(one, 1, 1)
    voxel_grid(one, 1, 1, estimator.input_channels, normalise=True)
    size: tuple[int, int] | None = (HEIGHT, WIDTH)
    if isinstance(estimator, SizedEstimator):
        size = estimator.sensor_size
    if size is not None:
        estimator.estimate(np.zeros((estimator.input_channels, *size), np.float32))
        estimator.reset()
