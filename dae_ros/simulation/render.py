"""Radiance and exact depth of a scene from any pose at any time, on one core."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation import raster, shading
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.lens import Lens
from dae_ros.simulation.scene import Scene

_FLOW_STRIDE_PX = 4


class Renderer:
    """Renders one scene for one camera; `look` first, then ask for what that pose shows.

    Args:
        scene: the world.
        camera: the camera; with distortion the picture of a larger pinhole camera is resampled.
    """

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self._scene = scene
        self._lens = Lens(camera) if camera.distortion else None
        self._camera = camera if self._lens is None else self._lens.pinhole
        count, bodies = len(scene.corner), len(scene.bodies) + 1
        size = (self._camera.height, self._camera.width)
        self._rotations = np.tile(np.eye(3), (bodies, 1, 1))
        self._positions = np.zeros((bodies, 3))
        self._placed = np.zeros((3, count, 3))
        self._normals = np.zeros((count, 3))
        self._coefficients = np.zeros((count, 5, 3))
        self._first_row = np.zeros(count, np.int64)
        self._end_row = np.zeros(count, np.int64)
        self._inverse_depth = np.zeros(size)
        self._faces = np.full(size, -1, np.int16)
        self._pyramids = scene.pyramids.ravel()
        self._bases = scene.texture * scene.pyramids.shape[1]
        light = scene.light
        self._lighting = np.array(
            [light.headlight, *light.corner, light.cells_per_m, light.fog_per_m, light.fog]
        )
        self._reflects = np.where(scene.glow, 0.0, scene.albedo)
        self._pose: Pose | None = None
        self._time_s = math.nan

    def look(self, pose: Pose, time_s: float = 0.0) -> None:
        """Find what every pixel sees from a pose of the optical frame at a time in s."""
        scene, camera = self._scene, self._camera
        self._pose = pose
        if time_s != self._time_s:
            self._time_s = time_s
            self._place(time_s)
        corner, right, down = self._placed
        raster.project(
            corner, right, down, scene.texels, scene.offset, pose.rotation, pose.position,
            camera.fx, camera.fy, camera.cx, camera.cy, camera.height, self._coefficients,
            self._first_row, self._end_row,
        )  # fmt: skip
        raster.cover(
            self._coefficients, self._first_row, self._end_row, self._inverse_depth, self._faces
        )

    def _place(self, time_s: float) -> None:
        """Put the bodies where they are, and light everything."""
        scene = self._scene
        self._body_poses = [motion.pose(time_s) for motion in scene.bodies]
        for index, pose in enumerate(self._body_poses, start=1):
            self._rotations[index], self._positions[index] = pose.rotation, pose.position
        raster.place(
            scene.corner,
            scene.right,
            scene.down,
            scene.body,
            self._rotations,
            self._positions,
            self._placed,
            self._normals,
        )
        light = scene.light
        towards = np.maximum(self._normals @ light.direction, 0.0)
        lit = light.level * ((1.0 - light.direct) + light.direct * towards)
        wave = 1.0 + light.flicker * math.sin(2.0 * math.pi * light.flicker_hz * time_s)
        glow = np.where(scene.sky, light.sky, light.glow * wave)
        self._gains = scene.albedo * np.where(scene.glow, glow, lit)

    def radiance(self) -> NDArray[np.float32]:
        """Return the linear radiance of the last look, float32[H, W]; white paper by day has 1."""
        pose = self.pose()
        camera, scene = self._camera, self._scene
        plan = np.empty((2, 4))
        plan[:, 0] = pose.rotation[:2, 0] / camera.fx
        plan[:, 1] = pose.rotation[:2, 1] / camera.fy
        plan[:, 2] = pose.rotation[:2, 2] - plan[:, 0] * camera.cx - plan[:, 1] * camera.cy
        plan[:, 3] = pose.position[:2]
        result = np.empty((camera.height, camera.width), np.float32)
        shading.shade(
            self._coefficients, self._inverse_depth, self._faces, self._pyramids, self._bases,
            self._gains, self._reflects, scene.light.lamps, self._lighting, plan, result,
        )  # fmt: skip
        return result if self._lens is None else self._lens.radiance(result)

    def depth(self) -> NDArray[np.float32]:
        """Return the depth of the last look along the optical axis, float32[H, W] in m.

        NaN where a ray meets the sky, or nothing.
        """
        self.pose()
        inverse_depth, faces = self._inverse_depth, self._faces
        if self._lens is not None:
            inverse_depth = np.empty(self._lens.column.shape)
            faces = np.empty(self._lens.column.shape, np.int16)
            raster.cover_between(
                self._coefficients,
                self._faces,
                self._inverse_depth,
                self._lens.column,
                self._lens.row,
                inverse_depth,
                faces,
            )
        with np.errstate(divide="ignore"):
            depth = 1.0 / inverse_depth
        seen = (faces >= 0) & ~self._scene.sky[faces]
        return np.where(seen, depth, np.nan).astype(np.float32)

    @property
    def faces(self) -> NDArray[np.int16]:
        """Which rectangle each pixel of the last look sees, int16[H, W]; -1 for none.

        With a lens these are the pixels of its pinhole camera.
        """
        return self._faces

    def greatest_flow(self) -> float:
        """Return the fastest image motion of the last look in px/s, over every 4th pixel.

        With a lens no less than that: the fastest of its pinhole camera where it stretches most.
        """
        pose, camera = self.pose(), self._camera
        count = len(self._positions)
        linear, angular = np.tile(pose.linear, (count, 1)), np.tile(pose.angular, (count, 1))
        for index, body in enumerate(self._body_poses, start=1):
            # The camera's twist against the body: less what the body does at the camera's place.
            lever = body.rotation.T @ (pose.position - body.position)
            (x, y, z), (u, v, w) = body.angular, lever
            here = body.linear + np.array([y * w - z * v, z * u - x * w, x * v - y * u])
            optical_from_body = pose.rotation.T @ body.rotation
            linear[index] -= optical_from_body @ here
            angular[index] -= optical_from_body @ body.angular
        flow = raster.greatest_flow(
            self._inverse_depth, self._faces, self._scene.body, camera.fx, camera.fy, camera.cx,
            camera.cy, linear, angular, _FLOW_STRIDE_PX,
        )  # fmt: skip
        return flow if self._lens is None else flow * self._lens.magnification

    def pose(self) -> Pose:
        """Return where the last look was from."""
        if self._pose is None:
            raise RuntimeError("look() from somewhere before asking for what is seen")
        return self._pose
