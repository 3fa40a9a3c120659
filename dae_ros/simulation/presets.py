"""Named settings of the simulator: worlds and lights to look at, and shifts of domain to learn.

The four domains differ as robots and days do; a benchmark trains on one, adapts to another, and
tests on other seeds of both. Seeds of training are below 1000, of tests from 1000 on.
"""

from __future__ import annotations

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import SimulatorParameters, Value

TEST_SEEDS_FROM = 1000

_STOPS: dict[str, Value] = {"stop_every_s": 12.0, "stop_s": 2.0}

PRESETS: dict[str, dict[str, Value]] = {
    "room": {"scene": "room"},
    "room_night": {"scene": "room", "light": "night", "noise_hz": 1.0, "exposure_s": 0.03},
    "corridor": {"scene": "corridor"},
    "street_day": {"scene": "street"},
    "street_dusk": {"scene": "street", "light": "dusk", "exposure_s": 0.02},
    "street_night": {"scene": "street", "light": "night", "noise_hz": 1.0, "exposure_s": 0.03},
    "street_fog": {"scene": "street", "visibility_m": 60.0},
    "street_walk": {"scene": "street", "motion": "walk"},
    "warehouse": {"scene": "warehouse"},
    "warehouse_drone": {"scene": "warehouse", "motion": "drone"},
    "park": {"scene": "park"},
    # Of this kind there is nothing in any recipe of training.
    "yard": {"scene": "yard"},
    # A, where weights come from: a car by day, a quiet sensor.
    "domain_a": {"scene": "street", "noise_hz": 0.1, "contrast_threshold": 0.2, **_STOPS},
    # B: a cart in a warehouse at night, a slow and noisy sensor, lamps that flicker.
    "domain_b": {
        "scene": "warehouse", "light": "night", "motion": "car", "contrast_threshold": 0.3,
        "threshold_spread": 0.15, "bandwidth_hz": 600.0, "noise_hz": 3.0, "leak_hz": 0.2,
        "hot_pixels": 0.001, "flicker": 0.5, "exposure_s": 0.03, **_STOPS,
    },
    # C: the street of A through another lens.
    "domain_c": {
        "scene": "street", "noise_hz": 0.1, "contrast_threshold": 0.2,
        "field_of_view_deg": 60.0, "distortion_k1": -0.25, "distortion_k2": 0.1, **_STOPS,
    },
    # D: a drone through a warehouse, turning fast.
    "domain_d": {
        "scene": "warehouse", "motion": "drone", "speed": 2.0, "contrast_threshold": 0.25,
        "refractory_s": 0.0005,
    },
}  # fmt: skip


def preset(name: str, **changes: Value) -> SimulatorParameters:
    """Return the parameters of a preset, with changes.

    Args:
        name: a key of `PRESETS`.
        changes: parameters to set otherwise, such as the seed, the size or the duration.

    Raises:
        ConfigurationError: no such preset, or a value that is not allowed.
    """
    if name not in PRESETS:
        raise ConfigurationError(
            f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.", preset=name
        )
    return SimulatorParameters.from_mapping({**PRESETS[name], **changes})
