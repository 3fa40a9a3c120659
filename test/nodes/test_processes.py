"""The table of processes, and what the launch files make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError
from dae_ros.events.cdr import write_packet
from dae_ros.installation import share_folder
from dae_ros.nodes.launch_arguments import ARGUMENTS, arguments_of_command
from dae_ros.nodes.process_harness import ProcessHarness
from dae_ros.nodes.processes import (
    DEMO_DEFAULTS,
    Process,
    launch_plan,
    transport_environment,
)
from dae_ros.nodes.qos import message_class
from dae_ros.parameters import NODES, declarations


def names(processes: list[Process]) -> list[str]:
    return [process.name for process in processes]


def test_a_live_topic_needs_one_process() -> None:
    """Without arguments the depth node alone is started, on its own topic names."""
    (depth,) = launch_plan({})
    assert (depth.package, depth.executable, depth.name) == ("dae_ros", "depth_node", "depth")
    assert depth.remappings == ()
    assert depth.parameters == {"use_sim_time": False, "overload": "latest"}
    assert depth.required


def test_arguments_become_typed_parameters_and_remappings() -> None:
    """Texts become the types of the parameter dataclass; topic arguments become remappings."""
    (depth,) = launch_plan(
        {
            "events": "/davis/left/events",
            "camera_info": "/davis/left/camera_info",
            "scale": "2",
            "shift": "-0.5",
            "autostart": "false",
            "weights": "vits.safetensors",
            "namespace": "front",
            "log_level": "debug",
            "use_sim_time": "true",
        }
    )
    assert depth.parameters == {
        "weights": "vits.safetensors",
        "scale": 2.0,
        "shift": -0.5,
        "autostart": False,
        "use_sim_time": True,
        "overload": "latest",
    }
    assert type(depth.parameters["scale"]) is float
    assert depth.remappings == (
        ("events", "/davis/left/events"),
        ("camera_info", "/davis/left/camera_info"),
    )
    assert (depth.namespace, depth.log_level) == ("front", "debug")


@pytest.mark.parametrize(
    ("events", "camera_info"),
    [
        ("/event_camera/events", "/event_camera/camera_info"),
        ("left/events", "left/camera_info"),
        ("/spikes", "/camera_info"),
        ("spikes", None),
        ("", None),
    ],
)
def test_the_calibration_of_a_live_camera_is_looked_for_beside_its_events(
    events: str, camera_info: str | None
) -> None:
    """As in a recording: in the namespace of the events, relative where they are."""
    (depth,) = launch_plan({"events": events})
    assert dict(depth.remappings).get("camera_info") == camera_info


def test_a_calibration_file_of_a_live_camera_goes_to_the_depth_node() -> None:
    """Event camera drivers publish no camera_info: the node reads the file itself."""
    (depth,) = launch_plan({"calibration": "chain.yaml", "events": "/event_camera/events"})
    assert depth.parameters["calibration"] == "chain.yaml"


def test_nobody_waits_for_a_camera_info_that_the_depth_node_does_not_subscribe(
    tmp_path: Path,
) -> None:
    """A parameter file gives it a calibration: the source waits for its events alone."""
    file = tmp_path / "depth.yaml"
    file.write_text("/**/depth:\n  ros__parameters:\n    calibration: a.yaml\n", encoding="utf-8")
    _, simulator = launch_plan({"source": "simulator", "params_file": str(file)})
    assert simulator.parameters["wait_topics"] == "events"


def test_the_simulator_feeds_the_depth_node() -> None:
    """The simulator is started after the node that listens, and frames come from its topic."""
    depth, simulator = launch_plan({"source": "simulator", "rate": "0.25"})
    assert (depth.name, simulator.executable) == ("depth", "simulator_node")
    assert simulator.parameters["rate"] == 0.25
    assert simulator.parameters["wait_timeout_s"] >= 60.0, "compiling takes a while"
    assert simulator.parameters["wait_topics"] == "events,camera_info"
    assert depth.remappings == (("image", "image_raw"),)


def test_who_follows_simulated_time_gets_it() -> None:
    """Without a clock ROS time would stay 0; a parameter file still has the last word."""
    assert launch_plan({"source": "simulator"})[1].parameters["publish_clock"] is False
    simulator = launch_plan({"source": "simulator", "use_sim_time": "true"})[1]
    assert simulator.parameters["publish_clock"] is True


@pytest.mark.parametrize(
    ("arguments", "window", "topics"),
    [
        ({}, "time", "/dvs/events"),
        ({}, "frame", "/dvs/events,/dvs/image_raw"),
        ({"calibration": "chain.yaml"}, "time", "/dvs/events,/dvs/camera_info"),
        ({"image": "/elsewhere"}, "frame", "/dvs/events"),
    ],
)
def test_a_replay_waits_for_all_that_the_depth_node_takes(
    tmp_path: Path, arguments: dict[str, str], window: str, topics: str
) -> None:
    """Events and calibration always, frames where the parameter file asks for their windows."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/dvs/events", EVENT_PACKET)
        bag.add_topic("/dvs/image_raw", IMAGE)
    file = tmp_path / "depth.yaml"
    file.write_text(f"/**/depth:\n  ros__parameters:\n    window: {window}\n", encoding="utf-8")
    given = {"source": "bag", "bag": str(tmp_path / "bag"), "params_file": str(file), **arguments}
    depth, replay = launch_plan(given)
    assert replay.parameters["wait_topics"] == topics
    if "calibration" in arguments:
        assert replay.parameters["calibration"] == "chain.yaml"
        assert "calibration" not in depth.parameters
        assert dict(depth.remappings)["camera_info"] == "/dvs/camera_info"


