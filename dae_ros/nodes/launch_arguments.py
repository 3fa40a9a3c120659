"""The arguments of the launch files: names, defaults, descriptions and what they set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True)
class Argument:
    """One launch argument.

    Attributes:
        name: as on the command line, `name:=value`.
        default: '' leaves the matter to the node's own default or the params_file.
        description: one sentence, shown by `ros2 launch ... --show-args`.
        choices: the allowed texts, empty for any.
        parameter: the node parameters that it sets, as (node executable, parameter).
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    parameter: tuple[tuple[str, str], ...] = ()


TRUE_FALSE = ("true", "false")

ARGUMENTS: tuple[Argument, ...] = (
    Argument(
        "source",
        "topic",
        "Where events come from: topic (a driver that runs already), bag (replay of a "
        "recording) or simulator.",
        ("topic", "bag", "simulator"),
    ),
    Argument(
        "events",
        "",
        "Event topic; empty takes 'events', and for a bag the topic that the recording has.",
        parameter=(("replay_node", "events"),),
    ),
    Argument(
        "image",
        "",
        "Topic of camera frames; empty takes 'image', and for a bag or the simulator theirs.",
    ),
    Argument(
        "camera_info",
        "",
        "Topic of the camera's calibration; empty takes 'camera_info' beside the event topic, and "
        "for a bag the topic that the recording has.",
    ),
    Argument(
        "calibration",
        "",
        "Calibration file (YAML of Kalibr or camera_calibration) in place of camera_info, for a "
        "live camera or a bag.",
        parameter=(("depth_node", "calibration"), ("replay_node", "calibration")),
    ),
    Argument(
        "weights",
        "",
        "Checkpoint file, or a name from models/manifest.yaml; empty takes micro, trained on "
        "simulated worlds only: its metres are a guess elsewhere. untrained:NAME has random ones "
        "(vits, vitb, vitl, vitt, micro, micro_memoryless, e2depth, ereformer).",
        parameter=(("depth_node", "weights"), ("distillation_node", "weights")),
    ),
    Argument(
        "device",
        "",
        "Where networks run: auto, cpu, cuda or cuda:N.",
        parameter=(("depth_node", "device"), ("distillation_node", "device")),
    ),
    Argument(
        "backend",
        "",
        "What runs the network of depth; auto is the fastest installed on a CPU for a live camera.",
        ("", "auto", "torch", "onnxruntime", "tensorrt", "openvino"),
        parameter=(("depth_node", "backend"),),
    ),
    Argument(
        "precision",
        "",
        "Arithmetic of the network; int8 is for files of `dae-ros export --precision int8`.",
        ("", "auto", "float32", "bfloat16", "float16", "int8"),
        parameter=(("depth_node", "precision"),),
    ),
    Argument(
        "bag",
        "",
        "Recording to replay, with source:=bag.",
        parameter=(("replay_node", "bag"),),
    ),
    Argument(
        "rate",
        "",
        "Speed of the replay or the simulator, 1 is real time.",
        parameter=(("replay_node", "rate"), ("simulator_node", "rate")),
    ),
    Argument(
        "loop",
        "",
        "Replay again from the beginning at the end.",
        ("", *TRUE_FALSE),
        parameter=(("replay_node", "loop"),),
    ),
    Argument(
        "start",
        "",
        "Seconds of the recording to skip.",
        parameter=(("replay_node", "start_s"),),
    ),
    Argument(
        "scale",
        "",
        "Scale from the network's number to metres; needed where the weights are not metric.",
        parameter=(("depth_node", "scale"),),
    ),
    Argument(
        "shift",
        "",
        "Shift that belongs to scale.",
        parameter=(("depth_node", "shift"),),
    ),
    Argument(
        "orientation",
        "",
        "Whether the network's number grows with depth or with inverse depth.",
        ("", "checkpoint", "depth", "inverse_depth"),
        parameter=(("depth_node", "orientation"),),
    ),
    Argument("rviz", "false", "Show the topics in RViz.", TRUE_FALSE),
    Argument(
        "ground_truth",
        "",
        "Topic of true depth images; gt_node compares depth with them and publishes 'metrics'.",
    ),
    Argument(
        "distill",
        "false",
        "Learn on while depth is live: starts distillation_node, whose versions the depth node "
        "follows. Needs a teacher and camera frames of the events' pixels.",
        TRUE_FALSE,
    ),
    Argument(
        "teacher",
        "",
        "With distill: the network of camera frames that labels; a checkpoint file, a name from "
        "models/manifest.yaml, or the manifest of an ONNX file.",
        parameter=(("distillation_node", "teacher"),),
    ),
    Argument(
        "anchors",
        "",
        "With distill: places that must not be forgotten, a folder of `dae-ros clips` "
        "(config/train/clips_anchors.yaml for the weights that ship); empty: only the first clips "
        "of the deployment are held.",
        parameter=(("distillation_node", "anchors"),),
    ),
    Argument(
        "distill_folder",
        "",
        "With distill: where versions and learner are kept over restarts; empty is "
        "~/.ros/dae_ros/distillation, below the namespace where there is one.",
        parameter=(("distillation_node", "folder"),),
    ),
    Argument(
        "single_process",
        "false",
        "With distill: depth and distillation in one process, for a GPU that is too small for two.",
        TRUE_FALSE,
    ),
    Argument(
        "autostart",
        "",
        "Configure and activate depth and distillation by themselves; false waits for lifecycle "
        "calls.",
        ("", *TRUE_FALSE),
        parameter=(("depth_node", "autostart"), ("distillation_node", "autostart")),
    ),
    Argument(
        "params_file",
        "",
        "YAML with parameters (uncomment lines in a copy of config/depth.yaml); launch arguments "
        "win over it.",
    ),
    Argument(
        "use_sim_time",
        "",
        "Follow /clock, which replay and simulator publish then; empty is true for a bag and false "
        "otherwise.",
        ("", *TRUE_FALSE),
    ),
    Argument(
        "log_level",
        "info",
        "Severity from which messages are printed.",
        ("debug", "info", "warn", "error", "fatal"),
    ),
    Argument("namespace", "", "Namespace of all nodes and their topics."),
)

