"""What a network is made of, and what the number that it returns means. No torch in here.

Sizes of the encoders: DINOv2 (Oquab et al. 2023, arXiv:2304.07193); of the heads: Depth
Anything V2 (Yang et al. 2024, arXiv:2406.09414); the recurrence and the activations:
Depth AnyEvent (Bartolomei et al. 2025, arXiv:2509.15224). The compact ones are this project's.
The baselines keep their configuration beside their network (`e2depth.py`, `ereformer.py`).
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from dae_ros.errors import ConfigurationError

Recurrence = Literal["convlstm", "convgru"]
Activation = Literal["relu", "sigmoid", "softplus", "exp"]
EventEncoder = Literal["tencode", "tencode_voxel", "voxel_grid", "rgb", "grey"]
# Tencode images both, of three channels; the published weights are scored on either.
TENCODE_IMAGES = ("tencode", "tencode_voxel")
Orientation = Literal["depth", "inverse_depth", "unknown"]
Scale = Literal["metric", "relative"]
# No channels, blocks or pixels of a side beyond are built, whatever a file asks for.
LARGEST_COUNT, MOST_BLOCKS = 65536, 256


@dataclass(frozen=True)
class TransformerSize:
    """Size of a DINOv2 vision transformer.

    Attributes:
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads; width / heads channels each.
        taps: indices of the four blocks whose output goes to the head, shallowest first.
        patch_px: side of a patch in px.
        grid: side, in patches, of the square grid that the positions were trained on.
    """

    width: int
    depth: int
    heads: int
    taps: tuple[int, int, int, int]
    patch_px: int = 14
    grid: int = 37


TRANSFORMERS: Mapping[str, TransformerSize] = {
    "vits": TransformerSize(384, 12, 6, (2, 5, 8, 11)),
    "vitb": TransformerSize(768, 12, 12, (2, 5, 8, 11)),
    "vitl": TransformerSize(1024, 24, 16, (4, 11, 17, 23)),
    "vitt": TransformerSize(192, 12, 3, (2, 5, 8, 11)),
    # Only for tests: two blocks, each tapped twice, a few thousand weights.
    "tiny": TransformerSize(16, 2, 2, (0, 0, 1, 1), grid=5),
}

TIMM_PREFIX = "timm:"
ENCODERS = (*TRANSFORMERS, "micro")

# By channels: RGB or Tencode, and grey (the mean over RGB).
_IMAGENET = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


@dataclass(frozen=True)
class InputFormat:
    """How an image of the sensor's size becomes a network's input, and its prediction comes back.

    Attributes:
        channels: of the image.
        mean, deviation: taken off and divided by, one number per channel.
        at_least: (height, width) in px that the image is scaled to, keeping its aspect, until
            both are reached; None: never scaled, only padded by reflection to the next multiple.
        align_corners: whether scaling the prediction back aligns corners.
    """

    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    at_least: tuple[int, int] | None
    align_corners: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides shapes and arithmetic of a network.

    Attributes:
        encoder: one of `ENCODERS`, or `timm:<name>` for a feature extractor of timm.
        features: channels F of the head's fusion, an even number.
        reassemble: channels of the four levels before the fusion, finest first.
        recurrence: unit that remembers, one per level; None for a network without state.
        recurrent_padding: of the convolution before each recurrent unit: 0 as published, where
            every level loses one cell on every side; 1 keeps the level.
        activation: last step of the head; exp makes the head's last layer logarithmic depth.
        inv_prediction: 1 / (p + 1e-6) after relu, 1 - p after sigmoid; nothing after
            softplus, as in the published code; not with exp.
        head_align_corners: whether the last upsampling (and the way back to the sensor's
            size) aligns corners: False for Depth AnyEvent, True for Depth Anything V2.
        output_scale: factor on the activation: the largest depth in metres of a metric Depth
            Anything V2; with exp the depth in metres where the last layer gives 0; else 1.
        input_channels: 3 (Tencode, RGB) or 1 (grey).
        input_height, input_width: lower bounds of the network's input in px; the image is
            scaled, keeping its aspect, until both are reached.
    """

    network: ClassVar[str] = "dpt"

    encoder: str
    features: int
    reassemble: tuple[int, int, int, int]
    recurrence: Recurrence | None = "convlstm"
    recurrent_padding: int = 0
    activation: Activation = "softplus"
    inv_prediction: bool = False
    head_align_corners: bool = False
    output_scale: float = 1.0
    input_channels: int = 3
    input_height: int = 266
    input_width: int = 350

    def __post_init__(self) -> None:
        problems = []
        if self.encoder not in ENCODERS and not self.encoder.startswith(TIMM_PREFIX):
            problems.append(
                f"there is no encoder '{self.encoder}'; known are {', '.join(ENCODERS)} "
                f"and {TIMM_PREFIX}<name>"
            )
        if not 2 <= self.features <= LARGEST_COUNT or self.features % 2:
            problems.append(
                f"features must be even, from 2 to {LARGEST_COUNT}, not {self.features}"
            )
        counts = self.reassemble
        if len(counts) != 4 or not 1 <= min(counts) <= max(counts) <= LARGEST_COUNT:
            problems.append(f"reassemble must be four channel counts, not {counts}")
        if self.recurrence not in ("convlstm", "convgru", None):
            problems.append(f"recurrence must be convlstm, convgru or none, not {self.recurrence}")
        if self.recurrent_padding not in (0, 1):
            problems.append(f"recurrent_padding must be 0 or 1, not {self.recurrent_padding}")
        if self.activation not in ("relu", "sigmoid", "softplus", "exp"):
            problems.append(
                f"activation must be relu, sigmoid, softplus or exp, not {self.activation}"
            )
        if self.activation == "exp" and self.inv_prediction:
            problems.append("inv_prediction is not defined for exp; leave it off")
        if self.input_channels not in _IMAGENET:
            problems.append(f"input_channels must be 1 or 3, not {self.input_channels}")
        elif self.input_channels != 3 and self.encoder != "micro":
            problems.append(f"encoder {self.encoder} takes 3 input channels; only micro takes 1")
        if not (math.isfinite(self.output_scale) and self.output_scale > 0):
            problems.append(f"output_scale must be positive, not {self.output_scale}")
        size = (self.input_height, self.input_width)
        if not 1 <= min(size) <= max(size) <= LARGEST_COUNT:
            problems.append(f"input size must be from 1 to {LARGEST_COUNT} px, not {size}")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    @property
    def input_format(self) -> InputFormat:
        """What the network takes: normalised by the mean and deviation of ImageNet."""
        mean, deviation = _IMAGENET[self.input_channels]
        size = (self.input_height, self.input_width)
        return InputFormat(self.input_channels, mean, deviation, size, self.head_align_corners)

    def summary(self) -> dict[str, str]:
        """Return what a user should read about it, one text per row."""
        return {
            "encoder": self.encoder,
            "recurrence": self.recurrence or "none",
            "activation": self.activation + (" (inverted)" if self.inv_prediction else ""),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**dataclasses.asdict(self), "reassemble": list(self.reassemble)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from what `to_dict` gave.

        Raises:
            ConfigurationError: for a field that is unknown, missing or out of range.
        """
        check_fields(cls, values)
        return cls(**{**values, "reassemble": tuple(values["reassemble"])})


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What goes into a network and what its number p means.

    Attributes:
        event_encoder: `tencode` (raw events), `tencode_voxel` (through 5 voxel bins, the MVSEC
            protocol), `voxel_grid` (a normalised voxel grid, one channel per bin); or, for a
            network of camera frames, `rgb` or `grey` (one channel), both in 0..1.
        orientation: whether p grows with depth or with inverse depth. Losses and scores of the
            published networks accept both, so it belongs to each checkpoint; `unknown` until
            it was measured.
        scale: `metric` if p is metres (or 1/metres), `relative` if only up to scale and shift.
        metres_scale, metres_shift: measured for a relative checkpoint, else None:
            metres = metres_scale p + metres_shift for `depth`,
            metres = 1 / (metres_scale p + metres_shift) for `inverse_depth`.
    """

    event_encoder: EventEncoder = "tencode"
    orientation: Orientation = "unknown"
    scale: Scale = "relative"
    metres_scale: float | None = None
    metres_shift: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.event_encoder not in ("tencode", "tencode_voxel", "voxel_grid", "rgb", "grey"):
            problems.append(f"there is no event encoder '{self.event_encoder}'")
        if self.orientation not in ("depth", "inverse_depth", "unknown"):
            problems.append(f"there is no orientation '{self.orientation}'")
        if self.scale not in ("metric", "relative"):
            problems.append(f"scale must be metric or relative, not '{self.scale}'")
        if self.scale == "metric" and self.orientation == "unknown":
            problems.append("a metric checkpoint must say whether it is depth or inverse_depth")
        if (self.metres_scale is None) != (self.metres_shift is None):
            problems.append("metres_scale and metres_shift belong together; give both or neither")
        if self.metres_scale is not None and self.orientation == "unknown":
            problems.append("metres_scale needs an orientation")
        problems += [
            f"scale and shift to metres must be finite, not {value}"
            for value in (self.metres_scale, self.metres_shift)
            if value is not None and not math.isfinite(value)
        ]
        if self.metres_scale is not None and self.metres_scale <= 0:
            problems.append("metres_scale must be positive; the sign belongs to the orientation")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Meaning:
        """Build from what `to_dict` gave.

        Raises:
            ConfigurationError: for a field that is unknown or out of range.
        """
        check_fields(cls, values)
        return cls(**values)


def same_input(event_encoder: str, other: str) -> bool:
    """Return whether what takes the images of one encoder can be fed with those of another."""
    return event_encoder == other or {event_encoder, other} <= set(TENCODE_IMAGES)


def check_fields(kind: type, values: Mapping[str, Any]) -> None:
    """Refuse values that are not the fields of a dataclass, or not of their kinds.

    Args:
        kind: fields are texts, numbers, truth values, tuples of whole numbers, or None.
        values: as JSON gives them, where a tuple is a list.

    Raises:
        ConfigurationError: with the unknown and the missing ones, and those of another kind.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(
            f"{kind.__name__} must be an object with its fields, not {reprlib.repr(values)}"
        )
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(known))
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in values
    ]
    if unknown or missing:
        raise ConfigurationError(
            f"{kind.__name__}: unknown fields {unknown}, missing fields {missing}; was this "
            "written by a newer version?",
            unknown=unknown,
            missing=missing,
        )
    hints = typing.get_type_hints(kind)
    problems = [
        f"{name} must be {words}, not {reprlib.repr(value)}"
        for name, value in values.items()
        if (words := _other_kind(value, hints[name]))
    ]
    if problems:
        raise ConfigurationError("; ".join(problems), problems=problems)


def _other_kind(value: object, hint: Any) -> str:
    """Return what a field must be; empty where the value is that."""
    options = typing.get_args(hint)
    if type(None) in options:
        if value is None:
            return ""
        hint = options[0]
    # By the exact type: True is an int as well.
    found = type(value)
    if hint is bool:
        return "" if found is bool else "true or false"
    if hint is int:
        return "" if found is int else "a whole number"
    if hint is float:
        # Of the whole numbers those that a float holds.
        fits = found is float or (isinstance(value, int) and abs(value) <= 2**53)
        return "" if fits and found is not bool else "a number"
    if typing.get_origin(hint) is tuple:
        fits = isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
        return "" if fits else "a list of whole numbers"
    return "" if found is str else "a text"


PUBLISHED = ("vits", "vitb", "vitl")
COMPACT = ("vitt", "micro", "micro_memoryless", "micro_frames")

# The compact networks were never trained without padding, and give metres: see docs/model.md.
_METRIC = {"recurrent_padding": 1, "activation": "exp", "output_scale": 4.0}
_MICRO = {
    "encoder": "micro",
    "features": 32,
    "reassemble": (32, 48, 64, 96),
    "input_height": 126,
    "input_width": 168,
    **_METRIC,
}
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "vits": {"encoder": "vits", "features": 64, "reassemble": (48, 96, 192, 384)},
    "vitb": {"encoder": "vitb", "features": 128, "reassemble": (96, 192, 384, 768)},
    "vitl": {"encoder": "vitl", "features": 256, "reassemble": (256, 512, 1024, 1024)},
    "vitt": {"encoder": "vitt", "features": 48, "reassemble": (24, 48, 96, 192), **_METRIC},
    "micro": _MICRO,
    # A wider head makes up for the weights of the memory, to compare at equal size.
    "micro_memoryless": {**_MICRO, "recurrence": None, "features": 54},
    "micro_frames": {**_MICRO, "recurrence": None, "input_channels": 1},
    "tiny": {
        "encoder": "tiny",
        "features": 8,
        "reassemble": (4, 6, 8, 8),
        "input_height": 70,
        "input_width": 98,
    },
}


def variant(name: str, **changes: Any) -> ModelConfig:
    """Return a named network of this family, with fields changed.

    vits, vitb, vitl: the published DepthAnyEvent-R, and with `recurrence=None` DepthAnyEvent.
    vitt, micro: this project's compact DepthAnyEvent-R; micro_memoryless: its control without
    memory; micro_frames: its twin for grey camera frames.

    Raises:
        ConfigurationError: for another name, or a bad field.
    """
    if name not in _VARIANTS:
        raise ConfigurationError(
            f"there is no variant '{name}'; known are {', '.join((*PUBLISHED, *COMPACT))}",
            name=name,
        )
    return ModelConfig(**{**_VARIANTS[name], **changes})
