"""AEDAT4 files with a damaged header are refused; their package would panic or abort."""

from __future__ import annotations

import struct

import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError

pytest.importorskip("aedat")

XML = b"""<dv version="2.0">
    <node name="outInfo" path="/mainloop/Recorder/outInfo/">
        <node name="0" path="/mainloop/Recorder/outInfo/0/">
            <attr key="compression" type="string">NONE</attr>
            <attr key="typeIdentifier" type="string">EVTS</attr>
            <node name="info" path="/mainloop/Recorder/outInfo/0/info/">
                <attr key="sizeX" type="int">346</attr>
                <attr key="sizeY" type="int">260</attr>
            </node>
        </node>
    </node>
</dv>
"""


def file_of(xml: bytes) -> bytes:
    """A file with this description of its streams and nothing in them."""
    # offset of the root, identifier, (size of vtable, of table, places of 3 fields), table
    table = struct.pack("<I4s6x5H", 24, b"IOHE", 10, 24, 4, 12, 8)
    table += struct.pack("<iiIqi", 10, 0, 16, -1, 0)
    header = table + struct.pack("<I", len(xml)) + xml + b"\0"
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header


def test_a_whole_header_names_the_streams(tmp_path):
    """The file that the others are damages of is one."""
    (tmp_path / "whole.aedat4").write_bytes(file_of(XML))
    with open_recording(tmp_path / "whole.aedat4") as recording:
        assert list(recording.topics) == ["/events"]
        assert list(recording.messages()) == []


# One byte that no text has, at any place of the XML; or text that is no XML.
@pytest.mark.parametrize("byte", [0xF0, 0xC3, ord("<")])
@pytest.mark.parametrize("place", [b"outInfo", b'="0"', b"NONE", b"346", b"</attr>"])
def test_a_damaged_header_is_refused(tmp_path, byte, place):
    """With the path in the sentence, wherever the byte lies."""
    damaged = bytearray(XML)
    damaged[XML.index(place) + 1] = byte
    (tmp_path / "damaged.aedat4").write_bytes(file_of(bytes(damaged)))
    with pytest.raises(RecordingError, match=r"damaged.aedat4 is no readable AEDAT4 file"):
        open_recording(tmp_path / "damaged.aedat4")


@pytest.mark.parametrize("size", [14, 17, 18, 40, 66, 80, 300])
def test_a_cut_header_is_refused(tmp_path, size):
    """Also in the middle of its tables."""
    (tmp_path / "cut.aedat4").write_bytes(file_of(XML)[:size])
    with pytest.raises(RecordingError, match=r"cut.aedat4 is no readable AEDAT4 file"):
        open_recording(tmp_path / "cut.aedat4")


def test_a_panic_of_the_package_is_an_error_of_the_file(tmp_path):
    """A header that is XML, with a number that the package cannot take."""
    (tmp_path / "odd.aedat4").write_bytes(file_of(XML.replace(b"346", b"3-6")))
    with pytest.raises(RecordingError, match=r"odd.aedat4 is no readable AEDAT4 file"):
        open_recording(tmp_path / "odd.aedat4")
