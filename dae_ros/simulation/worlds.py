"""Worlds and paths by name: what a scene, a time of day, a motion and a seed become."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.indoors import WAREHOUSE_LOOP, corridor, room, warehouse
from dae_ros.simulation.light import Light
from dae_ros.simulation.motion import LoopMotion, Stops
from dae_ros.simulation.park import PARK_LOOP, park
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Builder, Scene
from dae_ros.simulation.street import KERB_M, LANE_M, STREET_LOOP, street
from dae_ros.simulation.trajectory import LoopTrajectory, Sway, Trajectory
from dae_ros.simulation.yard import YARD_LOOP, yard

# Half the side of the square that lamps light, m.
_EXTENT_M = {"room": 4.5, "corridor": 23.0, "warehouse": 21.0, "street": 75.0, "yard": 45.0,
             "park": 55.0}  # fmt: skip
_USUAL_MOTION = {
    "room": "walk", "corridor": "walk", "warehouse": "walk", "street": "car", "yard": "walk",
    "park": "walk",
}  # fmt: skip
_LOOPS = {
    "street": STREET_LOOP, "warehouse": WAREHOUSE_LOOP, "yard": YARD_LOOP, "park": PARK_LOOP,
}  # fmt: skip
# On a loop: m to the left of its line, m above the ground, usual m/s. What is a car in the street
# is a cart in the warehouse, in the yard and in the park.
_LANES = {
    ("street", "car"): (-LANE_M, 1.45, 7.5),
    ("street", "walk"): (-KERB_M - 2.2, 1.75, 1.4),
    ("street", "drone"): (0.0, 5.0, 8.0),
    ("warehouse", "car"): (-0.7, 1.3, 2.0),
    ("warehouse", "walk"): (-0.7, 1.6, 1.3),
    ("warehouse", "drone"): (0.0, 3.4, 2.5),
    ("yard", "car"): (-1.0, 1.5, 4.5),
    ("yard", "walk"): (-1.0, 1.65, 1.4),
    ("yard", "drone"): (0.0, 4.0, 5.0),
    ("park", "car"): (-1.0, 1.5, 5.0),
    ("park", "walk"): (-1.0, 1.65, 1.4),
    ("park", "drone"): (0.0, 3.8, 5.0),
}
# Lamps that flicker at 100 Hz need a picture at least this often.
_FLICKER_STEP_US = 1000
_ANY = math.nan
_HEADWAY_M = 13.0
# The light on a walker's head or on a drone, against a car's headlight.
_TORCH = 0.1


class View(Protocol):
    """What a camera sees of a world, at the time of the last look."""

    def look(self, time_us: int) -> None:
        """Move to a time since the start, in us."""

    def radiance(self) -> NDArray[np.float32]:
        """Return the linear radiance, float32[H, W]; white paper by day has 1."""

    def depth(self) -> NDArray[np.float32]:
        """Return depth along the optical axis, float32[H, W] in m, NaN where there is none."""

    def greatest_flow(self) -> float:
        """Return the fastest image motion in px/s."""

    def pose(self) -> Pose:
        """Return where the optical frame is in the world."""


class World(Protocol):
    """Something to simulate a camera in.

    Attributes:
        camera: the camera.
        longest_step_us: how long the picture may go without being rendered.
        end_us: when the world ends, us since the start; None for never.
    """

    @property
    def camera(self) -> Camera: ...  # noqa: D102
    @property
    def longest_step_us(self) -> int: ...  # noqa: D102
    @property
    def end_us(self) -> int | None: ...  # noqa: D102

    def view(self) -> View:
        """Return a new view, independent of others."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneWorld:
    """A scene, a path and a camera; see `World`."""

    scene: Scene
    trajectory: Trajectory
    camera: Camera

    @property
    def longest_step_us(self) -> int:
        """See `World`."""
        return _FLICKER_STEP_US if self.scene.light.flicker > 0.0 else 5000

    @property
    def end_us(self) -> None:
        """See `World`."""
        return None

    def view(self) -> SceneView:
        """See `World`."""
        return SceneView(self.scene, self.trajectory, self.camera)


class SceneView:
    """A view of a scene along a path; see `View`."""

    def __init__(self, scene: Scene, trajectory: Trajectory, camera: Camera) -> None:
        self._renderer = Renderer(scene, camera)
        self._trajectory = trajectory
        self.radiance = self._renderer.radiance
        self.depth = self._renderer.depth
        self.greatest_flow = self._renderer.greatest_flow
        self.pose = self._renderer.pose

    def look(self, time_us: int) -> None:
        """See `View`."""
        self._renderer.look(self._trajectory.pose(time_us * 1000), time_us * 1e-6)


