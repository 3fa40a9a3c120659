"""What a network is made of, and what the number that it returns means. No torch in here.

Sizes of the encoders: DINOv2 (Oquab et al. 2023, arXiv:2304.07193); of the heads: Depth
Anything V2 (Yang et al. 2024, arXiv:2406.09414); the recurrence and the activations:
Depth AnyEvent (Bartolomei et al. 2025, arXiv:2509.15224).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dae_ros.errors import ConfigurationError

Recurrence = Literal["convlstm", "convgru"]
Activation = Literal["relu", "sigmoid", "softplus"]
EventEncoder = Literal["tencode", "tencode_voxel", "rgb"]
Orientation = Literal["depth", "inverse_depth", "unknown"]
Scale = Literal["metric", "relative"]


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
    # Only for tests: two blocks, each tapped twice, a few thousand weights.
    "tiny": TransformerSize(16, 2, 2, (0, 0, 1, 1), grid=5),
}

TIMM_PREFIX = "timm:"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides shapes and arithmetic of a network.

    Attributes:
        encoder: a key of `TRANSFORMERS`, or `timm:<name>` for a feature extractor of timm.
        features: channels F of the head's fusion, an even number.
        reassemble: channels of the four levels before the fusion, finest first.
        recurrence: unit that remembers, one per level; None for a network without state.
        activation: last step of the head.
        inv_prediction: 1 / (p + 1e-6) after relu, 1 - p after sigmoid; nothing after
            softplus, as in the published code.
        head_align_corners: whether the last upsampling (and the way back to the sensor's
            size) aligns corners: False for Depth AnyEvent, True for Depth Anything V2.
        output_scale: factor on the activation: the largest depth in metres of a metric Depth
            Anything V2, 1 otherwise.
        input_height, input_width: lower bounds of the network's input in px; the image is
            scaled, keeping its aspect, until both are reached.
    """

    encoder: str
    features: int
    reassemble: tuple[int, int, int, int]
    recurrence: Recurrence | None = "convlstm"
    activation: Activation = "softplus"
    inv_prediction: bool = False
    head_align_corners: bool = False
    output_scale: float = 1.0
    input_height: int = 266
    input_width: int = 350

    def __post_init__(self) -> None:
        problems = []
        if self.encoder not in TRANSFORMERS and not self.encoder.startswith(TIMM_PREFIX):
            problems.append(
                f"there is no encoder '{self.encoder}'; known are {', '.join(TRANSFORMERS)} "
                f"and {TIMM_PREFIX}<name>"
            )
        if self.features < 2 or self.features % 2:
            problems.append(f"features must be even and at least 2, not {self.features}")
        if len(self.reassemble) != 4 or min(self.reassemble, default=0) < 1:
            problems.append(f"reassemble must be four channel counts, not {self.reassemble}")
        if self.recurrence not in ("convlstm", "convgru", None):
            problems.append(f"recurrence must be convlstm, convgru or none, not {self.recurrence}")
        if self.activation not in ("relu", "sigmoid", "softplus"):
            problems.append(f"activation must be relu, sigmoid or softplus, not {self.activation}")
        if not (math.isfinite(self.output_scale) and self.output_scale > 0):
            problems.append(f"output_scale must be positive, not {self.output_scale}")
        if min(self.input_height, self.input_width) < 1:
            problems.append(f"input size {self.input_height}x{self.input_width} is empty")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**dataclasses.asdict(self), "reassemble": list(self.reassemble)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from what `to_dict` gave.

        Raises:
            ConfigurationError: for a field that is unknown, missing or out of range.
        """
        _check_fields(cls, values)
        return cls(**{**values, "reassemble": tuple(values["reassemble"])})


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What goes into a network and what its number p means.

    Attributes:
        event_encoder: `tencode` (raw events), `tencode_voxel` (through 5 voxel bins, the MVSEC
            protocol), or `rgb` for a network of camera frames.
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
        if self.event_encoder not in ("tencode", "tencode_voxel", "rgb"):
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
        _check_fields(cls, values)
        return cls(**values)


def _check_fields(kind: type, values: Mapping[str, Any]) -> None:
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


# features, reassemble channels
_HEADS: Mapping[str, tuple[int, tuple[int, int, int, int]]] = {
    "vits": (64, (48, 96, 192, 384)),
    "vitb": (128, (96, 192, 384, 768)),
    "vitl": (256, (256, 512, 1024, 1024)),
    "tiny": (8, (4, 6, 8, 8)),
}


def variant(encoder: str, **changes: Any) -> ModelConfig:
    """Return the published DepthAnyEvent-R with this encoder, with fields changed.

    `recurrence=None` gives DepthAnyEvent.

    Raises:
        ConfigurationError: for an encoder that has no published head, or a bad field.
    """
    if encoder not in _HEADS:
        raise ConfigurationError(
            f"there is no variant '{encoder}'; known are {', '.join(PUBLISHED)}", encoder=encoder
        )
    features, reassemble = _HEADS[encoder]
    fields: dict[str, Any] = {
        "encoder": encoder,
        "features": features,
        "reassemble": reassemble,
        **changes,
    }
    if encoder == "tiny":
        fields = {"input_height": 70, "input_width": 98, **fields}
    return ModelConfig(**fields)


PUBLISHED = ("vits", "vitb", "vitl")
