"""What the built package holds, and what the repository says about itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.installation import share_folder

ROOT = Path(__file__).resolve().parent.parent
EXECUTABLES = (
    "depth_distillation_node",
    "depth_node",
    "distillation_node",
    "gt_node",
    "recorder_node",
    "replay_node",
    "simulator_node",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for folder in ("config", "dae_ros", "launch", "models", "resource", "scripts"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.nb?")
        )
    for name in ("LICENSE", "package.xml", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", "dist", "."]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = (source / "dist").glob("*.whl")
    return path


# Of all that is imported, what comes with ROS.
ROS_PACKAGE = re.compile(
    r"rclpy|launch(_ros)?|ament_\w+|rosbag2_py|tf2_\w+|\w+_(msgs|srvs|interfaces)"
)


def version() -> str:
    text = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert text is not None
    return text


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    """Every Python file of dae_ros, sub-packages included, is in the wheel."""
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dae_ros").rglob("*.py")} | {
        "dae_ros/py.typed"
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("dae_ros/")}
    assert held == expected


def test_the_wheel_holds_what_ros_looks_for(wheel: Path) -> None:
    """Marker, manifest, launch files, configuration and models lie where ROS tools look."""
    data = f"dae_ros-{version()}.data/data/"
    held = {
        name.removeprefix(data)
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith(data)
    }
    share = {
        f"share/dae_ros/{path.relative_to(ROOT).as_posix()}"
        for pattern in (
            "launch/*.py",
            "config/*.*",
            "config/train/*.yaml",
            "models/*.yaml",
            "models/*.safetensors",
            "models/*.md",
        )
        for path in ROOT.glob(pattern)
    }
    assert held == share | {
        "share/ament_index/resource_index/packages/dae_ros",
        "share/dae_ros/package.xml",
        *(f"lib/dae_ros/{name}" for name in EXECUTABLES),
    }
    assert {"share/dae_ros/launch/depth.launch.py", "share/dae_ros/config/depth.yaml"} <= held


def test_installed_executables_may_be_executed(wheel: Path, tmp_path: Path) -> None:
    """The executables keep their mode in the wheel and in an installation made from it."""
    prefix = tmp_path / "prefix"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--ignore-installed", "--prefix", str(prefix), str(wheel)]
    subprocess.run(command, cwd=tmp_path, check=True)
    for name in EXECUTABLES:
        path = prefix / "lib" / "dae_ros" / name
        assert path.stat().st_mode & stat.S_IXUSR, f"{path} is not executable"
        assert f"from dae_ros.nodes.{name} import main" in path.read_text(encoding="utf-8")
    (code,) = prefix.glob("lib/python*/site-packages")
    # The default weights are found where they were installed, and are the shipped bytes.
    program = (
        "from dae_ros.installation import share_folder; print(share_folder())\n"
        "from dae_ros.model.manifest import file_of, find_entry, read_manifest as read\n"
        "from dae_ros.model.fetch import digest_of\n"
        "from dae_ros.parameters import DepthParameters\n"
        "entry = find_entry(read(), DepthParameters().weights)\n"
        "path = file_of(read(), entry); print(path); print(digest_of(path) == entry.sha256)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(code)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    share, weights, same = found.stdout.split()
    assert Path(share) == prefix / "share" / "dae_ros"
    assert Path(weights) == prefix / "share" / "dae_ros" / "models" / "micro.safetensors"
    assert same == "True"


def test_executables_take_the_interpreter_of_their_installation(tmp_path: Path) -> None:
    """`bin/python3` beside `lib`, from any folder and past the PATH; without one, the PATH's."""
    elsewhere = tmp_path / "else where"
    prefix = tmp_path / "an environment"
    for folder in (prefix / "lib" / "dae_ros", prefix / "bin", elsewhere):
        folder.mkdir(parents=True)
    for folder in (prefix / "bin", elsewhere):
        python = folder / "python3"
        python.write_text(f'#!/bin/sh\necho "{folder}" "$@"\n')
        python.chmod(0o755)
    for name in EXECUTABLES:
        path = prefix / "lib" / "dae_ros" / name
        shutil.copy2(ROOT / "scripts" / "executables" / name, path)
        for folder in (prefix / "bin", elsewhere):
            (prefix / "bin" / "python3").chmod(0o755 if folder != elsewhere else 0o644)
            started = subprocess.run(
                [path, "--help", "a b"],
                env={"PATH": f"{elsewhere}:/usr/bin:/bin"},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert started.stdout == f"{folder} {path} --help a b\n"


def test_the_source_tree_is_its_own_share_folder() -> None:
    """In a source tree or an editable installation models and configuration are read in place."""
    assert share_folder() == ROOT


def test_copied_modules_are_told_that_their_files_are_missing(tmp_path: Path) -> None:
    """Modules copied without their share folder name the remedy."""
    shutil.copytree(ROOT / "dae_ros", tmp_path / "dae_ros")
    code = "from dae_ros.installation import share_folder as f; f()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 1
    assert f"{ConfigurationError.__name__}: the files that belong to dae_ros" in result.stderr


def test_one_version_everywhere(wheel: Path) -> None:
    """package.xml, the changelog's first release and the wheel name the same version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert released is not None
    assert released.group(1) == version() == wheel.name.split("-")[1]


def test_one_pinned_pytorch() -> None:
    """The extras and the set-up script pin the same PyTorch."""
    pins = {
        re.search(r'^TORCH = "(torch==[\d.]+)"$', (ROOT / name).read_text("utf-8"), re.MULTILINE)
        for name in ("setup.py", "scripts/setup_environment.py")
    }
    assert len({pin.group(1) if pin else None for pin in pins}) == 1
    assert None not in pins


def test_the_licence_is_the_apache_licence() -> None:
    """LICENSE is the Apache License 2.0, as package.xml says."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert ElementTree.parse(ROOT / "package.xml").findtext("license") == "Apache-2.0"


def test_nothing_points_to_one_machine() -> None:
    """No tracked text names a home folder, a temporary folder or a package index."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of tracked files")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pattern = re.compile(
        r"(?<![\w.}])/(?:home|root|Users|work)/\w"
        r"|https?://[\w.]*(?:pypi|pythonhosted|download\.pytorch)[\w.]*"
    )
    problems = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not path.is_file() or path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        problems += [f"{name}: {match.group()}" for match in pattern.finditer(text)]
    assert problems == []


def test_package_xml_names_every_ros_package_that_is_imported() -> None:
    """rosdep and colcon know what the nodes and the launch files import."""
    manifest = ElementTree.parse(ROOT / "package.xml")
    named = {element.text for element in manifest.findall("exec_depend")}
    imported = set()
    for folder in ("dae_ros", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.split(".")[0])
    ros = {name for name in imported if ROS_PACKAGE.fullmatch(name)}
    assert {"rclpy", "sensor_msgs"} <= ros
    assert ros <= named