def create_world(parameters: SimulatorParameters) -> SceneWorld:
    """Build the world that the parameters name."""
    seed = parameters.seed
    trajectory = create_trajectory(parameters)
    motion = _motion(parameters)
    builder = Builder(seed)
    if parameters.scene == "street":
        lead = None
        if isinstance(trajectory, LoopTrajectory) and motion == "car":
            lead = LoopMotion(
                STREET_LOOP,
                -LANE_M,
                trajectory.start_m + _HEADWAY_M,
                trajectory.speed_m_s,
                trajectory.sway.stops,
            )
        street(builder, lead)
    else:
        build = {
            "room": room, "corridor": corridor, "warehouse": warehouse, "yard": yard, "park": park,
        }  # fmt: skip
        build[parameters.scene](builder)
    light = Light.at(
        parameters.light,
        builder.lamps,
        _EXTENT_M[parameters.scene],
        parameters.visibility_m,
        parameters.flicker,
        1.0 if motion == "car" else _TORCH,
    )
    camera = Camera.from_field_of_view(
        parameters.height, parameters.width, parameters.field_of_view_deg, _distortion(parameters)
    )
    return SceneWorld(
        Scene.build(builder.rectangles, seed, light, builder.bodies), trajectory, camera
    )


def create_trajectory(parameters: SimulatorParameters) -> Sway | LoopTrajectory:
    """Return the path that the parameters name."""
    stops = Stops(parameters.stop_every_s, parameters.stop_s)
    return _trajectory(
        parameters.scene, _motion(parameters), parameters.speed, stops, parameters.seed
    )


def _motion(parameters: SimulatorParameters) -> str:
    if parameters.motion == "auto":
        return _USUAL_MOTION[parameters.scene]
    return parameters.motion


def _distortion(parameters: SimulatorParameters) -> tuple[float, ...]:
    if parameters.distortion_k1 == 0.0 and parameters.distortion_k2 == 0.0:
        return ()
    return (parameters.distortion_k1, parameters.distortion_k2, 0.0, 0.0, 0.0)


def _trajectory(
    scene: str, motion: str, speed: float, stops: Stops, seed: int
) -> Sway | LoopTrajectory:
    """Return a path; amplitudes in m and rad, frequencies in Hz, two sinusoids a coordinate."""
    if scene == "room":
        # About the middle, looking around, with a hand's shake; a drone is three times as fast.
        pace = 3.0 if motion == "drone" else 1.0
        return Sway.seeded(
            [0.0, 0.0, 1.35, 0.0, 0.05, 0.0],
            [[1.1, 0.12], [0.8, 0.1], [0.12, 0.02], [1.1, 0.08], [0.08, 0.015], [0.04, 0.01]],
            [[0.06, 0.21], [0.07, 0.25], [0.13, 0.8], [0.035, 0.27], [0.12, 0.7], [0.1, 0.6]],
            seed, stops, speed * pace)  # fmt: skip
    if scene == "corridor":
        # Along it and back, always looking ahead, with steps and sway. It begins two thirds
        # into the swing, moving forward.
        pace = 2.5 if motion == "drone" else 1.0
        return Sway.seeded(
            [0.0, 0.0, 1.45, 0.0, 0.02, 0.0],
            [[13.0, 0.1], [0.25, 0.03], [0.03, 0.015], [0.16, 0.03], [0.03, 0.006], [0.02, 0.006]],
            [[0.012, 0.2], [0.13, 0.8], [0.3, 1.7], [0.09, 0.4], [0.15, 1.6], [0.15, 0.8]],
            seed, stops, speed * pace, (-0.7, _ANY, _ANY, _ANY, _ANY, _ANY))  # fmt: skip
    generator = np.random.default_rng([seed, 4])
    loop = _LOOPS[scene]
    start_m = float(generator.uniform(0.0, loop.round_m))
    lane_m, height_m, cruise = _LANES[scene, motion]
    if motion == "car":
        # Pitch and bounce of the springs, small steering.
        sway = Sway.seeded(
            [0.0, lane_m, height_m, 0.0, 0.03, 0.0],
            [[0.0, 0.0], [0.15, 0.0], [0.02, 0.01], [0.02, 0.006], [0.01, 0.006], [0.01, 0.004]],
            [[0.1, 0.1], [0.11, 0.1], [1.3, 2.6], [0.2, 0.7], [1.2, 2.1], [0.5, 1.7]],
            seed, stops, speed)  # fmt: skip
    elif motion == "walk":
        sway = Sway.seeded(
            [0.0, lane_m, height_m, 0.0, 0.03, 0.0],
            [[0.0, 0.03], [0.2, 0.03], [0.02, 0.025], [0.5, 0.05], [0.06, 0.015], [0.03, 0.01]],
            [[0.1, 1.8], [0.13, 0.9], [0.3, 1.8], [0.07, 0.4], [0.12, 1.8], [0.1, 0.9]],
            seed, stops, speed)  # fmt: skip
    else:
        # A drone turns at up to 130 degrees/s, times `speed`, and leans into it.
        sway = Sway.seeded(
            [0.0, lane_m, height_m, 0.0, 0.1, 0.0],
            [[0.0, 0.1], [0.7, 0.15], [0.9, 0.1], [0.9, 0.12], [0.16, 0.03], [0.25, 0.03]],
            [[0.1, 0.6], [0.16, 0.7], [0.13, 0.6], [0.25, 1.2], [0.2, 1.1], [0.27, 1.0]],
            seed, stops, speed)  # fmt: skip
    return LoopTrajectory(loop, start_m, cruise * speed, sway)
