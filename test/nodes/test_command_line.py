"""What a node answers to --help and to arguments that ROS itself would ignore."""

from __future__ import annotations

import importlib
import itertools
import re
import subprocess
import sys

import pytest
from rclpy.context import Context

from dae_ros.model.manifest import read_manifest
from dae_ros.nodes.command_line import answer
from dae_ros.parameters import NODES, declarations


@pytest.fixture(params=NODES)
def node(request):
    """The module of each node."""
    return importlib.import_module(f"dae_ros.nodes.{request.param}")


def test_help_lists_every_parameter_and_starts_nothing(node, capsys, monkeypatch):
    """--help ends with 0 before rclpy is touched, and names all parameters with examples."""
    monkeypatch.setattr("rclpy.init", None)
    for arguments in (["--help"], ["-h"], ["--ros-args", "-p", "x:=1", "--", "--help"]):
        assert node.main(arguments) == 0
    text = capsys.readouterr().out
    name = node.USAGE.node
    assert node.__name__.endswith(f".{name}")
    for parameter in declarations(NODES[name]):
        assert f"\n  {parameter}:=" in text
    assert text.count(f"\n  ros2 run dae_ros {name} --ros-args ") >= 2 * 3


def test_examples_name_parameters_that_exist(node):
    """Each -p of an example, and the parameter of the refusal, is one of the node's."""
    known = declarations(NODES[node.USAGE.node])
    assert node.USAGE.main in known
    for example in node.USAGE.examples:
        words = example.split("    ")[0].split()
        for flag, value in itertools.pairwise(words):
            if flag == "-p":
                assert value.partition(":=")[0] in known


def test_weights_of_examples_are_there_or_paths_to_fill_in(node):
    """An example runs as it stands, or shows that a file of the reader's belongs there."""
    names = {entry.name for entry in read_manifest().entries}
    for example in node.USAGE.examples:
        for weights in re.findall(r"(?:weights|teacher):=(\S+)", example):
            assert weights in names or weights.startswith("path/to/")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("x.bag", "'x.bag'; use --ros-args -p bag:=x.bag"),
        ("bag:=x.bag", "stand behind --ros-args"),
        ("--loop", "--help shows what there is"),
    ],
)
def test_other_arguments_are_refused(capsys, argument, text):
    """A bare argument is wrong usage, exit code 2, with what was probably meant."""
    replay = importlib.import_module("dae_ros.nodes.replay_node")
    assert replay.main([argument, "--ros-args", "-p", "rate:=2.0"]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "argument", "meant"),
    [
        (["-p", "weights:=..."], "'-p weights:=...'", "'...' in an example stands for a path"),
        (["-r", "events:=..."], "'-r events:=...'", "'...' in an example stands for a path"),
        (["-p", "weights:=a: b"], "'-p weights:=a: b'", "-p \"weights:='a: b'\""),
        (["-p", "weights:="], "'-p weights:='", "-p \"weights:=''\""),
        (["-p", "rate=0.5"], "'-p rate=0.5'", "NAME:=VALUE: -p rate:=0.5"),
        (["-r", "events=/a"], "'-r events=/a'", "FROM:=TO: -r events:=/a"),
        (["-r", "events:=/a//b"], "'-r events:=/a//b'", "names are FROM:=TO"),
        (["--params-file", "no.yaml"], "'--params-file no.yaml'", "there is no file no.yaml"),
        (["--log-level", "loud"], "'--log-level loud'", "--help shows examples"),
        (["--speed", "2"], "'--speed'", "--help shows examples"),
        (["-p"], "trailing -p flag", "see what stands behind --ros-args"),
    ],
)
def test_arguments_that_ros_cannot_read_are_named(arguments, argument, meant):
    """What real rclpy says about them becomes the argument and how to write it."""
    with pytest.raises(RuntimeError) as caught:
        Context().init(args=["--ros-args", *arguments])
    usage = importlib.import_module("dae_ros.nodes.recorder_node").USAGE
    sentence = usage.unreadable(str(caught.value))
    assert sentence.startswith("recorder_node ")
    assert argument in sentence
    assert meant in sentence
    assert "/src/" not in sentence


def test_a_process_with_such_an_argument_ends_as_wrong_usage(capfd):
    """Exit code 2 and the sentence last, no traceback."""
    command = [
        sys.executable,
        "-m",
        "dae_ros.nodes.recorder_node",
        "--ros-args",
        "-p",
        "output:=...",
    ]
    assert subprocess.run(command, check=False, timeout=800).returncode == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("recorder_node cannot read the argument '-p output")


def test_arguments_for_ros_start_the_node():
    """What launch passes is no wrong usage."""
    usage = importlib.import_module("dae_ros.nodes.replay_node").USAGE
    assert answer(usage, []) is None
    assert answer(usage, ["--ros-args", "-r", "__node:=a", "--params-file", "x.yaml"]) is None
