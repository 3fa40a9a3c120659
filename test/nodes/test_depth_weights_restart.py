"""Weights of a depth node that begins again or pauses: from the folder, and as they were kept."""

from __future__ import annotations

import tempfile

from test.reference.followed_weights import SUCCESS, Follower


def test_a_restarted_node_begins_with_the_latest_version_of_the_folder(
    graph, depth, camera, trainer
):
    """Without a trainer that announces, the folder's latest whole version is taken."""
    trainer.make(seed=4)
    latest = trainer.make(seed=5)
    follower = Follower(graph, depth, camera, snapshots=str(trainer.store.folder))
    found = follower.until_verdict("swapped", 2)
    assert found["live_sha256"] == latest.sha256
    follower.run(1)
    follower.check_no_window_is_missing()


def test_a_node_without_room_for_temporary_files_begins(
    graph, depth, camera, trainer, capfd, tmp_path, monkeypatch
):
    """As where the disk is full: the trainer's folder is taken from, and pieces are refused."""
    (tmp_path / "file").write_text("")
    latest = trainer.make()
    # pytest captures into temporary files of its own before and after.
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", str(tmp_path / "file"))
        follower = Follower(graph, depth, camera, snapshots=str(trainer.store.folder))
        assert follower.until_verdict("swapped", 1)["live_sha256"] == latest.sha256
        trainer.send(latest)
        graph.until(lambda: "a folder for temporary files" in capfd.readouterr().err)
        follower.run(1)
        follower.check_no_window_is_missing()


def test_a_folder_that_cannot_be_trusted_is_told_and_depth_begins(
    graph, depth, camera, trainer, capfd
):
    """A damaged list of versions that were taken back: the original weights go on."""
    trainer.make()
    (trainer.store.folder / "WITHDRAWN.json").write_text("", encoding="utf-8")
    follower = Follower(graph, depth, camera, snapshots=str(trainer.store.folder))
    follower.run(2)
    assert "WITHDRAWN.json cannot be read" in capfd.readouterr().err
    assert [(one["verdict"], one["code"]) for one in follower.verdicts] == [("kept", "start")]


def test_a_restarted_node_keeps_what_it_had_kept_however_far_it_lies(graph, depth, camera, trainer):
    """Small steps may lead further from the original than one step may; a restart is no harm."""
    far = {"snapshots": str(trainer.store.folder), "canary_scale_step": 1e-3}
    trainer.make(share=0.5)
    stranger = Follower(graph, depth, camera, **far)
    while stranger.verdicts[-1]["code"] != "scale_step":
        stranger.run(1)
    graph.remove(stranger.node)
    trainer.store.confirm(trainer.store.latest())
    follower = Follower(graph, depth, camera, **far)
    assert follower.until_verdict("kept", 1)["code"] == "canary"
    follower.check_no_window_is_missing()


def test_a_restarted_node_falls_back_to_what_it_had_kept(graph, depth, camera, trainer):
    """Where nobody had watched the folder's latest, and it is refused; no trainer is needed."""
    trainer.make(share=0.5)
    kept = trainer.store.confirm(trainer.store.latest())
    trainer.make(share=0.6, seed=4)
    far = {"snapshots": str(trainer.store.folder), "canary_scale_step": 1e-3}
    follower = Follower(graph, depth, camera, **far)
    found = follower.until_verdict("kept", 1)
    assert (found["code"], found["live_sha256"]) == ("canary", kept.sha256)
    said = [(one["version"], one["code"]) for one in follower.verdicts]
    assert said[-3:] == [(2, "scale_step"), (1, "replayed"), (1, "canary")]
    follower.check_no_window_is_missing()


def test_what_a_canary_kept_is_said_again_after_a_pause(graph, depth, camera, trainer):
    """A trainer that was away hears it; what is on probation still has no such answer."""
    follower = Follower(graph, depth, camera)
    follower.run(10)
    trainer.announce(trainer.make())
    kept = follower.until_verdict("kept", 1)
    for _ in range(2):
        before = len(follower.verdicts)
        assert follower.node.trigger_deactivate() == SUCCESS
        assert follower.node.trigger_activate() == SUCCESS
        graph.until(lambda before=before: len(follower.verdicts) > before)
        assert follower.verdicts[-1] == kept


def test_a_pause_keeps_what_was_announced(graph, depth, camera, trainer):
    """Weights announced right before a pause are in use after it."""
    follower = Follower(graph, depth, camera)
    follower.run(10)
    follower.node._worker.put_command(trainer.make())
    assert follower.node.trigger_deactivate() == SUCCESS
    assert follower.node.trigger_activate() == SUCCESS
    graph.until(lambda: follower.publisher.get_subscription_count() == 1)
    assert follower.until_verdict("swapped", 1)
