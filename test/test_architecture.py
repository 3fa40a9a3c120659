"""The shape of the code: layers, homes of third-party packages, file names and sizes."""

from __future__ import annotations

import ast
import graphlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dae_ros"

# From top to bottom; a module imports from its own entry and from lower rows.
LAYERS: list[set[str]] = [
    {"nodes", "cli"},
    {"distillation"},
    {"evaluation"},
    {"runtime"},
    {"bags"},
    {"simulation"},
    {"representation"},
    {"events", "model"},
    {"errors", "parameters", "installation", "paths"},
]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
BOTTOM = len(LAYERS) - 1
# The command line starts nodes only as processes, through the table and the harness.
PROCESSES = ("dae_ros.nodes.processes", "dae_ros.nodes.process_harness")

MESSAGES = {
    "builtin_interfaces", "diagnostic_msgs", "dv_ros2_msgs", "dvs_msgs", "event_camera_msgs",
    "geometry_msgs", "lifecycle_msgs", "prophesee_event_msgs", "rcl_interfaces", "rosgraph_msgs",
    "rosidl_runtime_py", "sensor_msgs", "std_msgs", "std_srvs",
}  # fmt: skip
HOMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys({"rclpy", "ament_index_python", *MESSAGES}, ("nodes/",)),
    **dict.fromkeys({"launch", "launch_ros"}, ()),
    **dict.fromkeys(
        {"torch", "timm"},
        ("model/", "distillation/", "runtime/torch_", "runtime/onnx_export.py"),
    ),
    **dict.fromkeys({"onnx", "nncf"}, ("runtime/onnx_quantisation.py",)),
    "onnxscript": (),
    "onnxruntime": ("runtime/onnxruntime_loading.py",),
    "openvino": ("runtime/openvino_graph.py",),
    **dict.fromkeys({"aedat", "av", "faery", "h5py", "hdf5plugin", "rosbags"}, ("bags/",)),
}
EVENT_HALF_IMPORTS = {"dae_ros", "numba", "numpy"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"importlib.import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def layer_violation(importer: str, imported: str) -> bool:
    """Say whether an import inside of the package goes up or sideways.

    Args:
        importer: first part of the importing module below `dae_ros`, '' for `dae_ros` itself.
        imported: full dotted name.
    """
    parts = imported.split(".")
    if parts[0] != "dae_ros" or len(parts) < 2 or importer == parts[1]:
        return False
    if importer == "":
        return True
    if importer == "cli" and imported.startswith(PROCESSES):
        return False
    both_at_bottom = ROW[importer] == ROW[parts[1]] == BOTTOM
    return not (ROW[importer] < ROW[parts[1]] or both_at_bottom)


def first_part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return (
        ""
        if relative.name == "__init__.py" and len(relative.parts) == 1
        else (relative.parts[0].removesuffix(".py"))
    )


def test_every_module_belongs_to_a_layer() -> None:
    """Each first-level module or package of dae_ros stands in the layer table."""
    unknown = {first_part(path) for path in modules()} - set(ROW) - {""}
    assert unknown == set()


def test_imports_go_only_downwards() -> None:
    """No module imports from a higher layer, or from another entry of its own layer."""
    problems = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules()
        for line, name in imports(path)
        if layer_violation(first_part(path), name)
    ]
    assert problems == []


@pytest.mark.parametrize(
    ("importer", "imported", "violation"),
    [
        ("runtime", "dae_ros.events.packet.Events", False),
        ("events", "dae_ros.runtime.pipeline", True),
        ("model", "dae_ros.events.packet", True),
        ("cli", "dae_ros.nodes.depth_node", True),
        ("cli", "dae_ros.nodes.processes.launch_plan", False),
        ("nodes", "dae_ros.cli.main", True),
        ("parameters", "dae_ros.errors.DaeError", False),
        ("errors", "dae_ros.events", True),
        ("", "dae_ros.events", True),
        ("events", "numpy", False),
    ],
)
def test_the_layer_rule_itself(importer: str, imported: str, violation: bool) -> None:
    """The rule accepts and refuses these hand-made imports."""
    assert layer_violation(importer, imported) is violation


def test_imports_never_go_in_a_circle() -> None:
    """No module needs itself through others, not even by imports inside functions."""
    names: dict[str, Path] = {}
    for path in modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    needs: dict[str, set[str]] = {name: set() for name in names}
    for importer, path in names.items():
        for _, imported in imports(path):
            module = imported
            while module and module not in names:
                module = module.rpartition(".")[0]
            if module:
                needs[importer].add(module)
    circle: list[str] = []
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    assert circle == []


def test_third_party_packages_stay_in_their_homes() -> None:
    """ROS, PyTorch, recordings and video are imported only where their row allows it."""
    problems = []
    for path in modules():
        place = path.relative_to(PACKAGE).as_posix()
        for line, name in imports(path):
            homes = HOMES.get(name.split(".")[0])
            if homes is not None and not place.startswith(homes):
                problems.append(f"dae_ros/{place}:{line} imports {name}")
    assert problems == []


def test_the_event_half_needs_numpy_and_numba_alone() -> None:
    """`events/` imports the standard library, numpy, numba and this package."""
    allowed = EVENT_HALF_IMPORTS | set(sys.stdlib_module_names)
    problems = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((PACKAGE / "events").rglob("*.py"))
        for line, name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert problems == []


def test_the_process_table_needs_neither_ros_nor_launch() -> None:
    """`nodes/processes.py` is plain Python, so that launch files and tests share it anywhere."""
    names = {name.split(".")[0] for _, name in imports(PACKAGE / "nodes" / "processes.py")}
    assert names <= set(sys.stdlib_module_names) | {"dae_ros"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dae_ros.runtime.pipeline", ("torch", "rclpy")),
        ("dae_ros.cli.main", ("torch", "rclpy", "numba")),
        ("dae_ros.nodes.processes", ("torch", "rclpy", "numpy")),
    ],
)
def test_imports_stay_light(module: str, absent: tuple[str, ...]) -> None:
    """Importing the module leaves the heavy packages out of `sys.modules`."""
    code = f"import sys, {module}; print([n for n in {absent!r} if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_no_drawers_for_leftovers() -> None:
    """No module is named after nothing in particular."""
    names = {"utils.py", "util.py", "base.py", "helpers.py", "common.py", "misc.py"}
    assert [path for path in modules() if path.name in names] == []


def test_long_modules_say_why() -> None:
    """A module of more than 400 lines gives the reason in its docstring: 'Long because ...'."""
    problems = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            reason = ast.get_docstring(ast.parse(text)) or ""
            if "Long because" not in reason:
                problems.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
    assert problems == []


def test_silenced_type_errors_say_why() -> None:
    """Each `type: ignore` has its reason behind it, or as a comment in the line before."""
    problems = []
    for path in modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, (before, line) in enumerate(itertools.pairwise(["", *lines]), 1):
            _, silenced, after = line.partition("# type: ignore")
            if silenced and "#" not in after and not before.lstrip().startswith("#"):
                problems.append(f"{path.relative_to(ROOT)}:{number}")
    assert problems == []


def test_every_test_says_what_it_shows() -> None:
    """Each test function has a docstring, and each test file a name of its own."""
    undocumented = []
    for path in sorted((ROOT / "test").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.FunctionDef)
                and node.name.startswith("test_")
                and not ast.get_docstring(node)
            ):
                undocumented.append(f"{path.relative_to(ROOT)}::{node.name}")
    names = [path.name for path in (ROOT / "test").rglob("test_*.py")]
    assert undocumented == []
    assert sorted(names) == sorted(set(names))
