"""Every setting of training and distillation: one typed table each, read from flat YAML.

Written like `dae_ros/parameters`, whose validation it uses: a configuration is checked whole,
unknown keys are refused, and nothing is clamped. `config/train/*.yaml` are the presets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dae_ros.bags.damage import DAMAGE
from dae_ros.errors import ConfigurationError
from dae_ros.installation import share_folder
from dae_ros.parameters import NodeParameters, Value, declarations, declare

Settings = TypeVar("Settings", bound="TrainingParameters")

# Python's own errors are those of bytes that are no text, and of dates and numbers that are none.
_NO_YAML: tuple[type[Exception], ...] = (*DAMAGE, yaml.YAMLError)
METRIC_LOSSES = ("log_depth", "silog")
# What may differ when a run is taken up again: it changes no weight that comes out.
_FREE = ("device", "threads", "save_every", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class TrainingParameters(NodeParameters):
    """Settings of `dae-ros train`: supervised by depth."""

    weights: str = declare(
        "untrained:micro", "Where training begins: untrained:NAME, a manifest name, or a file."
    )
    encoder_weights: str = declare(
        "", "Weights whose image encoder to begin with, instead of that of 'weights'; a first "
        "layer for other channels stays as it was.",
    )  # fmt: skip
    clips: str = declare("", "Folders of clips (dae-ros clips), separated by commas.")
    steps: int = declare(10_000, "Updates of the weights.", minimum=1)
    batch: int = declare(8, "Clips per update, over all processes.", minimum=1, maximum=4096)
    unroll: int = declare(
        8, "Windows of a clip that are learned from; gradients reach no further back.", minimum=1
    )
    burn_in: int = declare(
        6, "Windows before them that only bring the recurrent state up, without gradient.",
        minimum=0,
    )  # fmt: skip
    cold_start: float = declare(
        0.25, "Share of updates without burn-in, so that a zero state stays good.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    flip: float = declare(
        0.5, "Share of clips that are mirrored left to right.", minimum=0.0, maximum=1.0
    )
    crop_height: int = declare(
        0, "Rows of a random crop of the network's input in px, the same through a clip; 0: none.",
        minimum=0,
    )  # fmt: skip
    crop_width: int = declare(0, "Columns of that crop in px.", minimum=0)
    crop_share: float = declare(1.0, "Share of updates that crop.", minimum=0.0, maximum=1.0)
    loss: str = declare(
        "log_depth",
        "log_depth: mean |ln p - ln d|, silog: sqrt(var + 0.15 mean^2) of it (both metres); "
        "published: L_si after least squares, up to scale and shift.",
        choices=("log_depth", "silog", "published"),
    )
    alpha: float = declare(
        0.25, "Weight of the multi-scale gradient term L_reg; the paper's lambda.", minimum=0.0
    )
    normalisation: str = declare(
        "global", "Contexts of the normalised term.", choices=("hybrid", "local", "global")
    )
    normalised_weight: float = declare(
        0.0, "Weight of the normalised term, (v - median) / MAD: the shape of linear depth, which "
        "a loss of logarithms leaves to its far tail.",
        minimum=0.0,
    )  # fmt: skip
    reduction: str = declare(
        "image",
        "image: mean of per-image means; batch: one mean over all pixels, as published (per "
        "process, where there are several). The root of silog always pools as batch does.",
        choices=("image", "batch"),
    )
    maximum_depth_m: float = declare(
        80.0, "Labels beyond are not used; published: labels are divided by it.", minimum=0.1
    )
    learning_rate: float = declare(1e-3, "Peak of the learning rate.", minimum=0.0, maximum=1.0)
    muon_rate: float = declare(
        0.0, "Peak of the rate of Muon, which then moves matrices and kernels while AdamW moves "
        "the rest at 'learning_rate'; 0: AdamW moves all.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    final_rate: float = declare(
        0.01, "Rates at the end, relative to their peak; 1 keeps them constant.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    warm_up: int = declare(200, "Updates over which the rates grow from 0.", minimum=0)
    weight_decay: float = declare(0.01, "Of matrices and kernels only.", minimum=0.0)
    beta_2: float = declare(
        0.999, "AdamW's decay of squared gradients.", minimum=0.5, maximum=0.9999
    )
    clip_norm: float = declare(
        10.0, "Largest norm of the gradient; larger is scaled; 0: any.", minimum=0.0
    )
    ema: float = declare(
        0.999, "Decay of the weights' running average, which is scored and kept; 0: none.",
        minimum=0.0, maximum=0.99999,
    )  # fmt: skip
    precision: str = declare(
        "float32", "Arithmetic of the network.", choices=("float32", "bfloat16", "float16")
    )
    device: str = declare("auto", "auto, cpu, cuda or cuda:N; a process of torchrun has its own.")
    threads: int = declare(0, "CPU threads; 0 takes all.", minimum=0, maximum=256)
    seed: int = declare(
        0, "Of data order, augmentation and the choice of teachers.",
        minimum=0, maximum=2**31 - 1,
    )  # fmt: skip
    save_every: int = declare(200, "Updates between two saved states.", minimum=1)
    evaluate_every: int = declare(1000, "Updates between two scores on held-out clips.", minimum=1)
    heldout_windows: int = declare(
        100, "Windows of each held-out sequence that are scored; 0: all.", minimum=0
    )
    tensorboard: bool = declare(False, "Write TensorBoard files as well (extra `tensorboard`).")

    @property
    def metric(self) -> bool:
        """Whether the loss teaches metres."""
        return self.loss in METRIC_LOSSES

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of `clips`."""
        return tuple(Path(part.strip()) for part in self.clips.split(",") if part.strip())

    def rules(self) -> list[str]:
        """Crops have two sides; warm-up ends before the run; there is data."""
        problems = []
        if not self.folders:
            problems.append("'clips' names no folder; make one with dae-ros clips")
        if (self.crop_height == 0) != (self.crop_width == 0):
            problems.append("'crop_height' and 'crop_width' belong together")
        if self.warm_up >= self.steps:
            problems.append(
                f"'warm_up' ({self.warm_up}) must be below 'steps' ({self.steps}); lower it too "
                f"(--set warm_up={self.steps // 4})"
            )
        if not self.learning_rate > 0:
            problems.append("'learning_rate' must be above 0")
        return problems

    def identity(self) -> dict[str, Value]:
        """Return what two runs must share for one to go on where the other was stopped."""
        return {name: getattr(self, name) for name in declarations(type(self)) if name not in _FREE}


