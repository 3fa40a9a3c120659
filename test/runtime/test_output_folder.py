"""The folder of a run: when an earlier run goes, and what a failed one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError, InferenceError
from dae_ros.runtime.output_folder import UNFINISHED, output_folder

OUTPUTS = ("depth", "summary.json", "sheet.png")


def write(folder: Path, text: str, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    out = tmp_path / "out"
    out.mkdir()
    write(out, "old", "depth/a", "depth/b", "summary.json", "sheet.png")
    return out


def fail(out: Path, *names: str) -> None:
    def run() -> None:
        with output_folder(out, True, OUTPUTS) as folder:
            write(folder, "new", *names)
            raise InferenceError("the backend broke")

    with pytest.raises(InferenceError, match="broke"):
        run()


def test_an_earlier_run_goes_when_the_next_has_ended(earlier: Path) -> None:
    """Until then it is whole; afterwards there is the new one and nothing of the old one."""
    before = contents(earlier)
    with output_folder(earlier, True, OUTPUTS) as folder:
        write(folder, "new", "depth/a", "summary.json")
        assert before.items() <= contents(earlier).items()
    assert contents(earlier) == {"depth/a": "new", "summary.json": "new"}
    assert sorted(item.name for item in earlier.iterdir()) == ["depth", "summary.json"]


def test_a_run_that_wrote_nothing_leaves_no_trace(earlier: Path) -> None:
    """The earlier run is as it was, and there is no empty folder."""
    before = contents(earlier)
    fail(earlier)
    assert contents(earlier) == before
    assert not (earlier / UNFINISHED).exists()


def test_what_a_failed_run_wrote_is_kept_beside_the_earlier_one(earlier: Path) -> None:
    """It lies in a folder of its own, which the next run that may replace things removes."""
    before = contents(earlier)
    fail(earlier, "depth/a")
    assert contents(earlier) == {**before, f"{UNFINISHED}/depth/a": "new"}
    with (
        pytest.raises(ConfigurationError, match="is there already"),
        output_folder(earlier, False, OUTPUTS),
    ):
        pass
    fail(earlier)
    assert contents(earlier) == before


def test_what_a_failed_run_wrote_is_in_the_folder_where_nothing_was(tmp_path: Path) -> None:
    """Without an earlier run there is nothing to keep apart, also where only remains are there."""
    out = tmp_path / "out"
    fail(out, "summary.json")
    assert contents(out) == {"summary.json": "new"}
    (out / "summary.json").rename(out / "summary.json.partial")
    fail(out, "sheet.png")
    assert contents(out) == {"sheet.png": "new"}
