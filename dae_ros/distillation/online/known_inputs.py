"""Keeps weights from changing where the inputs that layers knew before adaptation would notice.

A change D of a layer's weights changes what it gives for an input x by D x. So a step is multiplied
by (I + s C / c)^-1, where C is the second moment of the layer's inputs over places from before
adaptation and c the mean of its diagonal: hardly anything happens along directions that are strong
there, and all of the step along those that are absent. That is gradient projection (GPM: Saha,
Garg, Roy 2021, arXiv:2103.09762) after the optimizer, as in Adam-NSCL (Wang et al. 2021,
arXiv:2103.07113), without a threshold between known and free directions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.errors import ConfigurationError

# Of every map that a layer sees so many patches are taken, all where there are no more.
PATCHES = 16
_HEAD = "depth_head."
_DRAW = 11  # stream of random numbers beside the seed

Layer = nn.Conv2d | nn.ConvTranspose2d


def input_moments(
    network: ClipNetwork,
    clips: Iterable[LabelledClip],
    weights: Collection[str],
    seed: int,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Return what the layers of the head see in some clips, each rolled from a zero state.

    Args:
        network: from before adaptation.
        clips: of one size; none give no layer.
        weights: plain names of those whose layers are looked at.
        seed: of the patches.
        pause: called after each clip.

    Raises:
        ConfigurationError: the head has layers other than plain convolutions and enlargements.

    Returns:
        Name of a layer -> mean of x x^T, float64 (d + 1, d + 1): x is what one output depends on,
        in the order of the layer's weights, and then 1 for its bias.
    """
    generator = torch.Generator().manual_seed(seed * 100 + _DRAW)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def look(name: str, layer: Layer, given: Tensor) -> None:
        # In half precision sums of squares would not even be positive.
        with torch.autocast(given.device.type, enabled=False):
            seen = F.pad(_patches(layer, given.detach(), generator), (0, 1), value=1.0)
            moment = (seen.T @ seen).double()
        sums[name] = sums[name] + moment if name in sums else moment
        counts[name] = counts.get(name, 0) + len(seen)

    with contextlib.ExitStack() as stack:
        for name, layer in _layers(network.network):
            if f"{name}.weight" in weights:
                handle = layer.register_forward_pre_hook(
                    lambda layer, given, name=name: look(name, layer, given[0])
                )
                stack.callback(handle.remove)
        for clip in clips:
            observation = clip.observation
            with torch.no_grad():
                features = network.features(observation, 0, len(observation))
                network.roll(features, network.size(observation), network.zero_state(observation))
            pause()
    return {name: total / counts[name] for name, total in sums.items()}


class Protection:
    """Takes out of every step what known inputs would notice.

    Args:
        moments: of `input_moments`; layers that are not among them are left alone.
        strength: along a direction of the mean energy 1 / (1 + strength) of a step is left.
        device: of the weights.
    """

    def __init__(
        self, moments: Mapping[str, Tensor], strength: float, device: torch.device
    ) -> None:
        self._matrices = {
            name: _free(moment, strength).float().to(device) for name, moment in moments.items()
        }

    def __bool__(self) -> bool:
        """Return whether there is a layer to protect."""
        return bool(self._matrices)

    @contextlib.contextmanager
    def around(self, network: nn.Module) -> Iterator[None]:
        """Limit what the weights of a network are moved by meanwhile."""
        layers = {name: layer for name, layer in _layers(network) if name in self._matrices}
        with torch.no_grad():
            before = {name: _rows(layer).clone() for name, layer in layers.items()}
        yield
        with torch.no_grad():
            for name, layer in layers.items():
                change = (_rows(layer) - before[name]) @ self._matrices[name]
                _put(layer, before[name] + change)


def _free(moment: Tensor, strength: float) -> Tensor:
    """Return (I + s C / c)^-1; c is not 0, because of the 1 for the bias."""
    mean = moment.diagonal().mean()
    identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(identity + strength / mean * moment))


def _layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    for name, layer in network.named_modules():
        if name.startswith(_HEAD) and isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            yield name, layer


def _geometry(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, stride and padding of what one output depends on.

    Raises:
        ConfigurationError: outputs of the layer depend on something else.
    """
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    upward = isinstance(layer, nn.ConvTranspose2d)
    if (
        isinstance(padding, str)
        or layer.padding_mode != "zeros"
        or layer.groups != 1
        or set(layer.dilation) != {1}
        or (
            upward and (kernel != stride or set(padding) != {0} or set(layer.output_padding) != {0})
        )
    ):
        raise ConfigurationError(
            f"what {layer} of the head sees is not known; set 'protection' to 0 for such a head"
        )
    return ((1, 1), (1, 1), (0, 0)) if upward else (kernel, stride, padding)


def _patches(layer: Layer, maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 (n, d): what some outputs of a layer depend on in maps (B, C, h, w)."""
    kernel, stride, padding = _geometry(layer)
    padded = F.pad(maps, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    rows, columns = (
        (padded.shape[1 + axis] - kernel[axis]) // stride[axis] + 1 for axis in range(2)
    )
    batch, every = len(maps), rows * columns
    if every > PATCHES:
        chosen = torch.randint(every, (batch, PATCHES), generator=generator)
    else:
        chosen = torch.arange(every).expand(batch, -1)
    y = (chosen // columns * stride[0])[..., None, None] + torch.arange(kernel[0])[:, None]
    x = (chosen % columns * stride[1])[..., None, None] + torch.arange(kernel[1])
    found = padded[torch.arange(batch)[:, None, None, None], y, x]
    return found.permute(0, 1, 4, 2, 3).flatten(2).flatten(0, 1).float()


def _rows(layer: Layer) -> Tensor:
    """Return weights and bias as (n, d + 1): each row is multiplied with one input."""
    weight = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.permute(1, 2, 3, 0)
        rows, each = weight.flatten(0, 2), weight[0, :, :, 0].numel()
    else:
        rows, each = weight.flatten(1), 1
    bias = rows.new_zeros(len(rows)) if layer.bias is None else layer.bias.repeat_interleave(each)
    return torch.cat([rows, bias[:, None]], dim=1)


def _put(layer: Layer, rows: Tensor) -> None:
    """Write what `_rows` returned; a bias of many rows becomes their mean."""
    weight = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):
        channels, outputs, *kernel = weight.shape
        weight.copy_(rows[:, :-1].reshape(outputs, *kernel, channels).permute(3, 0, 1, 2))
    else:
        weight.copy_(rows[:, :-1].reshape(weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(rows[:, -1].reshape(len(layer.bias), -1).mean(dim=1))
