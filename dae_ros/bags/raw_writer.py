"""Write the events of a simulation as a Prophesee `.raw` file: a text header, then EVT 3.0 words.

Layout: the file format pages of the Metavision SDK documentation. Frames and depth have no place
in such a file. Times are those of the camera, which shows 1 s at the beginning.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from dae_ros.bags.replacing import give_name, require_free
from dae_ros.errors import RecordingError
from dae_ros.events.packet import Events
from dae_ros.simulation.encoders import create_encoder
from dae_ros.simulation.simulation import Item, Simulation


class RawWriter:
    """One `.raw` file of one run; see `SimulationWriter`.

    Args:
        path: the file.
        simulation: whose events will be written; with the camera's own times (`encoding: evt3`).
        replace: whether a file of that name may exist.

    Raises:
        RecordingError: the file exists, or cannot be written.
    """

    def __init__(self, path: Path, simulation: Simulation, *, replace: bool = False) -> None:
        self.path = path
        (self._partial,) = require_free((path,), replace)
        height, width = simulation.camera.height, simulation.camera.width
        try:
            self._file = self._partial.open("xb")
        except OSError as error:
            raise RecordingError(
                f"{path} cannot be written: {error.strerror}", path=str(path)
            ) from error
        self._whole = True
        self._encoder = create_encoder("evt3", width, height)
        self._file.write(
            b"% camera_integrator_name dae_ros simulator\n"
            b"% evt 3.0\n"
            + f"% format EVT3;height={height};width={width}\n% geometry {width}x{height}\n".encode()
            + b"% end\n"
        )

    def write(self, item: Item) -> None:
        """See `SimulationWriter`; only events are kept."""
        if isinstance(item, Events):
            payload, _ = self._encoder.encode(item)
            self._whole = False
            self._file.write(payload)
            self._whole = True

    def close(self) -> None:
        """See `SimulationWriter`."""
        self._file.close()
        # Where the disk was full, the last packet is cut.
        if self._whole:
            give_name(self._partial, self.path)

    def abandon(self) -> None:
        """See `SimulationWriter`."""
        # What is told is the error that came first.
        with contextlib.suppress(OSError):
            self._file.close()
