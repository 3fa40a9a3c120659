"""Simulator, depth and distillation as the launch starts them: depth gets a better version."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String

from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.nodes.launch_arguments import DISTILLATION_ALONE
from dae_ros.nodes.process_harness import ProcessHarness, ros_arguments
from dae_ros.nodes.processes import RESPAWN_S, distillation_plan, launch_plan
from dae_ros.nodes.qos import latched_qos
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.simulation import Simulation
from test.reference.prepared_learner import prepare, write_files

pytestmark = pytest.mark.ros
# Times of `mono` go on over a restart of the simulator.
SIMULATED = {"height": 36, "width": 48, "encoding": "mono"}
KNOWN_S, RATE = 2.0, 0.25
GIVEN = {"weights": "micro.safetensors", "teacher": "frames.safetensors", "distill": "true"}


def test_distill_starts_a_learner_whose_versions_depth_follows() -> None:
    """Same weights and topics, frames are awaited, and the folder is below the namespace."""
    plan = launch_plan({**GIVEN, "source": "simulator", "namespace": "cam0"})
    depth, learner, simulator = plan
    assert [one.name for one in plan] == ["depth", "distillation", "simulator"]
    assert depth.parameters["follow_snapshots"] is True
    assert learner.parameters == {
        "weights": "micro.safetensors",
        "teacher": "frames.safetensors",
        "folder": "~/.ros/dae_ros/cam0/distillation",
        "use_sim_time": False,
    }
    assert dict(learner.remappings) == {"image": "image_raw"}
    assert simulator.parameters["wait_topics"] == "events:2,camera_info,image_raw"
    assert depth.required and not learner.required
    assert learner.respawn_s == RESPAWN_S
    assert all(one.respawn_s is None for one in (depth, simulator))
    named = launch_plan({**GIVEN, "distill_folder": "here", "anchors": "clips"})[1]
    assert (named.parameters["folder"], named.parameters["anchors"]) == ("here", "clips")


@pytest.mark.parametrize("single_process", ["false", "true"])
@pytest.mark.parametrize(
    ("window", "topics"),
    [("time", "/dvs/events:2,/dvs/image_raw"), ("frame", "/dvs/events:2,/dvs/image_raw:2")],
)
def test_a_replay_waits_for_depth_and_learner(
    tmp_path: Path, window: str, topics: str, single_process: str
) -> None:
    """Two subscribers of what both take: the learner alone would start it without depth."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/dvs/events", EVENT_PACKET)
        bag.add_topic("/dvs/image_raw", IMAGE)
    file = tmp_path / "depth.yaml"
    file.write_text(f"/**/depth:\n  ros__parameters:\n    window: {window}\n", encoding="utf-8")
    given = {**GIVEN, "source": "bag", "bag": str(tmp_path / "bag"), "params_file": str(file)}
    replay = launch_plan({**given, "single_process": single_process})[-1]
    assert replay.name == "replay"
    assert replay.parameters["wait_topics"] == topics


def test_one_process_holds_both_nodes_with_their_own_parameters(tmp_path: Path) -> None:
    """No node is renamed; a section of the file for each."""
    (both,) = launch_plan({**GIVEN, "single_process": "true", "autostart": "false"})
    assert (both.executable, both.name) == ("depth_distillation_node", "depth_distillation")
    assert both.required and both.respawn_s is None
    arguments = ros_arguments(both, tmp_path)
    assert not any(word.startswith("__node") for word in arguments)
    sections = json.loads(Path(arguments[arguments.index("--params-file") + 1]).read_text("utf-8"))
    depth, learner = launch_plan({**GIVEN, "autostart": "false"})
    assert sections == {
        "/**/depth": {"ros__parameters": depth.parameters},
        "/**/distillation": {"ros__parameters": learner.parameters},
    }


