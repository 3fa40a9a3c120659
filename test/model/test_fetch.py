"""Fetching weights over a real HTTP server: resume, cuts, wrong content, no network."""

from __future__ import annotations

import argparse
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dae_ros.cli import models
from dae_ros.errors import WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.model.fetch import fetch
from dae_ros.model.manifest import Entry, read_manifest

CONTENT = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /file; may cut answers, ignore ranges or serve something else."""

    content = CONTENT
    cut_after: int | None = None
    ranges = True
    requested: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requested.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cut_after
        self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requested = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def entry(server: Server, path: str = "/file", **changes: object) -> Entry:
    fields: dict[str, object] = {
        "name": "thing",
        "network": "depth_any_event",
        "encoder": "vits",
        "file": "folder/thing.pth",
        "url": f"http://127.0.0.1:{server.server_port}{path}",
        "source": "a test",
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "licence": "none",
        "input_height": None,
        "input_width": None,
        "output": "nothing",
        "output_scale": 1.0,
        "meaning": Meaning(),
    }
    return Entry(**{**fields, **changes})


def test_fetch_brings_the_file(server: Server, tmp_path: Path) -> None:
    """The whole file lands under its name, progress ends at its size, and once is enough."""
    seen: list[tuple[int, int | None]] = []
    path = fetch(entry(server), tmp_path, lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "folder" / "thing.pth"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert fetch(entry(server), tmp_path) == path
    assert len(server.requested) == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_cut_is_resumed(server: Server, tmp_path: Path) -> None:
    """After a cut the next call asks for the rest only, and the file is whole."""
    server.cut_after = 300_000
    with pytest.raises(WeightsError, match=r"ended after 300000 of 1024000.*goes on") as caught:
        fetch(entry(server), tmp_path)
    assert caught.value.data["bytes_here"] == 300_000
    assert not (tmp_path / "folder" / "thing.pth").exists()
    with pytest.raises(WeightsError):
        fetch(entry(server), tmp_path)
    server.cut_after = None
    assert fetch(entry(server), tmp_path).read_bytes() == CONTENT
    assert server.requested == [None, "bytes=300000-", "bytes=600000-"]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    """A server that ignores the range sends everything, which replaces what was there."""
    server.cut_after = 300_000
    with pytest.raises(WeightsError):
        fetch(entry(server), tmp_path)
    server.cut_after, server.ranges = None, False
    assert fetch(entry(server), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_is_taken(server: Server, tmp_path: Path) -> None:
    """A part that is already whole is renamed, though the server has no byte more."""
    part = tmp_path / "folder" / "thing.pth.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert fetch(entry(server), tmp_path).read_bytes() == CONTENT
    assert not part.exists()


def test_wrong_content_is_thrown_away(server: Server, tmp_path: Path) -> None:
    """Another digest leaves nothing behind that a later call would go on from."""
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match="is not thing"):
        fetch(entry(server), tmp_path)
    assert list((tmp_path / "folder").iterdir()) == []


def test_another_file_in_place_is_kept(server: Server, tmp_path: Path) -> None:
    """A file that is there and is another one is neither overwritten nor accepted."""
    target = tmp_path / "folder" / "thing.pth"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="Move it away"):
        fetch(entry(server), tmp_path)
    assert target.read_bytes() == b"mine"


def test_failures_say_what_to_do(server: Server, tmp_path: Path) -> None:
    """A missing page, no server at all and no address are explained with the place of the file."""
    with pytest.raises(WeightsError, match="404"):
        fetch(entry(server, "/nothing"), tmp_path)
    with pytest.raises(WeightsError, match=r"(?s)Without a network.*thing\.pth"):
        fetch(entry(server, url="http://127.0.0.1:1/file"), tmp_path)
    with pytest.raises(WeightsError, match=r"(?s)no direct address: a test.*thing\.pth"):
        fetch(entry(server, url=None), tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file": "../outside.pth"}, "below the models folder"),
        ({"file": "/etc/passwd"}, "below the models folder"),
        ({"sha256": "xyz"}, "64 hex digits"),
        ({"sha256": None}, "have a sha256"),
        ({"url": "ftp://host/file"}, "http"),
        ({"network": "midas"}, "midas"),
        ({"meaning": {"orientation": "up"}}, "orientation"),
        ({"extra": 1}, "extra"),
    ],
)
def test_bad_manifests_are_refused(
    server: Server, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    """Every rule of the manifest is checked when it is read."""
    good = entry(server)
    row = {**{name: getattr(good, name) for name in Entry.__dataclass_fields__}, "meaning": {}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": [row]}))
    assert read_manifest(tmp_path).entries == (good,)
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": [{**row, **change}]}))
    with pytest.raises(WeightsError, match=reason):
        read_manifest(tmp_path)
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": [row, row]}))
    with pytest.raises(WeightsError, match="twice"):
        read_manifest(tmp_path)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    models.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["models", *arguments])
    code: int = parsed.run(parsed)
    return code


def test_models_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """list, verify and inspect tell what is there, what is wrong and what a network is."""
    monkeypatch.setenv("DAE_ROS_MODELS", str(tmp_path))
    assert run("list") == 0
    listed = capsys.readouterr().out
    assert "rec_dav2_synth" in listed
    assert "to get by hand" in listed
    file = tmp_path / "dav2" / "synth" / "synth.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(1_250_000))
    assert run("list") == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert f"  1.2 MB   not stated    {file}" in rows["dav2_synth"]
    assert "  390 MB  " in rows["depth_anything_v2_vitb"]
    assert "  -        not stated" in rows["dav2_metric_dsec"]
    file.unlink()
    assert run("verify") == 0
    verified = capsys.readouterr().out
    assert "ok      micro: every key and value accounted for" in verified
    assert "rec_dav2_synth" not in verified
    assert run("fetch", "micro") == 0
    assert Path(capsys.readouterr().out.strip()).name == "micro.safetensors"
    (tmp_path / "depth_anything_v2_vits.pth").write_bytes(b"half a file")
    assert run("verify") == 1
    assert "FAILED  depth_anything_v2_vits" in capsys.readouterr().out
    assert run("inspect", "untrained:tiny") == 0
    shown = capsys.readouterr().out
    for part in ("DepthAnyEventR", "convlstm", "orientation:    unknown", "note: "):
        assert part in shown
    with pytest.raises(WeightsError, match="no direct address"):
        run("fetch", "rec_dav2_synth")
    with pytest.raises(SystemExit) as caught:
        run("fetch")
    assert caught.value.code == 2


def test_fetch_verb_shows_progress(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The path goes to stdout alone, the progress to stderr."""
    good = entry(server)
    row = {**{name: getattr(good, name) for name in Entry.__dataclass_fields__}, "meaning": {}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": [row]}))
    manifest = read_manifest(tmp_path)
    monkeypatch.setattr(models, "read_manifest", lambda: manifest)
    assert run("fetch", "thing", "--to", str(tmp_path)) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'folder' / 'thing.pth'}\n"
    assert "1.0 of 1.0 MB" in shown.err
