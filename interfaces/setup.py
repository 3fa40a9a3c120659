"""Event messages for ROS 2 from PyPI: `pip install ./interfaces`, no CMake, no colcon.

Generates `event_camera_msgs` and `dvs_msgs` from their .msg files with the rosidl generators
of the ROS wheels, called as Python modules, and compiles each package into one library that
holds the C structs, the type support and the Python conversion.
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
FAST = "rosidl_typesupport_fastrtps_c"
INTROSPECTION = "rosidl_typesupport_introspection_c"


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
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    root = output / package
    messages = [f"{HERE / package}:msg/{path.name}" for path in message_files(package)]
    include_paths = [str(prefix / "share" / name) for name in DEPENDENCIES]
    idl = TranslateMsgToIDL("msg").translate(package, messages, include_paths, root)
    hashes = HashTypeDescription("hash").generate_type_hashes(package, idl, include_paths, root)
    GenerateC("c").generate(package, idl, include_paths, root, hashes)
    GenerateFastRTPSCTypesupport("fastrtps_c").generate(package, idl, include_paths, root)
    # Fast DDS describes a type to other participants by its introspection. File names of the two
    # generators overlap, hence a folder of its own.
    GenerateIntrospectionCTypesupport("introspection_c").generate(
        package, idl, include_paths, output / "introspection" / package
    )
    GenerateCTypesupport("c", typesupport_implementations=[FAST, INTROSPECTION]).generate(
        package, idl, include_paths, root
    )
    GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]).generate(
        package, idl, include_paths, root
    )


class Compiler:
    """The compilers with the include folders and libraries of the ROS wheels."""

    def __init__(self, prefix: Path, generated: Path) -> None:
        self._c, self._cpp = compilers()
        self._prefix = prefix
        include = [
            generated,
            generated / "introspection",
            Path(sysconfig.get_path("include")),
            Path(importlib.import_module("numpy").get_include()),
            *sorted(path for path in (prefix / "include").iterdir() if path.is_dir()),
            prefix / "include",
        ]
        self._flags = ["-O2", "-fPIC", "-w", *(f"-I{path}" for path in include)]

    def compile(self, source: Path) -> Path:
        """Compile one file; return the object file."""
        target = source.with_name(source.name + ".o")
        compiler = [*self._cpp, "-std=c++17"] if source.suffix == ".cpp" else self._c
        subprocess.run([*compiler, *self._flags, "-c", str(source), "-o", str(target)], check=True)
        return target

    def link(self, target: Path, objects: list[Path], links: list[str], rpath: str) -> None:
        """Link a shared library that finds the wheels' libraries relative to itself."""
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [*self._cpp, "-shared", "-s", "-o", str(target), *map(str, objects)]
        command += [f"-L{target.parent}", f"-L{self._prefix / 'lib'}", *links]
        command += [f"-Wl,-rpath,$ORIGIN{rpath}", f"-Wl,-rpath-link,{self._prefix / 'lib'}"]
        subprocess.run(command, check=True)


def build_libraries(package: str, compiler: Compiler, generated: Path, output: Path) -> list[str]:
    """Compile the generated sources of one package.

    All of the package is in one library. The type support dispatch looks for one library for
    each implementation by name; the second is empty and leads to the first. The Python extension
    is a third, beside the Python modules.

    Args:
        package: message package.
        compiler: for the ROS wheels.
        generated: folder with the sources.
        output: folder of the installation, with `lib/` and `python/<package>/`.

    Returns:
        the libraries of `lib/`.
    """
    folders = [generated / package, generated / "introspection" / package]
    sources = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".c", ".cpp") and ".ep." not in path.name
    )
    entry = generated / package / f"_{package}_s.ep.rosidl_typesupport_c.c"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        *objects, entry_object = pool.map(compiler.compile, [*sources, entry])
    kinds = ("rosidl_generator_c", "rosidl_generator_py", FAST, INTROSPECTION)
    links = [f"-l{name}__{kind}" for name in DEPENDENCIES for kind in kinds]
    links += [f"-l{name}" for name in (FAST, INTROSPECTION, "rosidl_typesupport_fastrtps_cpp")]
    links += ["-lrosidl_typesupport_c", "-lrosidl_runtime_c", "-lrmw", "-lrcutils", "-lfastcdr"]
    whole = output / "lib" / f"lib{package}__{FAST}.so"
    second = output / "lib" / f"lib{package}__{INTROSPECTION}.so"
    module = f"{package}_s__rosidl_typesupport_c{sysconfig.get_config_var('EXT_SUFFIX')}"
    all_of_it = ["-Wl,--no-as-needed", f"-l{package}__{FAST}"]
    compiler.link(whole, objects, ["-Wl,--as-needed", *links], "")
    compiler.link(second, [], all_of_it, "")
    extension = output / "python" / package / module
    # site-packages/<package> -> <prefix>/lib, where the wheels keep their libraries.
    compiler.link(extension, [entry_object], [f"-L{whole.parent}", *all_of_it], "/../../..")
    return [str(whole), str(second)]


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
        build = Path(self.get_finalized_command("build").build_temp).resolve()
        shutil.rmtree(build, ignore_errors=True)
        generated = build / "generated"
        libraries: list[str] = []
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
            compiler = Compiler(prefix, generated)
            libraries += build_libraries(package, compiler, generated, build)
            for extension in (build / "python" / package).iterdir():
                shutil.copy2(extension, destination)
        self.distribution.data_files.append(("lib", libraries))


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
