"""A network over the windows of clips: codes in, predictions and states out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.online.observation import EventClip
from dae_ros.distillation.online.tiers import check_adaptable
from dae_ros.distillation.rollout import encode, in_precision, roll_features, same_encoder
from dae_ros.errors import ConfigurationError, DistillationError
from dae_ros.model.configuration import Meaning
from dae_ros.model.networks import Network, build_network
from dae_ros.runtime.torch_fitting import Fitting

State = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class ClipPrediction:
    """What a network says about the windows of a clip, from a zero state on.

    Attributes:
        maps: float32 (wanted, h, w), of the last windows, at the network's size.
        state: float16 arrays, the state before window `lead`, as `LabelledClip.state` holds it;
            () without memory.
    """

    maps: Tensor
    state: tuple[NDArray[np.float16], ...]


class ClipNetwork:
    """One network of the DepthAnyEvent family on clips of Tencode.

    Args:
        network: on its device; its weights may change between calls.
        meaning: what it takes and gives.
        precision: float32, or bfloat16 inside convolutions and matrix products.

    Attributes:
        network: the network.
        meaning: what it takes and gives.
        device: of its weights.

    Raises:
        ConfigurationError: it takes no Tencode, gives inverse depth, or is of another family.
    """

    def __init__(self, network: Network, meaning: Meaning, precision: str = "float32") -> None:
        self.network = check_adaptable(network)
        if meaning.event_encoder not in ("tencode", "tencode_voxel"):
            raise ConfigurationError(
                f"online learning keeps windows as Tencode and this network takes "
                f"{meaning.event_encoder}; use weights trained with event_encoder tencode",
                event_encoder=meaning.event_encoder,
            )
        if meaning.orientation == "inverse_depth":
            raise ConfigurationError(
                "this network gives inverse depth, and labels are depth: aligned to them its "
                "scale is negative. Use weights that give depth"
            )
        self.meaning = meaning
        self.device = next(network.parameters()).device
        self._fitting = Fitting(network.config, network.multiple, self.device)
        self._precision = precision

    def with_weights(self, weights: Mapping[str, Tensor]) -> ClipNetwork:
        """Return such a network with other weights, which are copied: plain, frozen, in eval mode.

        Args:
            weights: a whole state under plain names.
        """
        with torch.device("meta"):
            network = build_network(self.network.config)
        own = {name: weight.to(self.device, copy=True) for name, weight in weights.items()}
        network.load_state_dict(own, assign=True)
        # See `rollout.py`; the stubs of PyTorch do not know this form.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return ClipNetwork(network.eval().requires_grad_(False), self.meaning, self._precision)

    def between(self, other: ClipNetwork, part: float) -> ClipNetwork:
        """Return the network that lies at a part of the way from another one (0) to this (1)."""
        end = self.network.state_dict()
        return self.with_weights(
            {
                name: torch.lerp(begin, end[name], part) if begin.is_floating_point() else end[name]
                for name, begin in other.network.state_dict().items()
            }
        )

    def same_encoder(self, other: ClipNetwork) -> bool:
        """Return whether both encoders have equal weights, and so say the same of every window."""
        return same_encoder(self.network, other.network)

    def at_sensor_size(self, maps: Tensor, observation: EventClip) -> NDArray[np.float32]:
        """Return maps (T, h, w) of the network's size as float32[T, H, W] of a clip's pixels."""
        height, width = observation.windows.shape[1:]
        restored: NDArray[np.float32] = (
            self._fitting.restore(maps[:, None], height, width)[:, 0].cpu().numpy()
        )
        return restored

    def size(self, observation: EventClip) -> tuple[int, int]:
        """Return height and width of the network's input for a clip, px."""
        height, width = observation.windows.shape[1:]
        return self._fitting.network_size(height, width)

    def features(self, observation: EventClip, first: int, last: int) -> list[Tensor]:
        """Return the encoder's maps of the windows [first, last), (1, T, c, rows, columns) each."""
        return self.features_of(observation.windows[None, first:last])

    def features_of(self, windows: NDArray[np.uint8]) -> list[Tensor]:
        """Return the encoder's maps of windows (B, T, H, W) as clips hold them."""
        batch, length = windows.shape[:2]
        codes = torch.from_numpy(np.array(windows)).to(self.device)
        images = self._fitting.prepare(tencode_of_code(codes.flatten(0, 1)))
        with in_precision(self.device, self._precision):
            return encode(self.network, images.reshape(batch, length, *images.shape[1:]))

    def roll(
        self,
        features: list[Tensor],
        size: tuple[int, int],
        state: State,
        wanted: int | None = None,
    ) -> tuple[Tensor, State]:
        """Return predictions (B, wanted, h, w) in float32, and the state after the last window.

        Args:
            features: of T windows of B clips.
            size: of `size`.
            state: before the first of them.
            wanted: how many of the last windows; None for all.
        """
        with in_precision(self.device, self._precision):
            predictions, state = roll_features(self.network, features, size, state, wanted)
        return predictions.float(), state

    def zero_state(self, observation: EventClip) -> State:
        """Return the state of a clip before its first window."""
        return self.network.initial_state(1, *self.size(observation))

    def stored_state(self, observation: EventClip, state: tuple[NDArray[np.float16], ...]) -> State:
        """Return a state that was stored with a clip.

        Raises:
            DistillationError: it is of another network or size.
        """
        zero = self.zero_state(observation)
        shapes = [tuple(tensor.shape) for tensor in zero]
        if [column.shape for column in state] != shapes:
            raise DistillationError(
                f"the state stored with a clip has shapes {[c.shape for c in state]}, the network "
                f"keeps {shapes}; clear the clips of the other network",
            )
        return tuple(
            torch.from_numpy(column.astype(np.float32)).to(tensor.device, tensor.dtype)
            for column, tensor in zip(state, zero, strict=True)
        )

    @torch.no_grad()
    def predict(
        self, observation: EventClip, lead: int, wanted: int | None = None
    ) -> ClipPrediction:
        """Run over a whole clip from a zero state, without gradient.

        Args:
            observation: the clip.
            lead: before which window the state is returned.
            wanted: of how many of the last windows maps are needed, at most those after `lead`;
                None for all windows.
        """
        features = self.features(observation, 0, len(observation))
        return self.predict_from(features, self.size(observation), lead, wanted)

    @torch.no_grad()
    def predict_from(
        self, features: list[Tensor], size: tuple[int, int], lead: int, wanted: int | None = None
    ) -> ClipPrediction:
        """As `predict`, from the features of all windows."""
        state: State = self.network.initial_state(1, *size)
        parts = []
        if lead:
            before = [level[:, :lead] for level in features]
            maps, state = self.roll(before, size, state, None if wanted is None else 0)
            parts.append(maps[0])
        kept = tuple(tensor.cpu().numpy().astype(np.float16) for tensor in state)
        maps, _ = self.roll([level[:, lead:] for level in features], size, state, wanted)
        return ClipPrediction(torch.cat([*parts, maps[0]]), kept)