@dataclass(frozen=True, kw_only=True)
class DistillationParameters(TrainingParameters):
    """Settings of `dae-ros distill`: taught by what a network says about camera frames."""

    teachers: str = declare(
        "",
        "Weights of frame networks, or .yaml manifests of ONNX files, separated by commas; "
        "NAME:SHARE where there are several, of which each update takes one.",
    )
    loss: str = declare(
        "published",
        "published: L_si, up to scale and shift; log_depth, silog: metres of a metric teacher; "
        "none: the normalised term alone.",
        choices=("published", "log_depth", "silog", "none"),
    )
    near_m: float = declare(0.3, "Nearest depth of the place, of relative teachers.", minimum=0.01)
    far_m: float = declare(15.0, "Farthest depth of the place; labels beyond it are invalid.")
    trim: float = declare(
        0.1, "Share of a label's pixels with the largest residual that 'loss' leaves out.",
        minimum=0.0, maximum=0.5,
    )  # fmt: skip
    refuse_after: int = declare(
        500,
        "Updates after which a label is refused whose fit to the student is implausible "
        "(negative scale, little correlation); 0 for a student that knows depth already.",
        minimum=0,
    )
    smallest_correlation: float = declare(
        0.3,
        "A fit is implausible also where label and student correlate less; -1: the scale's sign "
        "decides alone.",
        minimum=-1.0, maximum=1.0,
    )  # fmt: skip
    smallest_label_px: int = declare(
        500, "A label of fewer valid pixels is refused as well.", minimum=1
    )
    normalisation: str = declare(
        "hybrid",
        "Contexts of the normalised term and of local-global.",
        choices=("hybrid", "local", "global", "none"),
    )
    normalised_weight: float = declare(0.5, "Weight of the normalised term.", minimum=0.0)
    local_global_share: float = declare(
        0.0, "Share of updates in which the teacher also sees crops of the frame.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    local_global_weight: float = declare(0.5, "Weight of that term.", minimum=0.0)
    local_global_crops: int = declare(2, "Crops per frame in it.", minimum=1, maximum=16)
    local_global_size: float = declare(
        0.5, "Sides of these crops, relative to the frame's.", minimum=0.2, maximum=0.9
    )
    flip_consistency: bool = declare(
        False, "Weigh label pixels by how well the teacher agrees on the mirrored frame."
    )
    agreement_tolerance: float = declare(
        0.0,
        "Use only pixels on which another teacher agrees, in parts of the label's spread; 0: all.",
        minimum=0.0,
    )

    @property
    def shares(self) -> dict[str, float]:
        """Teacher -> its share.

        Raises:
            ConfigurationError: a share that is no number.
        """
        result: dict[str, float] = {}
        for part in self.teachers.split(","):
            name, colon, share = part.strip().rpartition(":")
            if not colon or name in ("", "untrained"):
                name, share = part.strip(), "1"
            try:
                result[name] = float(share)
            except ValueError as error:
                raise ConfigurationError(
                    f"'{part.strip()}' in 'teachers' is not NAME or NAME:SHARE"
                ) from error
        return {name: share for name, share in result.items() if name}

    def rules(self) -> list[str]:
        """Teachers exist; what has no unit is not compared in metres."""
        problems = super().rules()
        try:
            shares = self.shares
        except ConfigurationError as error:
            return [*problems, error.message]
        if not shares or not all(0 < share < math.inf for share in shares.values()):
            problems.append("'teachers' needs at least one name, and shares above 0")
        if self.near_m >= self.far_m:
            problems.append(f"'near_m' ({self.near_m:g}) must be below 'far_m' ({self.far_m:g})")
        if self.loss == "none" and self.normalised_weight == 0 and self.local_global_share == 0:
            problems.append("nothing is learned: 'loss' is none and the other terms are off")
        if self.crop_height and self.crop_share > 0 and self.metric:
            problems.append(
                "a teacher does not see metres on a crop; with 'crop_height' use 'loss' published"
            )
        if self.normalisation == "none" and (
            self.local_global_share > 0 or (not self.metric and self.normalised_weight > 0)
        ):
            problems.append(
                "'normalisation' none compares metres, which crops and relative losses have not"
            )
        if self.agreement_tolerance > 0 and len(shares) < 2:
            problems.append("'agreement_tolerance' needs two teachers")
        return problems


def load_settings(
    kind: type[Settings], source: str | Path, overrides: Sequence[str] = ()
) -> Settings:
    """Read a configuration.

    Args:
        kind: `TrainingParameters` or `DistillationParameters`.
        source: a YAML file, or the name of a preset in `config/train`.
        overrides: `name=value`, which go before the file; `name=` sets an empty text.

    Raises:
        ConfigurationError: one sentence per problem, all of them at once.
    """
    path = find_yaml(source, "configuration", presets())
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must be a mapping of names to values", path=str(path))
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigurationError(f"'{override}' is not name=value")
        try:
            # YAML has nothing for an empty text, which switches some settings off.
            values[name.strip()] = yaml.safe_load(value) if value.strip() else ""
        except _NO_YAML as error:
            raise ConfigurationError(f"'{override}' is not name=value: {error}") from error
    # YAML reads 1e-4, without a point, as a text.
    defaults = {name: default for name, (default, _) in declarations(kind).items()}
    values = {
        name: _number(value) if isinstance(defaults.get(name), float) else value
        for name, value in values.items()
    }
    try:
        return kind.from_mapping(values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}", path=str(path)) from error


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        ConfigurationError: it cannot be read, or is something else.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except _NO_YAML as error:
        raise ConfigurationError(
            f"{path} cannot be read as a text in YAML; correct it or name another file: {error}",
            path=str(path),
        ) from error


def presets() -> list[str]:
    """Return the names in `config/train` that are configurations, not recipes of clips."""
    return [name for name in _shipped() if not name.startswith("clips_")]


def recipes() -> list[str]:
    """Return the names in `config/train` that are recipes of clips."""
    return [name for name in _shipped() if name.startswith("clips_")]


def to_yaml(settings: TrainingParameters) -> str:
    """Return a file that `load_settings` reads back, each value under its description."""
    lines = []
    for name, (_, declared) in declarations(type(settings)).items():
        value = getattr(settings, name)
        text = yaml.safe_dump(value, width=1000).splitlines()[0]
        lines += [f"# {declared.description}", f"{name}: {text}"]
    return "\n".join(lines) + "\n"


def describe(kind: type[TrainingParameters]) -> str:
    """Return every setting with its default, for --help."""
    rows = []
    for name, (default, declared) in declarations(kind).items():
        choices = f" ({', '.join(declared.choices)})" if declared.choices else ""
        rows.append(f"  {name} = {default!r}{choices}\n      {declared.description}")
    return "\n".join(rows)


def changed(settings: Settings, **values: Value) -> Settings:
    """Return a copy with other values, validated.

    Raises:
        ConfigurationError: as `load_settings`.
    """
    names = {item.name for item in dataclasses.fields(settings)}
    known: dict[str, object] = {name: getattr(settings, name) for name in names}
    return type(settings).from_mapping({**known, **values})


def find_yaml(source: str | Path, what: str, known: Sequence[str]) -> Path:
    """Return a file that a user names by its path, or by its name in `config/train`.

    Args:
        source: path or name.
        what: it is, in one word, for the error.
        known: names that may be meant, of `presets` or `recipes`.

    Raises:
        ConfigurationError: there is none.
    """
    path = Path(source)
    if path.is_file():
        return path
    if str(source) in known:
        return _folder() / f"{source}.yaml"
    raise ConfigurationError(
        f"there is no {what} {source}; give a YAML file or one of {', '.join(known)}",
        source=str(source),
    )


def _folder() -> Path:
    return share_folder() / "config" / "train"


def _shipped() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _number(value: object) -> object:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
