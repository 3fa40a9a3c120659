"""What libraries raise for damaged files, in one place for every reader of data sets and clips."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# numpy reads the header of an array with Python's own tokenizer and parser, and an archive of
# arrays with zipfile, for which an encrypted member is a RuntimeError; h5py raises KeyError,
# RuntimeError and ValueError for metadata. Sizes that a header invents do not fit into memory.
DAMAGE: tuple[type[Exception], ...] = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
