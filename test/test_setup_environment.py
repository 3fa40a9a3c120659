"""Which interpreter `make setup` takes, and that it says why it sets up again."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    """The set-up script as a module."""
    name = "setup_environment"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def found(folder: Path, path: list[Path], **variables: str) -> str:
    environment = {
        "PATH": os.pathsep.join([*map(str, path), "/usr/bin", "/bin"]),
        "HOME": str(folder),
        **variables,
    }
    result = subprocess.run(
        [ROOT / "scripts" / "find_python", ".venv"],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout.strip()


def interpreter(folder: Path) -> Path:
    """Make a folder with a python3 in it."""
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(Path(sys.executable).resolve())
    return folder


def test_an_activated_environment_does_not_change_the_interpreter(tmp_path: Path) -> None:
    """The environment's own bin is passed over, however the PATH or PYTHON names it."""
    own = interpreter(tmp_path / ".venv" / "bin")
    other = interpreter(tmp_path / "a b" / "bin")
    link = tmp_path / "link"
    link.symlink_to(own)
    expected = str(other / "python3")
    assert found(tmp_path, [other]) == expected
    assert found(tmp_path, [own, other]) == expected
    assert found(tmp_path, [link, other], PYTHON="python3") == expected


def test_what_a_wrong_interpreter_says_is_shown(tmp_path: Path) -> None:
    """A shim that only explains itself on stderr is quoted before the refusal."""
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'shim: version 3.12 is not active' >&2\nexit 127\n")
    shim.chmod(0o755)
    result = subprocess.run(
        [ROOT / "scripts" / "find_python"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(shim)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    said, refusal = result.stderr.splitlines()
    assert said == "shim: version 3.12 is not active"
    assert refusal.startswith(f"PYTHON={shim} is not a Python 3.10 to 3.14 interpreter")


def test_setting_up_again_says_why(set_up: ModuleType) -> None:
    """Values are shown as they were and are, files by their name, and equal ones not at all."""
    before = {"the interpreter": "/a/python3", "ROS": "wheels", "setup.py": "1", "interfaces/x": ""}
    now = {"the interpreter": "/b/python3", "ROS": "wheels", "setup.py": "2", "interfaces/y": ""}
    assert set_up.changes(before, now) == [
        "the interpreter was /a/python3 and is /b/python3",
        "setup.py changed",
        "interfaces/x is gone",
        "interfaces/y is new",
    ]
    base = set_up.Base("wheels", None, None)
    assert set_up.changes(set_up.ingredients(base), set_up.ingredients(base)) == []
    (change,) = set_up.changes(
        set_up.ingredients(base), set_up.ingredients(set_up.Base("sourced", None, None))
    )
    assert change == "ROS was wheels and is sourced"


def test_an_environment_is_not_made_with_itself(tmp_path: Path) -> None:
    """The environment's own interpreter is refused before anything is touched."""
    folder = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    before = sorted(folder.rglob("*"))
    result = subprocess.run(
        [folder / "bin" / "python", ROOT / "scripts" / "setup_environment.py", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "cannot be made with itself" in result.stderr
    assert sorted(folder.rglob("*")) == before


def test_one_size_of_pytorch_is_announced(
    set_up: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that fits pip's settings; none where only the index knows."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(set_up.platform, "machine", lambda: "x86_64")
    cuda = set_up.torch_build("global.cert='/etc/cpu'\n:env:.default-timeout='180'\n")
    assert "about 3 GB" in cuda and "0.2 GB" not in cuda
    small = set_up.torch_build(":env:.extra-index-url='https://index.example/whl/cpu'\n")
    assert "about 0.2 GB" in small and "3 GB" not in small
    assert "GB" not in set_up.torch_build("global.index-url='https://mirror.example/simple'\n")
    monkeypatch.setattr(set_up.platform, "machine", lambda: "aarch64")
    assert "GB" not in set_up.torch_build("")


def test_lines_of_pip_are_shown_whole_or_not_at_all(set_up: ModuleType, tmp_path: Path) -> None:
    """Folders of the web are left out; what is still too long for a line is not cut."""
    setup = set_up.Setup(tmp_path, set_up.Base("none", None, None))
    assert [written_last(setup, text) for text in ("", "x" * 91, "x" * 90)] == ["", "", "x" * 90]
    wheel = "torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (190.4 MB)"
    shown = written_last(setup, f"  Downloading https://index.example/a/b/{wheel}")
    assert shown == f"Downloading {wheel}"
    assert written_last(setup, "   ━━━━━━━━ 116.8/116.8 kB 2.0 MB/s eta 0:00:00") == ""


def test_a_missing_compiler_is_told_before_anything_is_made(
    set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody downloads PyTorch to learn that g++ is missing."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    folder = tmp_path / "environment"
    with pytest.raises(set_up.SetupError, match="No compiler no-such-compiler"):
        set_up.Setup(folder, set_up.Base("wheels", None, None)).everything()
    assert not folder.exists()


def written_last(setup: object, line: str) -> str:
    """Return what is shown of a log that ends with this line."""
    setup.log.write_text(f"before\n{line}\n" if line else "", encoding="utf-8")  # type: ignore[attr-defined]
    shown: str = setup.last_line()  # type: ignore[attr-defined]
    return shown
