"""The light of a world: sky or room light, lamps, headlights, fog.

Radiance is relative to white paper in full day light, which has 1. Surfaces scatter evenly. What
a surface gets is a level from everywhere (of which a part comes from one direction), the light of
lamps, which depends on where on the floor plan it is, and a headlight at the camera, which falls
with the square of the distance. Between surface and camera fog takes exp(-d / length) away and
adds its own light (Koschmieder 1924).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_DIRECTION = np.array([0.35, 0.5, 0.79]) / np.linalg.norm([0.35, 0.5, 0.79])
# The contrast at the distance that is called visibility is 2 %.
_FOG_DEPTHS_PER_VISIBILITY = 3.912
_MAP_SIZE = 128
_NOTHING = np.zeros((1, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Lamp:
    """A lamp above the point (x, y) of the floor plan, m; its pool of light has this radius, m."""

    x: float
    y: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Hour:
    """A time of day.

    Attributes:
        level: radiance of white paper under the light from everywhere.
        direct: share of the level that comes from one direction.
        sky, glow: radiance of the sky and of what glows by itself (lamps, windows).
        lamp: radiance of white paper under a lamp.
        headlight: radiance times m^2 of white paper in the headlight.
    """

    level: float
    direct: float
    sky: float
    glow: float
    lamp: float
    headlight: float


HOURS = {
    "day": Hour(level=1.0, direct=0.45, sky=1.1, glow=1.0, lamp=0.0, headlight=0.0),
    "dusk": Hour(level=0.16, direct=0.2, sky=0.25, glow=1.2, lamp=0.14, headlight=0.5),
    "night": Hour(level=0.02, direct=0.1, sky=0.008, glow=1.5, lamp=0.22, headlight=2.5),
}


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """All light of a world.

    Attributes:
        level, direct, sky, glow, headlight: see `Hour`.
        direction: float64[3], unit vector to where the direct light comes from.
        lamps: float32[N, N], radiance of white paper under the lamps on a grid of the floor plan,
            rows along y; one zero for none.
        corner: (x, y) of the first grid point, m.
        cells_per_m: grid points per m; 0 without lamps.
        fog_per_m: extinction, 1/m.
        fog: radiance of fog of infinite depth.
        flicker: depth of the brightness of what glows, 0..1, at `flicker_hz`.
    """

    level: float = 1.0
    direct: float = 0.45
    sky: float = 1.0
    glow: float = 1.0
    headlight: float = 0.0
    direction: NDArray[np.float64] = field(default_factory=_DIRECTION.copy)
    lamps: NDArray[np.float32] = field(default_factory=_NOTHING.copy)
    corner: tuple[float, float] = (0.0, 0.0)
    cells_per_m: float = 0.0
    fog_per_m: float = 0.0
    fog: float = 0.0
    flicker: float = 0.0
    flicker_hz: float = 100.0

    @staticmethod
    def at(
        hour: str,
        lamps: Sequence[Lamp],
        extent_m: float,
        visibility_m: float = 0.0,
        flicker: float = 0.0,
        torch: float = 1.0,
    ) -> Light:
        """Return the light of a world at a time of day.

        Args:
            hour: a key of `HOURS`.
            lamps: of the world; they are off by day.
            extent_m: half the side of the square about the origin that lamps light.
            visibility_m: distance at which fog leaves 2 % of the contrast; 0 for clear air.
            flicker: see `Light`.
            torch: what the camera carries, as a factor on the headlight of a car.
        """
        is_on = HOURS[hour]
        fog_per_m = _FOG_DEPTHS_PER_VISIBILITY / visibility_m if visibility_m > 0.0 else 0.0
        pools, cells_per_m = _NOTHING.copy(), 0.0
        if is_on.lamp > 0.0 and lamps:
            grid = np.linspace(-extent_m, extent_m, _MAP_SIZE)
            cells_per_m = (_MAP_SIZE - 1) / (2.0 * extent_m)
            total = np.zeros((_MAP_SIZE, _MAP_SIZE))
            for lamp in lamps:
                distance2 = (grid[None, :] - lamp.x) ** 2 + (grid[:, None] - lamp.y) ** 2
                total += is_on.lamp / (1.0 + distance2 / lamp.radius_m**2) ** 2
            pools = total.astype(np.float32)
        return Light(
            is_on.level, is_on.direct, is_on.sky, is_on.glow, torch * is_on.headlight,
            lamps=pools, corner=(-extent_m, -extent_m), cells_per_m=cells_per_m,
            fog_per_m=fog_per_m, fog=0.6 * is_on.level + 0.25 * is_on.lamp, flicker=flicker,
        )  # fmt: skip
