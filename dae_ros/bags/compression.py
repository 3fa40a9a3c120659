"""Decompression of chunks of which the end may be missing."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# lz4 raises bare RuntimeErrors.
DECOMPRESSION_ERRORS = (zstd.ZstdError, zlib.error, lzma.LZMAError, RuntimeError)


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def plain_message(data: bytes) -> bytes:
    """Return a message as it was before rosbag2 compressed it, where it did (mode `message`).

    What CDR begins with is 0, so that a message tells by itself. One that is damaged is returned
    as it is: whoever reads it finds no message in it.
    """
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        return zstd.decompress(data)
    except zstd.ZstdError:
        return data


def decompress_prefix(name: str, data: bytes) -> bytes:
    """Return everything that can be decompressed of a chunk that may be cut.

    Args:
        name: `none` or empty, `lz4`, `bz2`, `zstd`.
        data: the beginning of the compressed bytes.

    Returns:
        The beginning of the plain bytes; all of them where `data` is whole.

    Raises:
        ValueError: an unknown compression, or bytes that are not of it.
    """
    if name in {"", "none"}:
        return data
    try:
        if name == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
        if name == "zstd":
            return bytes(zstd.ZstdDecompressor().decompress(data))
        if name == "bz2":
            return bz2.BZ2Decompressor().decompress(data)
    except (*DECOMPRESSION_ERRORS, OSError) as error:
        raise ValueError(f"the {name} data is damaged: {error}") from error
    raise ValueError(f"the compression '{name}' is not known")
