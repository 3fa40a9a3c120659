"""Weights by name: untrained ones, those of the manifest, files, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.manifest import read_manifest
from dae_ros.model.weights import load_weights
from test.reference.authors_checkpoint import authors_file, weights_of


def test_weights_by_name(
    tmp_path: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrained names, manifest names, files and mistakes are told apart."""
    monkeypatch.setenv("DAE_ROS_MODELS", str(tmp_path))
    assert load_weights("untrained:tiny").digest == tiny.digest
    with pytest.raises(WeightsError, match="untrained:vits"):
        load_weights("untrained:resnet")
    with pytest.raises(WeightsError, match="there is no model 'vits'"):
        load_weights("vits")
    with pytest.raises(WeightsError, match="no checkpoint"):
        load_weights("nowhere/vits.pth")
    with pytest.raises(WeightsError, match="models fetch depth_anything_v2_vits"):
        load_weights("depth_anything_v2_vits")
    with pytest.raises(WeightsError, match=r"rec_dav2/synth/synth\.pth"):
        load_weights("rec_dav2_synth")
    path = authors_file(tmp_path / "mine.pth", weights_of(tiny))
    assert load_weights(str(path)).name == "mine.pth"
    # The file is read by the name of its entry, and refused where it is something else.
    for file in ("rec_dav2/synth/synth.pth", "depth_anything_v2_vits.pth"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(path.read_bytes())
    by_name = load_weights("rec_dav2_synth")
    assert (by_name.name, by_name.config.encoder) == ("rec_dav2_synth", "tiny")
    assert by_name.meaning.event_encoder == "tencode_voxel"
    with pytest.raises(WeightsError, match="its sha256 is"):
        load_weights("depth_anything_v2_vits")


def test_shipped_manifest_is_sound() -> None:
    """The manifest of this project reads, and its entries have what users need."""
    entries = read_manifest().entries
    assert {"rec_dav2_synth", "dav2_synth", "depth_anything_v2_vits"} <= {e.name for e in entries}
    for entry in entries:
        assert entry.how_to_get()
        assert entry.encoder in ("vits", "vitb", "vitl", None) or entry.shipped
        assert entry.url is None or entry.encoder is not None
        assert (entry.meaning.event_encoder == "rgb") == (entry.network == "depth_anything_v2")
    official = {
        (entry.encoder, entry.output_scale, entry.meaning.scale, entry.meaning.orientation)
        for entry in entries
        if entry.network == "depth_anything_v2"
    }
    assert official == {
        (encoder, *kind)
        for encoder in ("vits", "vitb", "vitl")
        for kind in (
            (1.0, "relative", "inverse_depth"), (20.0, "metric", "depth"), (80.0, "metric", "depth")
        )
    }  # fmt: skip
