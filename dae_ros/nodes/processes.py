"""Which processes a launch starts, and with what: the one table behind launch files and demo.

`launch_plan` turns launch arguments into processes. `launch/*.launch.py` hand them to
`launch_ros`, `process_harness` starts them itself; neither adds anything of its own, so a test of
the table through the harness is a test of what `ros2 launch` starts.

Plain Python: importing it needs neither ROS nor `launch`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dae_ros.errors import ConfigurationError
from dae_ros.installation import share_folder
from dae_ros.nodes.launch_arguments import ARGUMENTS, DISTILLATION_ALONE, contradictions
from dae_ros.parameters import NODES, NodeParameters, Value, declarations
from dae_ros.paths import named_path
from dae_ros.runtime.parameter_file import read_parameters_of

DEMO_DEFAULTS: Mapping[str, str] = {
    "source": "simulator",
    "ground_truth": "depth_truth",
}
"""What `demo.launch.py` changes: a simulated camera, and its exact depth to compare with."""

SOURCE_WAIT_S = 300.0
"""How long replay and simulator wait for the depth node in a launch.

It subscribes when it is active; loading a large network, and compiling the decoders when they run
for the first time, take longer than the sources' own patience on a small machine.
"""

NOTHING_COMPARED = "nothing was compared: "
"""How gt_node's last sentence begins where it found no pair; the reason follows. The demo, which
starts the processes, finds it so."""

SIMULATED = frozenset({"events", "image_raw", "camera_info", "depth_truth"})
"""What the simulator publishes that the nodes here can take."""

RESPAWN_S = 10.0
"""After which a learner that ended is started again; loading it costs depth little, so seldom."""


@dataclass(frozen=True)
class Process:
    """One process of a launch.

    Attributes:
        package, executable: as for `ros2 run`.
        name: node name.
        namespace: node namespace, '' for none.
        parameters: one set, merged from what the kind of source asks for, over it what the
            parameter file says to this node, over it what the launch arguments say.
        remappings: pairs of (name in the node, name outside).
        arguments: command line besides the ROS arguments.
        log_level: severity from which the node prints.
        environment: variables to set in addition.
        required: whether the launch ends with this process.
        respawn_s: after how many seconds a launch file starts it again where it ended; None for
            never.
        nodes: parameters by node name, of a process that holds several nodes; `name` is then that
            of none, and `parameters` are empty.
    """

    package: str
    executable: str
    name: str
    namespace: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict)
    required: bool = False
    respawn_s: float | None = None
    nodes: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    @property
    def parameter_sections(self) -> dict[str, dict[str, Value]]:
        """Sections of the parameter file that gives each node of the process its own set."""
        sets = {f"/**/{name}": dict(values) for name, values in self.nodes.items() if values}
        return {"/**": dict(self.parameters), **sets} if self.parameters else sets


def transport_environment() -> dict[str, str]:
    """Return the process environment for large messages, without what the user set already.

    Two measured traps (docs/ros2_launch.md): Fast DDS' default shared-memory segment of 512 kB
    is smaller than a packet of a fast sensor, and glibc gives the memory of each large buffer
    back to the kernel, which then faults every page in again.
    """
    wanted = {
        "FASTDDS_DEFAULT_PROFILES_FILE": str(share_folder() / "config" / "fastdds_shm.xml"),
        "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "MALLOC_TOP_PAD_": str(64 << 20),
    }
    chosen = {name: value for name, value in wanted.items() if name not in os.environ}
    if "FASTRTPS_DEFAULT_PROFILES_FILE" in os.environ:  # its name up to Humble
        chosen.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    return chosen


def launch_plan(
    arguments: Mapping[str, str], defaults: Mapping[str, str] | None = None
) -> list[Process]:
    """Return the processes of a launch, the ones that listen first.

    Args:
        arguments: values by name of `ARGUMENTS`; the others take their defaults.
        defaults: defaults that differ from the table's, as `DEMO_DEFAULTS`.

    Raises:
        ConfigurationError: with one sentence per problem: an unknown argument, a value that is
            not allowed, arguments that contradict each other, a parameter file that cannot be
            read.
        RecordingError: the recording cannot be read or has no events.
    """
    known = {argument.name: argument for argument in ARGUMENTS}
    values = {name: argument.default for name, argument in known.items()}
    values.update(defaults or {})
    values.update(arguments)
    problems = [
        f"there is no launch argument '{name}'; known are {', '.join(known)}"
        for name in values
        if name not in known
    ]
    problems += [
        f"'{name}' must be one of {', '.join(filter(None, argument.choices))}, not '{values[name]}'"
        for name, argument in known.items()
        if argument.choices and values[name] not in argument.choices
    ]
    problems += contradictions(values)
    typed = {node: _node_parameters(node, values, problems) for node in NODES}
    if problems:
        raise ConfigurationError("; ".join(problems), problems=problems)

    chosen, published = _topics(values)
    topics = {name: published.get(topic, topic) for name, topic in chosen.items()}
    environment = transport_environment()
    from_bag = values["source"] == "bag"
    if from_bag:
        # It comes as camera_info: the replay knows the recorded names, of which a chain of several
        # cameras has one.
        typed["depth_node"].pop("calibration", None)
    if values["use_sim_time"]:
        typed["depth_node"]["use_sim_time"] = values["use_sim_time"] == "true"

    def node(
        executable: str,
        implied: Mapping[str, Value],
        remappings: tuple[tuple[str, str], ...] = (),
        required: bool = False,
    ) -> Process:
        name = executable.removesuffix("_node")
        return Process(
            "dae_ros",
            executable,
            name,
            values["namespace"],
            # Merged here and not by rcl: there a section that names the node wins over `/**`,
            # whichever file comes last, and `launch_ros` writes `/**` or a full name by itself.
            parameters={**implied, **_from_file(values, name), **typed[executable]},
            remappings=remappings,
            log_level=values["log_level"],
            environment=environment,
            required=required,
        )

    distill = values["distill"] == "true"
    follow: dict[str, Value] = {"follow_snapshots": True} if distill else {}
    depth = node(
        "depth_node",
        # A recording is worth every window; a live camera is worth the newest one.
        {"overload": "queue" if from_bag else "latest", "use_sim_time": from_bag, **follow},
        _renamed(topics),
        required=True,
    )
    processes = [depth]
    if distill:
        folder = "/".join(filter(None, [*values["namespace"].split("/"), "distillation"]))
        learner = node(
            "distillation_node",
            {
                "folder": f"~/.ros/dae_ros/{folder}",
                "use_sim_time": depth.parameters["use_sim_time"],
            },
            _renamed({name: topics[name] for name in ("events", "image")}),
        )
        learner = replace(learner, respawn_s=RESPAWN_S)
        processes = (
            [_together(depth, learner)] if values["single_process"] == "true" else [depth, learner]
        )
    truth = values["ground_truth"]
    if truth:
        processes.append(node("gt_node", {}, (("ground_truth", published.get(truth, truth)),)))
    # What the nodes subscribe, of what the source publishes, so that they lose nothing.
    taken = ["events"] if depth.parameters.get("calibration") else ["events", "camera_info"]
    if depth.parameters.get("window") == "frame":
        taken.append("image")
    # Whoever of the two were not waited for would lose the beginning of what both take.
    counts = Counter(chosen[name] for name in [*taken, *(["events", "image"] if distill else [])])
    counts[truth] += 1
    awaited = [
        f"{topic}:{count}" if count > 1 else topic
        for topic, count in counts.items()
        if topic in published
    ]
    implied: dict[str, Value] = {
        "wait_timeout_s": SOURCE_WAIT_S,
        "wait_topics": ",".join(awaited),
    }
    if from_bag:
        processes.append(node("replay_node", implied, _renamed(published)))
    elif values["source"] == "simulator":
        implied["publish_clock"] = depth.parameters["use_sim_time"]
        processes.append(node("simulator_node", implied))
    if values["rviz"] == "true":
        processes.append(_rviz(values, topics, depth.parameters["use_sim_time"]))
    return processes


def distillation_plan(arguments: Mapping[str, str]) -> list[Process]:
    """Return the one process of `distillation.launch.py`: the learner of a depth node elsewhere.

    Args:
        arguments: values by name of `ARGUMENTS` but `DISTILLATION_ALONE`.

    Raises:
        ConfigurationError: see `launch_plan`, and for an argument that belongs to depth.
    """
    foreign = sorted(DISTILLATION_ALONE.intersection(arguments))
    if foreign:
        raise ConfigurationError(
            f"{', '.join(foreign)} belong to depth.launch.py: distillation.launch.py starts the "
            "learner alone, beside a depth node that runs with follow_snapshots",
            arguments=foreign,
        )
    plan = launch_plan({**arguments, "distill": "true"})
    (learner,) = (process for process in plan if process.executable == "distillation_node")
    return [learner]


def recorder(output: str, topics: tuple[str, ...], *, namespace: str = "") -> Process:
    """Return the process that records topics into a rosbag2.

    Args:
        output: folder to write, which must not exist.
        topics: names, relative ones below `namespace`.
        namespace: of the node.
    """
    return Process(
        "dae_ros",
        "recorder_node",
        "recorder",
        namespace,
        parameters={"output": output, "topics": ",".join(topics)},
        environment=transport_environment(),
    )


def _together(depth: Process, learner: Process) -> Process:
    """Return one process with both nodes; what they subscribe has the same names."""
    return replace(
        depth,
        executable="depth_distillation_node",
        name="depth_distillation",
        parameters={},
        nodes={depth.name: depth.parameters, learner.name: learner.parameters},
    )


def _node_parameters(
    executable: str, values: Mapping[str, str], problems: list[str]
) -> dict[str, Value]:
    """Return the typed parameters that launch arguments set for one node."""
    kind: type[NodeParameters] = NODES[executable]
    declared = declarations(kind)
    result: dict[str, Value] = {}
    for argument in ARGUMENTS:
        for node, name in argument.parameter:
            text = values[argument.name]
            if node != executable or text == "":
                continue
            default = declared[name][0]
            try:
                result[name] = text == "true" if isinstance(default, bool) else type(default)(text)
            except ValueError:
                problems.append(f"'{argument.name}' must be a number, not '{text}'")
    return result


def _renamed(topics: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the remappings that turn each name into the other, without those that are equal."""
    return tuple((name, other) for name, other in topics.items() if name != other)


