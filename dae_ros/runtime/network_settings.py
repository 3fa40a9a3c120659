"""What parameters ask of a network, whichever backend runs it."""

from __future__ import annotations

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.cores import usable_cores

# Channels of each event image; a voxel grid may have any number of bins.
_EVENT_CHANNELS = {"tencode": 3, "tencode_voxel": 3}


def network_threads(parameters: DepthParameters) -> int:
    """Return the CPU threads of the network; one core is left to others if none are asked for."""
    return parameters.threads or max(1, usable_cores() - 1)


def check_event_encoder(
    name: str, event_encoder: str, channels: int, parameters: DepthParameters
) -> None:
    """Refuse to feed a network with what it does not take.

    Args:
        name: of the weights.
        event_encoder: that they were trained on, see `Meaning.event_encoder`.
        channels: that they take.
        parameters: with the event encoder that was chosen.

    Raises:
        ConfigurationError: for camera frames, or another number of channels.
    """
    chosen = parameters.event_encoder
    if event_encoder in ("rgb", "grey") and chosen == "checkpoint":
        raise ConfigurationError(
            f"{name} takes camera frames, not events. Use weights of DepthAnyEvent(-R), "
            "or set event_encoder to tencode to feed it event images all the same",
            weights=parameters.weights,
        )
    if chosen != "checkpoint" and _EVENT_CHANNELS.get(chosen, channels) != channels:
        raise ConfigurationError(
            f"{name} takes {channels} channels and event_encoder {chosen} gives "
            f"{_EVENT_CHANNELS[chosen]}. Leave event_encoder at checkpoint",
            weights=parameters.weights,
        )
