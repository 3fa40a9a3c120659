"""Paths that users write, in parameters and in variables of the environment."""

from __future__ import annotations

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
