"""Which errors of a verb are wrong usage (exit code 2) and which are failures (1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dae_ros.errors import ConfigurationError


class WrongUsage(ConfigurationError):
    """What was asked for cannot be meant, whatever is on this machine: nothing was run.

    Options out of range, missing or that exclude each other, and settings in a file that options
    name. What argparse refuses by itself ends with the same exit code.
    """


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn refused settings into wrong usage; options and settings files are read inside of it.

    Raises:
        WrongUsage: for every `ConfigurationError`.
    """
    try:
        yield
    except ConfigurationError as error:
        raise WrongUsage(error.message, **error.data) from error
