"""What the command line says about itself holds."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dae_ros.cli.main import VERBS, build_parser, main
from dae_ros.model.manifest import read_manifest
from dae_ros.parameters import DepthParameters

ROOT = Path(__file__).resolve().parents[2]


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_files_that_help_names_are_in_the_repository(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every docs/ and config/ path in a help text exists."""
    named = set(re.findall(r"\b(?:docs|config)/[\w/.-]*\w", help_of(verb, capsys)))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_right_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example command of a help text is one that the parser takes."""
    text = re.sub(r" *\\\n *", " ", help_of(verb, capsys).partition("examples:")[2])
    # What follows four blanks is a remark.
    commands = re.findall(r"^  dae-ros (.+?)(?: {4,}.*)?$", text, re.MULTILINE)
    assert commands
    for command in commands:
        words = re.sub(r" +", " ", command).split(" ")
        parsed = build_parser().parse_args(words)
        assert isinstance(parsed, argparse.Namespace)


def test_the_commands_of_the_readme_run_as_they_stand() -> None:
    """The parser takes them, and their weights are those that ship."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    verbs = [line.split()[1:] for line in lines if line.startswith("dae-ros ")]
    assert [words[0] for words in verbs] == ["simulate", "bag"]
    for words in verbs:
        build_parser().parse_args(words)
    named = re.findall(r"weights(?::=| )(\S+)", "\n".join(lines))
    shipped = {entry.name for entry in read_manifest().entries if entry.shipped}
    assert {*named, DepthParameters().weights} <= shipped


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("bag", "in.bag", "--out", "out", "--hop_s", "0.1"), "did you mean --hop-s?"),
        (("models", "fetch", "micro", "--into", "x"), "did you mean --to?"),
        (("clips", "recipe", "--zzzzzz"), "unrecognized arguments: --zzzzzz"),
    ],
)
def test_an_option_that_a_verb_lacks_names_the_nearest(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verb's own usage is shown, with the option that was meant where one is near."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: dae-ros {words[0]} ")
    assert meant in error and ("did you mean" in error) == meant.startswith("did")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version needs no verb and shows the version of package.xml."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    expected = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert capsys.readouterr().out == f"dae-ros {expected}\n"