def _topics(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the depth node's inputs and what the source publishes.

    Returns:
        name in the node -> topic by the source's own name;
        the source's own name -> topic in this launch, which is below the namespace. Recorded
        names are absolute, so that without this two replays would mix their cameras.
    """
    names = ("events", "image", "camera_info")
    found: dict[str, str] = {}
    published: dict[str, str] = {}
    if values["source"] == "bag":
        found, recorded = _recorded_topics(values)
        published = {topic: _in_namespace(values, topic) for topic in recorded}
    elif values["source"] == "simulator":
        found, published = {"image": "image_raw"}, {topic: topic for topic in SIMULATED}
    else:
        from dae_ros.bags.topics import camera_info_beside

        found = {"camera_info": camera_info_beside(values["events"])}
    return {name: values[name] or found.get(name, name) for name in names}, published


def _full_name(values: Mapping[str, str], name: str) -> str:
    """Return a relative name with the launch's namespace, from the root."""
    return "/".join(["", *filter(None, values["namespace"].split("/")), name])


def _from_file(values: Mapping[str, str], node: str) -> dict[str, Value]:
    """Return what the user's file says to one node of this launch."""
    if not values["params_file"]:
        return {}
    return read_parameters_of(named_path(values["params_file"]), _full_name(values, node))


def _rviz(values: Mapping[str, str], topics: Mapping[str, str], sim_time: Value) -> Process:
    """Return RViz with the displays of config/depth.rviz on this launch's topics."""
    prefix = f"/{values['namespace'].strip('/')}" if values["namespace"] else ""
    shown = [
        "depth/image",
        "depth/relative",
        "depth/color",
        "events/image",
        "distill/pseudo_label",
    ]
    remappings = [(f"/{name}", f"{prefix}/{name}") for name in shown if prefix]
    image = topics["image"]
    image = image if image.startswith("/") else f"{prefix}/{image}"
    if image != "/image":
        remappings.append(("/image", image))
    return Process(
        "rviz2",
        "rviz2",
        "rviz",
        parameters={"use_sim_time": sim_time},
        remappings=tuple(remappings),
        arguments=("-d", str(share_folder() / "config" / "depth.rviz")),
        environment=transport_environment(),
    )


def _in_namespace(values: Mapping[str, str], topic: str) -> str:
    """Return where a recorded topic is replayed; the clock is that of all nodes."""
    if topic == "/clock" or not values["namespace"]:
        return topic
    return _full_name(values, topic.removeprefix("/"))


def _recorded_topics(values: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the topics that the depth node listens to by input name, and all that is replayed.

    Raises:
        RecordingError: it cannot be read, or has no events topic where none is given.
    """
    from dae_ros.bags.recording import open_recording
    from dae_ros.bags.topics import (
        camera_info_beside,
        choose_camera_info_topic,
        choose_events_topic,
        choose_image_topic,
    )

    with open_recording(named_path(values["bag"])) as recording:
        topics = recording.topics
    events = choose_events_topic(topics, values["events"] or None)
    calibrated = camera_info_beside(events) if values["calibration"] else None
    found = {
        "events": events,
        "image": choose_image_topic(topics, events),
        "camera_info": calibrated or choose_camera_info_topic(topics, events),
    }
    chosen = {name: topic for name, topic in found.items() if topic is not None}
    return chosen, sorted({*topics, *chosen.values()})