DISTILLATION_ALONE = frozenset(
    {"source", "bag", "camera_info", "calibration", "rate", "loop", "start", "backend", "precision"}
    | {"scale", "shift", "orientation", "rviz", "ground_truth", "distill", "single_process"}
)
"""What `distillation.launch.py` has no argument for: it starts the learner beside a depth node that
runs already, here or on another machine."""

_LAUNCH_FILES = frozenset({"depth.launch.py", "demo.launch.py", "distillation.launch.py"})


def contradictions(values: Mapping[str, str]) -> list[str]:
    """Return a sentence for each pair of arguments that do not go together.

    Args:
        values: of every argument of the table, by name.
    """
    problems = []
    source = values["source"]
    if source == "bag" and not values["bag"]:
        problems.append("source:=bag needs a recording: add bag:=PATH")
    if source != "bag" and values["bag"]:
        problems.append(f"bag is given, but source is '{source}': add source:=bag")
    for name in ("loop", "start"):
        if values[name] not in ("", "false") and source != "bag":
            problems.append(f"'{name}' belongs to source:=bag, but source is '{source}'")
    for name in ("teacher", "anchors", "distill_folder", "single_process"):
        if values[name] not in ("", "false") and values["distill"] != "true":
            problems.append(f"'{name}' belongs to distill:=true")
    if values["rate"] and source == "topic":
        problems.append("'rate' belongs to source:=bag or source:=simulator, not to a live topic")
    if values["calibration"] and source == "simulator":
        problems.append("'calibration' belongs to a live topic or a bag: the simulator has its own")
    if values["calibration"] and values["camera_info"]:
        problems.append("'calibration' takes the place of 'camera_info': give one of the two")
    if source == "simulator" and values["events"] not in ("", "events"):
        problems.append(
            "'events' belongs to a live topic or a bag: the simulator publishes 'events', in "
            "another place with namespace:=NAME"
        )
    return problems


def arguments_of_command(command_line: Sequence[str]) -> dict[str, str]:
    """Return the launch arguments that the user typed for one of this package's launch files.

    `ros2 launch` passes over a name that no launch file declares, so that a misspelt argument
    would have no effect; the table can refuse it only where it sees it.

    Args:
        command_line: words of the process, as `sys.argv`.

    Returns:
        value by name. Empty where the command names another launch file: one that includes ours
        has arguments of its own.
    """
    if not any(PurePath(word).name in _LAUNCH_FILES for word in command_line if ":=" not in word):
        return {}
    typed = (word.partition(":=") for word in command_line if not word.startswith("-"))
    return {name: value for name, separator, value in typed if separator}
