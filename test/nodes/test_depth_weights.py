"""New weights in a running depth node, over real DDS: taken, refused, taken back; depth goes on."""

from __future__ import annotations

import copy
import dataclasses
import threading
import time

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dae_ros.errors import ConfigurationError, NonFiniteState
from dae_ros.events.cdr import write_packet
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.nodes.depth_worker import DepthWorker
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.backends import follow_weights
from dae_ros.runtime.torch_estimator import TorchEstimator
from test.reference.followed_weights import SUCCESS, Follower
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.reloadable_estimator import ReloadableEstimator, announced


def test_a_new_version_is_seen_in_the_depth_stream_and_no_window_is_lost(
    graph, depth, camera, trainer
):
    """Announced, replayed, in use, kept; each image names its weights; the state is rebuilt."""
    follower = Follower(graph, depth, camera)
    follower.run(12)
    announcement = trainer.make()
    trainer.announce(announcement)
    swapped = follower.until_verdict("swapped", 1)
    kept = follower.until_verdict("kept", 1)
    follower.run(2)
    follower.check_no_window_is_missing()
    assert swapped["live_sha256"] == kept["sha256"] == announcement.sha256
    values = [follower.values(index) for index in range(len(follower.statuses))]
    versions = [int(one["weight_version"]) for one in values]
    change = versions.index(1)
    assert versions == [0] * change + [1] * (len(versions) - change)
    assert values[change]["sha256"] == announcement.sha256
    # Eight windows replayed, and this one.
    assert (values[change - 1]["state_age"], values[change]["state_age"]) == (str(change), "9")
    assert {one["warming"] for one in values} == {"false"}
    last = follower.statuses[-1].status[1]
    assert last.name == "weights"
    assert {item.key: item.value for item in last.values}["verdict"] == "kept"


def test_bad_announcements_change_nothing_but_diagnostics(
    graph, depth, camera, trainer, tmp_path, capfd
):
    """No JSON, a truncated file, another digest, another network, a lower version: all refused."""
    follower = Follower(graph, depth, camera)
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    good = trainer.make()
    trainer.announce(good)
    follower.until_verdict("kept", 1)
    trainer.announcements.publish(String(data="no json"))
    cut = trainer.make(seed=4)
    cut.path.write_bytes(cut.path.read_bytes()[:-100])
    other = tmp_path / "other.safetensors"
    micro = untrained("micro")
    digest = save_checkpoint(other, micro.network, micro.meaning)
    network = Announcement(7, other, digest, other.stat().st_size)
    wrong = dataclasses.replace(good, version=8, sha256="0" * 64)
    lower = dataclasses.replace(trainer.make(seed=5), version=1)
    for announcement, code in (
        (dataclasses.replace(cut, size=cut.size - 100), "sha256"),
        (network, "other_network"),
        (wrong, "sha256"),
        (lower, "downgraded"),
    ):
        before = len(follower.verdicts)
        trainer.announce(announcement)
        while len(follower.verdicts) == before:
            follower.run(1)
        found = follower.verdicts[-1]
        assert (found["verdict"], found["code"]) == ("refused", code)
        assert (found["live_version"], found["live_sha256"]) == (1, good.sha256)
    follower.run(2)
    follower.check_no_window_is_missing()
    assert follower.values(-1)["weight_version"] == "1"
    assert "no announcement of weights" in capfd.readouterr().err

    def report():
        found = [s for r in reports for s in r.status if s.name.endswith(": weights")]
        return {item.key: item.value for item in found[-1].values} if found else {}

    graph.until(lambda: report().get("verdict.refused.downgraded") == "1")
    assert report()["verdict.refused.sha256"] == "2"
    assert (report()["malformed"], report()["phase"]) == ("1", "steady")


def test_weights_that_give_nan_are_never_used(graph, depth, camera, trainer):
    """Finite weights whose output is not: the rehearsal finds out, and depth stays finite."""
    follower = Follower(graph, depth, camera)
    follower.run(12)
    announcement = trainer.store.publish(write_overflowing, step=0, score=1.0).announcement
    trainer.announce(announcement)
    refused = follower.until_verdict("refused", 1)
    assert refused["code"] == "not_finite"
    trainer.announce(announcement)
    while follower.verdicts[-1]["code"] != "blacklisted":
        follower.run(1)
    follower.check_no_window_is_missing()
    assert {follower.values(i)["weight_version"] for i in range(len(follower.statuses))} == {"0"}
    assert follower.node._worker.snapshot.pipeline.resets == {}


def write_overflowing(path):
    """Write finite weights that overflow in float32."""
    tiny = untrained("tiny")
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1e12
    save_checkpoint(path, network, tiny.meaning)


