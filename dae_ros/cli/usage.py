"""Which errors of a verb are wrong usage (exit code 2) and which are failures (1)."""

from __future__ import annotations

import argparse
import contextlib
import difflib
from collections.abc import Iterator
from typing import Any

from dae_ros.errors import ConfigurationError

EXIT_FAILURE = 1
EXIT_USAGE = 2


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


class VerbParser(argparse.ArgumentParser):
    """The parser of one verb, which says itself what it does not know.

    Left to argparse, the parser of all verbs would say it, under a usage without options.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """See `argparse.ArgumentParser`; what is not known ends with a sentence and exit code 2."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            near = {
                match: None
                for item in unknown
                if item.startswith("--")
                for match in difflib.get_close_matches(item.partition("=")[0], options, n=1)
            }
            meant = f"; did you mean {', '.join(near)}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return parsed, unknown
