"""Cores are counted as the kernel gives them: by affinity, and by the quota of a container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dae_ros.parameters import DepthParameters
from dae_ros.runtime import cores
from dae_ros.runtime.benchmark.machine import machine
from dae_ros.runtime.cores import usable_cores
from dae_ros.runtime.network_settings import network_threads

# Writes what the kernel says of a process: its cgroups, and where they are mounted.
Said = Callable[[str, str], Path]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Eight cores by affinity, on any machine; `{root}` is the folder of the mounts."""

    def write(groups: str, mounts: str) -> Path:
        process = tmp_path / "process"
        process.mkdir()
        (process / "cgroup").write_text(groups)
        (process / "mountinfo").write_text(mounts.format(root=tmp_path))
        monkeypatch.setattr(cores, "_PROCESS", process)
        return tmp_path

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return write


def give(folder: Path, **files: str) -> None:
    """Write the files of a cgroup; a dot in a name is two underscores here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


UNIFIED = "30 23 0:26 / {root} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
PART = "33 31 0:30 {} {{root}} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1),
     ("5000000 100000", 8)],
)  # fmt: skip
def test_the_quota_of_cgroup_v2_counts(said: Said, limit: str, count: int) -> None:
    """Part of a core is one more; the network leaves one to others where there are two."""
    root = said("0::/robot.slice/depth\n", UNIFIED)
    give(root / "robot.slice" / "depth", cpu__max=f"{limit}\n")
    assert usable_cores() == count
    assert machine()["cpu"]["usable_cores"] == count
    assert network_threads(DepthParameters()) == max(1, count - 1)
    assert network_threads(DepthParameters(threads=5)) == 5


def test_the_narrowest_of_its_groups_counts(said: Said) -> None:
    """Up to the root, which has no such file where it is the machine's own."""
    root = said("0::/a/b/c\n", UNIFIED)
    give(root / "a", cpu__max="300000 100000\n")
    give(root / "a" / "b", cpu__max="max 100000\n")
    give(root / "a" / "b" / "c", cpu__max="600000 100000\n")
    give(root / "other", cpu__max="100000 100000\n")
    assert usable_cores() == 3


def test_the_root_of_a_containers_own_view_counts(said: Said) -> None:
    """In a cgroup namespace the container's group is the root, and has the limit."""
    root = said("0::/\n", UNIFIED)
    give(root, cpu__max="400000 100000\n")
    assert usable_cores() == 4


@pytest.mark.parametrize(
    ("group", "mounted", "folder"),
    [("/depth", "/", "depth"), ("/docker/1f", "/docker/1f", "."), ("/docker/1f", "/docker", "1f")],
)  # fmt: skip
def test_the_quota_of_cgroup_v1_counts(said: Said, group: str, mounted: str, folder: str) -> None:
    """A container sees the host's paths, with its own group mounted; the rest it cannot see."""
    groups = f"9:cpuset:/elsewhere\n4:cpu,cpuacct:{group}\n0::/\n"
    root = said(groups, PART.format(mounted))
    give(root / folder, cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    assert usable_cores() == 3
    give(root / folder, cpu__cfs_quota_us="-1\n")
    assert usable_cores() == 8


@pytest.mark.parametrize("group", ["/docker/1f", "/../1f"])
def test_a_tree_without_the_process_says_nothing(said: Said, group: str) -> None:
    """Another part of the host's is mounted, or the view of a cgroup namespace ends below."""
    root = said(f"0::{group}\n", "30 23 0:26 /system {root} rw - cgroup2 cgroup2 rw\n")
    give(root, cpu__max="100000 100000\n")
    assert usable_cores() == 8


def test_without_cgroups_affinity_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    """On other systems, and where nothing is mounted."""
    said("0::/a\n4:cpu:/a\n", "22 1 8:1 / / rw - ext4 /dev/sda rw\n")
    assert usable_cores() == 8
    monkeypatch.setattr(cores, "_PROCESS", tmp_path / "nowhere")
    assert usable_cores() == 8