def test_weights_that_turn_bad_in_use_are_taken_back_without_a_lost_window(
    graph, depth, camera, trainer, monkeypatch
):
    """NaN on probation: the same window comes from the weights of before, which stay."""
    follower = Follower(graph, depth, camera, canary_windows=1000)
    follower.run(10)
    trainer.announce(trainer.make())
    follower.until_verdict("swapped", 1)
    follower.run(3)
    step, bad = TorchEstimator.estimate, threading.Event()

    def failing(self, image):
        if self.weight_version == 1 and bad.is_set():
            raise NonFiniteState("NaN")
        return step(self, image)

    monkeypatch.setattr(TorchEstimator, "estimate", failing)
    bad.set()
    found = follower.until_verdict("rolled_back", 1)
    follower.run(3)
    assert (found["code"], found["live_version"]) == ("not_finite", 0)
    follower.check_no_window_is_missing()
    versions = [follower.values(i)["weight_version"] for i in range(len(follower.statuses))]
    assert "".join(versions).strip("0").strip("1") == ""
    assert versions[-1] == "0"
    # Never since the state was last zero.
    ages = [int(follower.values(i)["state_age"]) for i in range(len(follower.statuses))]
    assert ages[-1] == len(ages)


def test_a_rollback_by_service(graph, depth, camera, trainer):
    """The service says what it does, or why not; the weights of before come back, replayed."""
    follower = Follower(graph, depth, camera)
    client = graph.peer.create_client(Trigger, "/depth/rollback")
    answer = graph.call(client, Trigger.Request())
    assert not answer.success
    assert "no weights before version 0" in answer.message
    follower.run(10)
    trainer.announce(trainer.make())
    follower.until_verdict("kept", 1)
    answer = graph.call(client, Trigger.Request())
    assert answer.success
    assert "before version 1" in answer.message
    found = follower.until_verdict("rolled_back", 1)
    assert (found["code"], found["live_version"]) == ("requested", 0)
    follower.run(2)
    follower.check_no_window_is_missing()
    assert follower.values(-1)["weight_version"] == "0"


def test_weights_come_in_pieces_where_the_disk_is_not_shared(graph, depth, camera, trainer):
    """A path of another machine: the announced file is put together from its pieces."""
    follower = Follower(graph, depth, camera)
    follower.run(10)
    made = trainer.make()
    trainer.announce(dataclasses.replace(made, path="/elsewhere/w_000001.safetensors"))
    follower.run(2)
    assert follower.values(-1)["weight_version"] == "0"
    trainer.send(made, label="nonsense")
    trainer.send(made)
    swapped = follower.until_verdict("swapped", 1)
    assert swapped["live_sha256"] == made.sha256
    assert follower.node._weights.malformed == 1
    folder = follower.node._weights._receiver._folder
    assert folder.is_dir()
    assert follower.node.trigger_deactivate() == SUCCESS
    assert not folder.exists()


def test_weights_are_followed_only_where_it_is_asked_for(graph, depth, trainer):
    """By default nothing is subscribed, and the service says so."""
    node = depth(overload="queue")
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    trainer.announce(trainer.make())
    graph.spin(0.5)
    assert trainer.announcements.get_subscription_count() == 0
    client = graph.peer.create_client(Trigger, "/depth/rollback")
    answer = graph.call(client, Trigger.Request())
    assert not answer.success
    assert "follow_snapshots" in answer.message


def test_what_cannot_be_followed_is_refused_with_a_sentence():
    """A folder without the switch, and a backend that holds one set of weights only."""
    with pytest.raises(ConfigurationError, match="without 'follow_snapshots'"):
        DepthParameters.from_mapping({"snapshots": "/weights"})
    with pytest.raises(ConfigurationError, match="cannot change its weights"):
        follow_weights(LeakyEstimator(), DepthParameters(follow_snapshots=True), print)


def test_a_live_camera_leaves_idle_time_for_the_replay(camera, tmp_path):
    """With the policy for live cameras the worker replays between packets, and then changes."""
    verdicts, versions = [], []
    parameters = DepthParameters(
        window_s=0.04,
        hop_s=0.04,
        orientation="depth",
        follow_snapshots=True,
        canary_windows=8,
        canary_latency=1e6,
    )
    worker = DepthWorker(
        parameters,
        publish=lambda frame: versions.append(frame.weight_version),
        warn=print,
        failed=print,
        judged=verdicts.append,
        load=lambda _: ReloadableEstimator(),
    )
    worker.start()
    said = False
    try:
        deadline_s = time.monotonic() + 120.0
        while len(verdicts) < 2 and time.monotonic() < deadline_s:
            worker.put_events(write_packet(camera.packet()), "event_camera_msgs/msg/EventPacket")
            if len(versions) >= 20 and not said:
                worker.put_command(announced(tmp_path, 1, gain=1.1))
                said = True
            time.sleep(0.005)
    finally:
        assert worker.stop(120.0)
    assert [(v.outcome, v.code) for v in verdicts] == [("swapped", "replayed"), ("kept", "canary")]
    assert verdicts[0].numbers["replayed"] >= 16
    # Compared with the weights of before, in idle time as well.
    assert verdicts[1].numbers["pairs"] >= 8
    assert versions == sorted(versions)
