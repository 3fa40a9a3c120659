"""Make `.venv` with everything that `make demo`, `make test` and `make check` need.

Standard library only; run it with Python 3.10 to 3.14 (`make setup` picks one). It says what it
does, is quick when nothing changed, and continues where an interrupted run ended. pip's own
settings (`PIP_*`, pip.conf) are honoured.

Long because it runs alone, before anything is installed or importable, and so is one file.

Three situations:

* A ROS installation is sourced (`import rclpy` works): its packages are used, nothing of ROS
  is installed.
* Linux on x86_64 without ROS: rclpy and the message packages of ROS 2 Kilted come from PyPI,
  and the two event message packages are compiled from `interfaces/`.
* Anything else (aarch64, macOS): there are no ROS wheels, so that the environment has no ROS;
  recordings, tests of the core and the demo run in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
TORCH_MINIMUM = (2, 3)  # the first that works with NumPy 2
# ROS 2 Kilted. The messages compiled from interfaces/ are bound to exactly these releases.
ROS_WHEELS = (
    "ros-rclpy[fastrtps]==9.1.2",
    "ros-builtin-interfaces==2.3.0",
    "ros-diagnostic-msgs==5.5.1",
    "ros-geometry-msgs==5.5.1",
    "ros-lifecycle-msgs==2.3.0",
    "ros-rosgraph-msgs==2.3.0",
    "ros-sensor-msgs==5.5.1",
    "ros-std-msgs==5.5.1",
    "ros-std-srvs==5.5.1",
)
EVENT_PACKET_HASH = "RIHS01_d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa"
HEARTBEAT_S = 20.0
WIDTH = 90


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Base:
    """What the interpreter outside of the virtual environment offers.

    Attributes:
        ros: `sourced`, `wheels` or `none`.
        torch_version: of the PyTorch that this interpreter imports, None without one.
        torch_folder: the folder on `sys.path` that holds it.
    """

    ros: str
    torch_version: str | None
    torch_folder: str | None


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def clean_environment() -> dict[str, str]:
    """Return the environment for programs of the new virtual environment.

    Another environment with ROS wheels leaves its libraries in LD_LIBRARY_PATH together with
    a mark; with them rclpy of this one would load the libraries of the other.
    """
    environment = dict(os.environ)
    if environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):
        environment.pop("LD_LIBRARY_PATH", None)
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return environment


def ask_python(python: str, code: str) -> str | None:
    """Return what `code` prints in that interpreter, None where it fails."""
    result = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env=clean_environment(), check=False
    )
    return result.stdout.strip() if result.returncode == 0 else None


def look_around() -> Base:
    """Find out which ROS and which PyTorch the interpreter already has, without importing."""
    sourced = bool(os.environ.get("ROS_DISTRO") or os.environ.get("AMENT_PREFIX_PATH"))
    if sourced and ask_python(sys.executable, "import rclpy") is not None:
        ros = "sourced"
    elif sys.platform == "linux" and platform.machine() == "x86_64":
        ros = "wheels"
    else:
        ros = "none"
    found = ask_python(
        sys.executable,
        "import importlib.util, importlib.metadata, pathlib\n"
        "spec = importlib.util.find_spec('torch')\n"
        "print(importlib.metadata.version('torch'), pathlib.Path(spec.origin).parents[1])",
    )
    version, _, folder = found.partition(" ") if found else ("", "", "")
    return Base(ros, version or None, folder or None)


def inputs() -> Iterator[Path]:
    """Yield the files that decide what the environment holds."""
    yield ROOT / "setup.py"
    yield ROOT / "package.xml"  # the version
    yield Path(__file__).resolve()
    for path in sorted((ROOT / "interfaces").rglob("*")):
        relative = path.relative_to(ROOT)
        generated = any(part == "build" or part.endswith(".egg-info") for part in relative.parts)
        if path.is_file() and not generated:
            yield path


def ingredients(base: Base) -> dict[str, str | None]:
    """Return everything that the environment depends on: what it is -> its state."""
    parts: dict[str, str | None] = {
        "the interpreter": str(Path(sys.executable).resolve()),
        "its version": sys.version,
        "ROS": base.ros,
        "PyTorch outside of the environment": base.torch_version,
        "the folder of that PyTorch": base.torch_folder,
        "the folder of the repository": str(ROOT),
    }
    for path in inputs():
        name = path.relative_to(ROOT).as_posix()
        parts[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return parts


def changes(before: dict[str, str | None], now: dict[str, str | None]) -> list[str]:
    """Return in words what differs between two states of the ingredients."""
    words = []
    for name in (*before, *(name for name in now if name not in before)):
        old, new = before.get(name), now.get(name)
        if old == new and name in before and name in now:
            continue
        if name not in before or name not in now:
            words.append(f"{name} is {'new' if name in now else 'gone'}")
        elif "/" in name or name.endswith((".py", ".xml")):
            words.append(f"{name} changed")  # a digest says nothing to anybody
        else:
            words.append(f"{name} was {old or 'none'} and is {new or 'none'}")
    return words


def torch_build(settings: str) -> str:
    """Say which build of PyTorch pip is about to download, and how much that is.

    Args:
        settings: what `pip config list` prints, environment variables included.
    """
    sources = [
        line
        for line in settings.splitlines()
        if re.search(r"\.(index-url|extra-index-url|find-links|no-index)=", line)
    ]
    if any(re.search(r"/cpu\b", line) for line in sources):
        return "the CPU-only build of pip's settings, about 0.2 GB to download"
    if sources:
        return "the build that the index of pip's settings has (docs/install.md, 'PyTorch')"
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return (
            "the build with CUDA, about 3 GB to download and 6 GB on disk; how to choose the much "
            "smaller one without: docs/install.md, 'PyTorch'"
        )
    return "the build for this machine (docs/install.md, 'PyTorch')"


class Setup:
    """One run of the set-up: the steps, their times and the log."""

    def __init__(self, folder: Path, base: Base) -> None:
        self.folder = folder
        self.base = base
        self.python = folder / "bin" / "python"
        self.log = folder / "setup.log"
        self.start_s = time.monotonic()

    def elapsed(self) -> str:
        """Return the time since the start, as `m:ss`."""
        seconds = int(time.monotonic() - self.start_s)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def step(self, text: str) -> None:
        """Announce a step."""
        say(f"[{self.elapsed()}] {text}")

    def run(self, *command: str) -> None:
        """Run a command into the log; now and then repeat its last line as a sign of life."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(), cwd=ROOT
            )
            told = ""
            try:
                while True:
                    try:
                        code = process.wait(HEARTBEAT_S)
                        break
                    except subprocess.TimeoutExpired:
                        line = self.last_line()
                        self.step(f"  ... {line if line not in ('', told) else 'goes on'}")
                        told = line
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code != 0:
            tail = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-30:])
            raise SetupError(
                f"{tail}\n\nThis command failed (exit status {code}): {' '.join(command)}\n"
                f"The lines above are the end of {self.log}; when the cause is removed, run the "
                "same make target again, it continues from here."
            )

    def last_line(self) -> str:
        """Return the last line of the log without folders of the web; '' if it is too long."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        line = re.sub(r"https?://\S*/", "", lines[-1]).strip() if lines else ""
        # pip's bars are for terminals.
        return line if len(line) <= WIDTH and "━" not in line else ""

    def pip(self, *arguments: str) -> None:
        """Install with the environment's own pip."""
        self.run(str(self.python), "-m", "pip", "install", *arguments)

    def make_environment(self) -> None:
        """Create the virtual environment, or keep the one of an earlier or interrupted run."""
        marker = self.folder / "pyvenv.cfg"
        # Written last: an interrupted creation leaves a pip that imports and does not work.
        complete = self.folder / "dae_ros_complete"
        kind = f"include-system-site-packages = {str(self.base.ros == 'sourced').lower()}"
        version = ".".join(map(str, sys.version_info[:3]))
        settings = marker.read_text(encoding="utf-8") if marker.is_file() else ""
        usable = (
            kind in settings
            and version in settings
            and complete.is_file()
            and ask_python(str(self.python), "import pip") is not None
        )
        if usable:
            return
        self.step(f"Making {self.folder} with {sys.executable} (Python {version})")
        try:
            venv.create(
                self.folder,
                clear=True,
                with_pip=True,
                symlinks=True,
                system_site_packages=self.base.ros == "sourced",
            )
        except subprocess.CalledProcessError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise SetupError(
                "This Python cannot make virtual environments with pip: install its venv package "
                f"(Debian, Ubuntu: apt install python{version.rsplit('.', 1)[0]}-venv), then run "
                "the same make target again."
            ) from error
        complete.touch()

    def install_torch(self) -> None:
        """Use the PyTorch that is there, or install the pinned one."""
        link = self.torch_link()
        found = self.base.torch_version
        if found is not None and tuple(map(int, found.split(".")[:2])) >= TORCH_MINIMUM:
            if self.base.ros != "sourced":
                link.write_text(f"{self.base.torch_folder}\n", encoding="utf-8")
            working = ask_python(str(self.python), "import torch; print(torch.__version__)")
            if working is not None:
                self.step(f"PyTorch {found} of {self.base.torch_folder} is used")
                return
            self.step(f"PyTorch {found} of {self.base.torch_folder} cannot be imported here")
        link.unlink(missing_ok=True)
        if not (self.site_packages() / "torch").is_dir():
            settings = subprocess.run(
                [str(self.python), "-m", "pip", "config", "list"],
                capture_output=True, text=True, env=clean_environment(), check=False,
            )  # fmt: skip
            self.step(f"Installing {TORCH}: {torch_build(settings.stdout)}")
        self.pip(TORCH)

    def torch_link(self) -> Path:
        """Return the file that adds the folder of the interpreter's own PyTorch to the path."""
        return self.site_packages() / "dae_ros_torch.pth"

    def site_packages(self) -> Path:
        """Return the environment's folder of installed packages."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / name / "site-packages"

    def install_ros(self) -> None:
        """Provide rclpy and the event messages, each from where this machine can have them."""
        if self.base.ros == "none":
            self.step(
                f"No ROS: PyPI has no ROS wheels for {platform.system()} on {platform.machine()} "
                "and no ROS installation is sourced. Recordings, the core and the demo run "
                "without it, in one process"
            )
            return
        if self.base.ros == "sourced":
            self.step(f"ROS 2 {os.environ.get('ROS_DISTRO', '')} as sourced is used")
            if ask_python(str(self.python), "import event_camera_msgs.msg") is None:
                raise SetupError(
                    "The sourced ROS installation has no event_camera_msgs: install it (apt "
                    f"install ros-{os.environ.get('ROS_DISTRO', '<distro>')}-event-camera-msgs), "
                    "or open a shell without ROS to use the packages from PyPI."
                )
            return
        self.step("Installing rclpy and messages of ROS 2 Kilted from PyPI (78 wheels, 63 MB)")
        # The folder of a PyTorch that is used from elsewhere may hold ROS wheels as well, whose
        # libraries would not be found from here.
        borrowed = ["--ignore-installed"] if self.torch_link().exists() else []
        self.pip(*borrowed, *ROS_WHEELS)
        self.step("Compiling event_camera_msgs and dvs_msgs")
        self.pip("--force-reinstall", "--no-deps", str(ROOT / "interfaces"))
        code = (
            "from event_camera_msgs.msg import EventPacket as E; import dvs_msgs.msg;"
            "import rclpy; rclpy.init();"
            "n = rclpy.create_node('setup'); p = n.create_publisher(E, 'setup', 1);"
            "print(n.get_publishers_info_by_topic('/setup')[0].topic_type_hash)"
        )
        got = ask_python(str(self.python), code)
        if got != EVENT_PACKET_HASH:
            raise SetupError(
                f"The compiled EventPacket has the type hash {got}, the released type has "
                f"{EVENT_PACKET_HASH}: nodes of other packages would not connect. Remove "
                f"{self.folder} and run the same make target again."
            )

    def install_project(self) -> None:
        """Install dae_ros, editable, with its own requirements and the test tools."""
        self.step("Installing dae_ros with its Python packages and the test tools")
        self.pip("--editable", f"{ROOT}[test]")

    def everything(self) -> None:
        """Run all steps; what they need of the system is looked for before anything is loaded."""
        if self.base.ros == "wheels":
            check_compilers()
        self.make_environment()
        self.install_torch()
        self.install_ros()
        self.install_project()


def check_compilers() -> None:
    """Stop early where the event messages could not be compiled."""
    for variable, command in (("CC", "gcc"), ("CXX", "g++")):
        chosen = os.environ.get(variable, command).split()[0]
        if shutil.which(chosen) is None:
            raise SetupError(
                f"No compiler {chosen}: the event messages are compiled. Install gcc and g++ "
                f"(Debian, Ubuntu: apt install g++) or set {variable}."
            )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"No {header}: the event messages are compiled. Install the header files of Python "
            f"{version} (Debian, Ubuntu: apt install python{version}-dev)."
        )


def read_stamp(path: Path) -> dict[str, str | None] | None:
    """Return the ingredients of the last finished set-up, None where there is none to be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def main() -> int:
    """Set the environment up; return 0, 1 when that failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(description="Make the virtual environment of dae_ros.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".venv")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if Path(sys.prefix).resolve() == folder:
        print(
            f"{sys.executable} belongs to {folder}, which cannot be made with itself: name the "
            f"interpreter that it comes from, {Path(sys.executable).resolve()}.",
            file=sys.stderr,
        )
        return 1
    stamp = folder / "dae_ros_setup.json"
    base = look_around()
    wanted = ingredients(base)
    before = read_stamp(stamp)
    if before == wanted:
        return 0
    if before is not None:
        say(f"Setting {folder} up again: {'; '.join(changes(before, wanted))}")
    setup = Setup(folder, base)
    try:
        stamp.unlink(missing_ok=True)
        setup.everything()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the same make target again, it continues.", file=sys.stderr)
        return 130
    stamp.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    setup.step(f"Ready: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
