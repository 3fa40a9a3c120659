"""Paths that users write, in parameters and in variables, and files that are written whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dae_ros.errors import ConfigurationError


def named_path(text: str) -> Path:
    """Return the path that a text names; `~` and `~user` are home folders, as in a shell.

    Raises:
        ConfigurationError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{text}: nobody here has such a home folder ({error}); write ./{text} for a path that "
            "begins with ~",
            path=text,
        ) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield what is to be written in place of a file; it gets the file's name when it is whole.

    Raises:
        OSError: it cannot be put there. After any error the file is as it was, and nothing is left
            beside it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        # On a disk that became read-only this fails as well, and says less.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
