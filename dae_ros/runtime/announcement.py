"""What `distill/snapshot` carries: where a version of the weights is, and how to know it."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

from dae_ros.errors import WeightsError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a version is and how to know it: what `distill/snapshot` carries.

    Attributes:
        version: 1 and more; grows with every publication.
        path: of the file, on the machine of the trainer.
        sha256: of the file, 64 hex digits.
        size: of the file in bytes.
        rollback: whether a lower version than the present one is meant.
        confirmed: whether depth has watched and kept these weights before, or began with them, as
            with the original. How far they lie from those in use then says nothing against them:
            many small steps led away, each of which was watched, and one leads back; or there
            again, for a depth node that begins with the original.
    """

    version: int
    path: Path
    sha256: str
    size: int
    rollback: bool = False
    confirmed: bool = False

    def to_json(self) -> str:
        """Return the text of the message."""
        return json.dumps({**dataclasses.asdict(self), "path": str(self.path)})

    @classmethod
    def from_json(cls, text: str) -> Announcement:
        """Read a message; fields that are not known here are left alone.

        Raises:
            WeightsError: it is no announcement.
        """
        try:
            values = json.loads(text)
            found = cls(
                version=whole_number(values["version"]),
                path=Path(values["path"]),
                sha256=values["sha256"],
                size=whole_number(values["size"]),
                rollback=values.get("rollback", False),
                confirmed=values.get("confirmed", False),
            )
            if found.version < 1 or found.size < 1:
                raise ValueError("a number is out of range")
            if not isinstance(found.rollback, bool) or not isinstance(found.confirmed, bool):
                raise ValueError("rollback and confirmed are true or false")
            if not _SHA256.fullmatch(found.sha256):
                raise ValueError("sha256 is not 64 hex digits")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"this is no announcement of weights ({type(error).__name__}: {error}): "
                f"{text[:120]!r}. It is JSON with version, path, sha256 and size",
                text=text[:1000],
            ) from error
        return found


def whole_number(value: object) -> int:
    """Return a value of JSON that is one.

    Raises:
        TypeError: it is none; true and false are none either.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value