def test_the_learner_alone_has_its_own_launch_file() -> None:
    """Beside a depth node elsewhere; arguments of depth are refused, without distill too."""
    (learner,) = distillation_plan({"weights": "a", "teacher": "b", "image": "/grey"})
    assert (learner.executable, learner.respawn_s) == ("distillation_node", RESPAWN_S)
    assert not learner.required, "what comes again ends no launch"
    assert learner.remappings == (("image", "/grey"),)
    with pytest.raises(ConfigurationError, match=r"precision, rviz belong to depth.launch.py"):
        distillation_plan({"rviz": "true", "precision": "float32"})
    with pytest.raises(ConfigurationError, match=r"camera_info belong to depth.launch.py"):
        distillation_plan({"camera_info": "/dvs/camera_info"})
    assert {"weights", "teacher", "events", "image"}.isdisjoint(DISTILLATION_ALONE)
    for name in ("teacher", "anchors", "distill_folder", "single_process"):
        with pytest.raises(ConfigurationError, match=f"'{name}' belongs to distill:=true"):
            launch_plan({name: "true"})


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Parameters, and a folder that knows the beginning of the simulated room."""
    folder = tmp_path_factory.mktemp("deployment")
    simulation = Simulation(SimulatorParameters(**SIMULATED, duration_s=KNOWN_S))
    seen = [item for item in simulation.run() if isinstance(item, (EventPacket, Frame))]
    values = write_files(folder, seen)
    prepare(values, seen, folder / "learned")
    return {**values, "folder": str(folder / "learned")}


@pytest.mark.slow
@pytest.mark.parametrize("single_process", ["false", "true"])
def test_a_better_version_is_seen_in_the_depth_stream(
    graph, deployment, tmp_path, single_process
) -> None:
    """The learner goes on from disk, its error on what was held out falls, and depth names it."""
    folder = shutil.copytree(str(deployment["folder"]), tmp_path / "learned")
    # Beyond the frames that it knows the teacher says the same of all, which is refused.
    own = {**deployment, "degraded_share": 1.0}
    for name in ("folder", "weights", "teacher", "device"):
        del own[name]
    sections = {
        "/**/distillation": own,
        "/**/depth": {
            "threads": 1, "canary_latency": 1e6, "canary_flicker": 100.0, "canary_windows": 8,
            "replay_windows": 4,
        },
        "/**/simulator": {**SIMULATED, "rate": RATE},
    }  # fmt: skip
    file = tmp_path / "robot.yaml"
    content = {name: {"ros__parameters": values} for name, values in sections.items()}
    file.write_text(json.dumps(content), encoding="utf-8")
    plan = launch_plan({
        "source": "simulator", "distill": "true", "single_process": single_process,
        "weights": str(deployment["weights"]), "teacher": str(deployment["teacher"]),
        "distill_folder": str(folder), "device": "cpu", "params_file": str(file),
    })  # fmt: skip
    images = graph.listen(DiagnosticArray, "depth/status")
    verdicts: list[dict[str, object]] = []
    graph.peer.create_subscription(
        String,
        "distill/verdict",
        lambda message: verdicts.append(json.loads(message.data)),
        latched_qos(10),
    )

    def version() -> int:
        if not images:
            return 0
        return int({i.key: i.value for i in images[-1].status[0].values}["weight_version"])

    with ProcessHarness(plan, stop_timeout_s=20.0) as processes:
        deadline_s = time.monotonic() + 120.0
        while version() <= 1 and time.monotonic() < deadline_s:
            graph.spin(0.1)
        output = "\n".join(one.output for one in processes.running.values())
        assert version() > 1, output
        codes = processes.stop()
    assert set(codes.values()) == {0}, codes
    assert "Traceback" not in output
    accepted = next(one for one in verdicts if one["accepted"])
    numbers = accepted["numbers"]
    assert isinstance(numbers, dict)
    assert numbers["heldout_metric_abs_rel_candidate"] < numbers["heldout_metric_abs_rel_published"]
