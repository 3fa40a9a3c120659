"""One step of E2Depth in plain numpy, pixel by pixel, from the paper and the published code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]


def convolve(x: Array, weight: Array, bias: Array, stride: int = 1) -> Array:
    """Cross-correlate (C, H, W) with (K, C, k, k), zeros around, k // 2 wide."""
    kernel = weight.shape[2]
    edge = kernel // 2
    padded = np.zeros((x.shape[0], x.shape[1] + 2 * edge, x.shape[2] + 2 * edge))
    padded[:, edge : edge + x.shape[1], edge : edge + x.shape[2]] = x
    rows = (x.shape[1] + 2 * edge - kernel) // stride + 1
    columns = (x.shape[2] + 2 * edge - kernel) // stride + 1
    out = np.zeros((weight.shape[0], rows, columns))
    for k in range(weight.shape[0]):
        for i in range(rows):
            for j in range(columns):
                patch = padded[
                    :, i * stride : i * stride + kernel, j * stride : j * stride + kernel
                ]
                out[k, i, j] = (patch * weight[k]).sum() + bias[k]
    return out


def double(x: Array) -> Array:
    """Bilinear, twice the size: pixel centres at halves, borders repeated."""
    for axis in (1, 2):
        before = np.concatenate([x.take([0], axis), x.take(range(x.shape[axis] - 1), axis)], axis)
        after = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
        pair = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        shape = list(x.shape)
        shape[axis] *= 2
        x = pair.reshape(shape)
    return x


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def step(voxels: Array, state: list[Array], weights: Weights) -> tuple[Array, list[Array]]:
    """Return logarithmic depth in 0..1 (H, W) and the state (h1, c1, h2, c2, ...)."""

    def layer(name: str, x: Array, stride: int = 1) -> Array:
        return convolve(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride)

    levels = len(state) // 2
    head = relu(layer("unetrecurrent.head.conv2d", voxels))
    x, features, new = head, [], []
    for level in range(levels):
        name = f"unetrecurrent.encoders.{level}"
        x = relu(layer(f"{name}.conv.conv2d", x, stride=2))
        gates = layer(f"{name}.recurrent_block.Gates", np.concatenate([x, state[2 * level]]))
        n = len(gates) // 4
        enter, remember, leave = (sigmoid(gates[k * n : (k + 1) * n]) for k in range(3))
        cell = remember * state[2 * level + 1] + enter * np.tanh(gates[3 * n :])
        x = leave * np.tanh(cell)
        features.append(x)
        new += [x, cell]
    block = 0
    while f"unetrecurrent.resblocks.{block}.conv1.weight" in weights:
        name = f"unetrecurrent.resblocks.{block}"
        x = relu(layer(f"{name}.conv2", relu(layer(f"{name}.conv1", x))) + x)
        block += 1
    for level in range(levels):
        x = double(x + features[levels - 1 - level])
        x = relu(layer(f"unetrecurrent.decoders.{level}.conv2d", x))
    return sigmoid(layer("unetrecurrent.pred.conv2d", x + head))[0], new
