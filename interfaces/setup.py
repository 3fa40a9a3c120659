"""Event messages for ROS 2 from PyPI: `pip install ./interfaces`, no CMake, no colcon.

Generates `event_camera_msgs` and `dvs_msgs` from their .msg files with the rosidl generators
of the ROS wheels, called as Python modules, and compiles each package into one extension
module that holds the C structs, the Fast DDS type support and the Python conversion.
The result is bound to the release of the wheels that it was built with (ROS 2 Kilted).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PACKAGES = ("event_camera_msgs", "dvs_msgs")
DEPENDENCIES = ("builtin_interfaces", "std_msgs")


def ros_prefix() -> Path:
    """Return the prefix below which the ROS wheels put `lib`, `include` and `share`."""
    spec = importlib.util.find_spec("std_msgs")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "The ROS wheels are not importable: install with `pip install ./interfaces`, which "
            "fetches them as build requirements (Linux x86_64, Python 3.10 to 3.14)."
        )
    prefix = Path(spec.origin).resolve().parents[4]  # <prefix>/lib/python3.x/site-packages/...
    if not (prefix / "include" / "rosidl_runtime_c").is_dir():
        raise SystemExit(
            f"{prefix} holds std_msgs but not the ROS wheels' C headers: where a ROS installation "
            "is sourced, install its own event_camera_msgs package instead of this one."
        )
    return prefix


def compilers() -> tuple[list[str], list[str]]:
    """Return the commands of the C and the C++ compiler, or stop with what to install."""
    commands = (
        shlex.split(os.environ.get("CC", "gcc")),
        shlex.split(os.environ.get("CXX", "g++")),
    )
    for command, variable in zip(commands, ("CC", "CXX"), strict=True):
        if not command or shutil.which(command[0]) is None:
            raise SystemExit(
                f"No compiler {' '.join(command)!r}: install gcc and g++ (Debian, Ubuntu: "
                f"`apt install g++`) or set {variable}, then run the set-up again."
            )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(
            f"No {header}: install the header files of Python {version} (Debian, Ubuntu: "
            f"`apt install python{version}-dev`), then run the set-up again."
        )
    return commands


def generate(package: str, prefix: Path, output: Path) -> None:
    """Write the C, C++ and Python sources of a message package to `output / package`."""
    from rosidl_adapter.cli import TranslateMsgToIDL
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport

    root = output / package
    messages = [f"{HERE / package}:msg/{path.name}" for path in message_files(package)]
    include_paths = [str(prefix / "share" / name) for name in DEPENDENCIES]
    idl = TranslateMsgToIDL("msg").translate(package, messages, include_paths, root)
    hashes = HashTypeDescription("hash").generate_type_hashes(package, idl, include_paths, root)
    GenerateC("c").generate(package, idl, include_paths, root, hashes)
    GenerateFastRTPSCTypesupport("fastrtps_c").generate(package, idl, include_paths, root)
    # One implementation: the dispatch is then a direct call inside the same library.
    GenerateCTypesupport(
        "c", typesupport_implementations=["rosidl_typesupport_fastrtps_c"]
    ).generate(package, idl, include_paths, root)
    GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]).generate(
        package, idl, include_paths, root
    )


def build_extension(package: str, prefix: Path, generated: Path, destination: Path) -> None:
    """Compile the generated sources of one package into `destination`."""
    c_compiler, cpp_compiler = compilers()
    include = [
        generated,
        Path(sysconfig.get_path("include")),
        Path(importlib.import_module("numpy").get_include()),
        *sorted(path for path in (prefix / "include").iterdir() if path.is_dir()),
        prefix / "include",
    ]
    flags = ["-O2", "-fPIC", "-fvisibility=default", "-w", *(f"-I{path}" for path in include)]
    sources = sorted([*(generated / package).rglob("*.c"), *(generated / package).rglob("*.cpp")])

    def compile_one(source: Path) -> Path:
        target = source.with_name(source.name + ".o")
        compiler = [*cpp_compiler, "-std=c++17"] if source.suffix == ".cpp" else c_compiler
        subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    libraries = [
        f"{name}__{kind}"
        for name in DEPENDENCIES
        for kind in (
            "rosidl_generator_c",
            "rosidl_generator_py",
            "rosidl_typesupport_c",
            "rosidl_typesupport_fastrtps_c",
        )
    ] + [
        "rosidl_runtime_c",
        "rosidl_typesupport_c",
        "rosidl_typesupport_fastrtps_c",
        "rosidl_typesupport_fastrtps_cpp",
        "rmw",
        "rcutils",
        "fastcdr",
    ]
    module = f"{package}_s__rosidl_typesupport_c{sysconfig.get_config_var('EXT_SUFFIX')}"
    destination.mkdir(parents=True, exist_ok=True)
    # site-packages/<package> -> <prefix>/lib, where the wheels keep their libraries.
    subprocess.run(
        [
            *cpp_compiler,
            "-shared",
            "-s",
            "-o",
            str(destination / module),
            *map(str, objects),
            f"-L{prefix / 'lib'}",
            *(f"-l{name}" for name in libraries),
            "-Wl,--no-undefined-version",
            "-Wl,--as-needed",
            "-Wl,-rpath,$ORIGIN/../../..",
        ],
        check=True,
    )


def message_files(package: str) -> list[Path]:
    """Return the .msg files of a package, by name."""
    return sorted((HERE / package / "msg").glob("*.msg"))


class BuildMessages(build_py):
    """Generates and compiles the message packages instead of copying sources."""

    def run(self) -> None:
        """Generate and compile into the build folder."""
        prefix = ros_prefix()
        compilers()  # before the slow part
        os.environ["AMENT_PREFIX_PATH"] = str(prefix)  # where the generators find their templates
        generated = Path(self.get_finalized_command("build").build_temp).resolve() / "generated"
        shutil.rmtree(generated, ignore_errors=True)
        for package in PACKAGES:
            generate(package, prefix, generated)
            destination = Path(self.build_lib).resolve() / package
            shutil.rmtree(destination, ignore_errors=True)
            shutil.copytree(
                generated / package / "msg",
                destination / "msg",
                ignore=shutil.ignore_patterns("detail", "*.c", "*.cpp", "*.h", "*.idl", "*.json"),
            )
            (destination / "__init__.py").write_text("", encoding="utf-8")
            build_extension(package, prefix, generated, destination)


class MessageDistribution(Distribution):
    """A distribution whose wheel is bound to this platform and Python version."""

    def has_ext_modules(self) -> bool:
        """Say that there is compiled code, which setuptools cannot see."""
        return True


def data_files() -> list[tuple[str, list[str]]]:
    """Return the package manifests and message definitions, where `ros2 interface` looks."""
    files = []
    for package in PACKAGES:
        files.append((f"share/{package}", [f"{package}/package.xml"]))
        messages = [str(path.relative_to(HERE)) for path in message_files(package)]
        files.append((f"share/{package}/msg", messages))
    for kind in ("packages", "rosidl_interfaces"):
        markers = [f"resource_index/{kind}/{package}" for package in PACKAGES]
        files.append((f"share/ament_index/resource_index/{kind}", markers))
    return files


setup(
    name="dae-ros-interfaces",
    version="0.1.0",
    description="event_camera_msgs and dvs_msgs for ROS 2 from PyPI",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=list(PACKAGES),
    data_files=data_files(),
    install_requires=[
        "ros-std-msgs==5.5.1",
        "ros-builtin-interfaces==2.3.0",
        "ros-rosidl-typesupport-fastrtps-c==3.8.1",
        "numpy",
    ],
    cmdclass={"build_py": BuildMessages},
    distclass=MessageDistribution,
    zip_safe=False,
)