def test_a_tilde_in_a_launch_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell expands it behind `bag:=` and `params_file:=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/dvs/events", EVENT_PACKET)
    file = tmp_path / "depth.yaml"
    file.write_text("/**/depth:\n  ros__parameters:\n    hop_s: 0.1\n", encoding="utf-8")
    given = {"source": "bag", "bag": "~/bag", "params_file": "~/depth.yaml"}
    assert launch_plan(given)[0].parameters["hop_s"] == 0.1


def test_a_namespace_separates_the_topics_of_a_bag(graph: Any, camera: Any, tmp_path: Path) -> None:
    """A replay publishes below the namespace, where the depth node listens; /clock is for all."""
    with BagWriter(tmp_path / "bag") as bag:
        for name, kind in (("events", EVENT_PACKET), ("image_raw", IMAGE)):
            bag.add_topic(f"/dvs/{name}", kind)
        bag.add_topic("/clock", "rosgraph_msgs/msg/Clock")
        bag.write("/dvs/events", EVENT_PACKET, 1_000_000_000, write_packet(camera.packet()))
    given = {"source": "bag", "bag": str(tmp_path / "bag"), "ground_truth": "/dvs/image_raw"}
    depth, truth, replay = launch_plan({**given, "namespace": "/robot/cam0"})
    assert dict(depth.remappings) == {
        "events": "/robot/cam0/dvs/events",
        "image": "/robot/cam0/dvs/image_raw",
    }
    assert truth.remappings == (("ground_truth", "/robot/cam0/dvs/image_raw"),)
    assert replay.remappings == (
        ("/dvs/events", "/robot/cam0/dvs/events"),
        ("/dvs/image_raw", "/robot/cam0/dvs/image_raw"),
    )
    assert replay.parameters["wait_topics"] == "/dvs/events,/dvs/image_raw"
    assert launch_plan(given)[2].remappings == ()
    received = graph.listen(message_class(EVENT_PACKET), "/robot/cam0/dvs/events")
    graph.listen(message_class(IMAGE), "/robot/cam0/dvs/image_raw")
    with ProcessHarness([replay]) as processes:
        graph.until(lambda: received or processes["replay"].exit_code is not None)
        names = {name for name, _ in graph.peer.get_topic_names_and_types()}
        assert processes["replay"].wait(120.0) == 0, processes["replay"].output
    assert len(received) == 1
    assert "/dvs/events" not in names


def test_rviz_follows_the_namespace() -> None:
    """RViz gets the shipped configuration, with its topics remapped into the namespace."""
    plan = launch_plan({"rviz": "true", "namespace": "/cam0", "image": "/gray"})
    rviz = plan[-1]
    assert names(plan) == ["depth", "rviz"]
    assert rviz.arguments == ("-d", str(share_folder() / "config" / "depth.rviz"))
    assert dict(rviz.remappings) == {
        "/depth/image": "/cam0/depth/image",
        "/depth/relative": "/cam0/depth/relative",
        "/depth/color": "/cam0/depth/color",
        "/events/image": "/cam0/events/image",
        "/distill/pseudo_label": "/cam0/distill/pseudo_label",
        "/image": "/gray",
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sorce": "bag"}, "there is no launch argument 'sorce'"),
        ({"source": "usb"}, "'source' must be one of topic, bag, simulator, not 'usb'"),
        ({"source": "bag"}, "source:=bag needs a recording: add bag:=PATH"),
        ({"bag": "x.bag"}, "bag is given, but source is 'topic': add source:=bag"),
        ({"source": "simulator", "loop": "true"}, "'loop' belongs to source:=bag"),
        (
            {"calibration": "chain.yaml", "source": "simulator"},
            "'calibration' belongs to a live topic or a bag",
        ),
        (
            {"calibration": "chain.yaml", "camera_info": "/left/camera_info"},
            "'calibration' takes the place of 'camera_info'",
        ),
        (
            {
                "source": "bag",
                "bag": "x.bag",
                "calibration": "chain.yaml",
                "camera_info": "/left/camera_info",
            },
            "'calibration' takes the place of 'camera_info'",
        ),
        (
            {"source": "simulator", "events": "/dvs/events"},
            "'events' belongs to a live topic or a bag: the simulator publishes 'events'",
        ),
        ({"rate": "2"}, "'rate' belongs to source:=bag or source:=simulator"),
        ({"scale": "two"}, "'scale' must be a number, not 'two'"),
        ({"rviz": "yes"}, "'rviz' must be one of true, false, not 'yes'"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(
    arguments: dict[str, str], sentence: str
) -> None:
    """Each wrong argument, or pair of them, is refused and says what to change."""
    with pytest.raises(ConfigurationError, match=sentence.split(",", maxsplit=1)[0]) as caught:
        launch_plan(arguments)
    assert sentence in str(caught.value)


def test_arguments_typed_for_another_launch_file_are_its_own() -> None:
    """Of our own launch files every typed name counts, of one that includes ours none."""
    typed = ["sorce:=bag", "--debug", "bag:=/a:=b/depth.launch.py"]
    for named in (["dae_ros", "depth.launch.py"], ["/opt/share/dae_ros/launch/demo.launch.py"]):
        assert arguments_of_command(["/usr/bin/ros2", "launch", *named, *typed]) == {
            "sorce": "bag",
            "bag": "/a:=b/depth.launch.py",
        }
    assert arguments_of_command(["ros2", "launch", "mine", "robot.launch.py", *typed]) == {}


def test_every_parameter_of_the_table_exists() -> None:
    """Each node parameter that an argument sets is declared, with the same choices."""
    for argument in ARGUMENTS:
        for node, name in argument.parameter:
            _, declared = declarations(NODES[node])[name]
            if declared.choices:
                assert set(argument.choices) - {""} == set(declared.choices), argument.name
    assert set(DEMO_DEFAULTS) <= {argument.name for argument in ARGUMENTS}


def test_the_demo_compares_with_the_exact_depth() -> None:
    """demo.launch.py starts depth, gt and simulator, whose exact depth gt takes from the start."""
    depth, truth, simulator = launch_plan({}, DEMO_DEFAULTS)
    assert names([depth, truth, simulator]) == ["depth", "gt", "simulator"]
    assert truth.remappings == (("ground_truth", "depth_truth"),)
    # The node's own default: what ships.
    assert "weights" not in depth.parameters
    assert declarations(NODES["depth_node"])["weights"][0] == "micro"
    assert simulator.parameters["wait_topics"] == "events,camera_info,depth_truth"


def test_settings_of_the_user_win_over_the_transport_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Fast DDS profile or malloc setting that is there already is not replaced."""
    for name in (
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
    ):
        monkeypatch.delenv(name, raising=False)
    assert Path(transport_environment()["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/etc/mine.xml")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    assert set(transport_environment()) == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}


def test_rviz_shows_the_topics_of_the_node() -> None:
    """The RViz file loads, uses display classes that exist, and names the published topics."""
    text = (share_folder() / "config" / "depth.rviz").read_text(encoding="utf-8")
    displays = yaml.safe_load(text)["Visualization Manager"]["Displays"]
    assert {display["Class"] for display in displays} == {"rviz_default_plugins/Image"}
    topics = {display["Topic"]["Value"] for display in displays}
    assert topics == {
        "/depth/color", "/events/image", "/image", "/depth/image", "/depth/relative",
        "/distill/pseudo_label",
    }  # fmt: skip
    folder = share_folder() / "dae_ros" / "nodes"
    nodes = [*folder.glob("depth_*.py"), *folder.glob("distillation_*.py")]
    published = "".join(path.read_text(encoding="utf-8") for path in nodes)
    for topic in topics - {"/image"}:
        assert f'"{topic.removeprefix("/")}"' in published, topic


def test_the_launch_files_start_exactly_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the real `launch`, both launch files yield the table's processes and nothing else."""
    launch = pytest.importorskip("launch.actions", reason="launch is not on PyPI")
    launch_ros = pytest.importorskip("launch_ros.actions", reason="launch_ros is not on PyPI")
    from launch import LaunchContext
    from launch.launch_description_sources import (
        get_launch_description_from_python_launch_file as load,
    )

    description = load(str(share_folder() / "launch" / "depth.launch.py"))
    declared = description.get_launch_arguments()
    assert [item.name for item in declared] == [argument.name for argument in ARGUMENTS]
    context = LaunchContext()
    for argument in ARGUMENTS:
        context.launch_configurations[argument.name] = argument.default
    given = {"source": "simulator", "scale": "2.0", "namespace": "cam0", "rviz": "true"}
    context.launch_configurations.update(given)
    (function,) = (e for e in description.entities if isinstance(e, launch.OpaqueFunction))
    actions = function.execute(context)
    plan = launch_plan(given)
    assert all(isinstance(action, launch_ros.Node) for action in actions)
    assert [action.node_executable for action in actions] == [p.executable for p in plan]
    monkeypatch.setattr("sys.argv", ["ros2", "launch", "dae_ros", "depth.launch.py", "sorce:=bag"])
    with pytest.raises(RuntimeError, match="there is no launch argument 'sorce'"):
        function.execute(context)
    demo = load(str(share_folder() / "launch" / "demo.launch.py"))
    assert [a.name for a in demo.get_launch_arguments()] == [
        argument.name for argument in ARGUMENTS
    ]
