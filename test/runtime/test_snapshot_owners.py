"""Who owns a folder of versions: one trainer, until it ends, however it ends."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dae_ros.errors import DistillationError
from dae_ros.runtime.snapshots import (
    LATEST,
    SnapshotStore,
    read_latest,
)

ROOT = Path(__file__).resolve().parents[2]


# A trainer that publishes without a pause and says each version that is out.
TRAINER = """
import sys
from pathlib import Path
from dae_ros.runtime.snapshots import SnapshotStore
store = SnapshotStore(Path(sys.argv[1]), keep=3)
while True:
    version = 1 + max([0, *(s.version for s in store.snapshots())])
    data = bytes([version % 256]) * 300_000
    print(store.publish(lambda p: p.write_bytes(data), step=version, score=1.0).version, flush=True)
"""


def test_two_trainers_cannot_share_a_folder(tmp_path: Path) -> None:
    """The second one is told who holds the folder; it is free again after close."""
    with SnapshotStore(tmp_path), pytest.raises(DistillationError, match=r"pid \d+ on") as caught:
        SnapshotStore(tmp_path)
    assert caught.value.data["path"] == str(tmp_path)
    SnapshotStore(tmp_path).close()


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """A file in the place of the folder is an error with a way out."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DistillationError, match="choose another folder"):
        SnapshotStore(tmp_path / "file")


def test_kills_at_any_instant_leave_whole_versions_and_no_lock(tmp_path: Path) -> None:
    """After each of six kills what is announced is whole, not older than what was out, and free."""
    random.seed(4)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(random.uniform(0.0, 0.1))
            process.kill()
            said = (process.stdout.read().split() or [said])[-1]
        latest = read_latest(tmp_path)
        assert latest is not None
        assert latest.version >= int(said)
        facts = json.loads((tmp_path / LATEST).read_text(encoding="utf-8"))
        assert facts["version"] == latest.version
        assert hashlib.sha256(latest.path.read_bytes()).hexdigest() == latest.sha256
        with SnapshotStore(tmp_path, keep=3) as store:
            assert not list(tmp_path.glob("*.tmp"))
            files = {path.stem for path in tmp_path.glob("*.safetensors")}
            assert files == {f"w_{s.version:06d}" for s in store.snapshots()}
    assert latest.version >= 6
