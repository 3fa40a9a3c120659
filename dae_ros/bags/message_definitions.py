"""Definitions of message types as recordings carry them, which may be damaged or incomplete."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from dae_ros.errors import RecordingError

# What the library's parsers and its generated code raise for texts that are no definitions.
_UNREADABLE = (TypesysError, SyntaxError, AssertionError, KeyError, ValueError, RecursionError)

_ROSBAG2_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
}


def rosbag2_definition(encoding: str, text: str) -> MessageDefinition:
    """Return a definition as a storage file of rosbag2 has it; of an unknown encoding, none."""
    return MessageDefinition(_ROSBAG2_FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)


def described_types(type_name: str, definition: MessageDefinition | None) -> Typesdict:
    """Return the types that a definition describes: none where it is missing.

    Raises:
        RecordingError: the definition cannot be parsed.
    """
    try:
        if definition is None or definition.format is MessageDefinitionFormat.NONE:
            return {}
        if definition.format is MessageDefinitionFormat.IDL:
            return get_types_from_idl(definition.data)
        return get_types_from_msg(definition.data, type_name)
    except _UNREADABLE as error:
        raise _unreadable(type_name) from error


def add_type(types: Typestore, type_name: str, described: Typesdict) -> None:
    """Make a type known with all types in it; those that are known stay as they are.

    Raises:
        RecordingError: it is not described, or a type in it is not, or it contains itself; then
            nothing is added.
    """
    new = {name: kind for name, kind in described.items() if name not in types.fielddefs}
    require_described({**types.fielddefs, **new}, type_name)
    try:
        types.register(new)
    except _UNREADABLE as error:
        raise _unreadable(type_name) from error


def require_described(known: Typesdict, type_name: str) -> None:
    """Make sure that a type and all types in it are there.

    Raises:
        RecordingError: one is not, or contains itself.
    """
    for name, within in _nested(known, type_name, ()):
        if name in within:
            raise RecordingError(f"the type {name} contains itself", type=type_name)
        if name not in known:
            raise RecordingError(
                f"the type {name} is not known and its recording carries no definition of it"
                + (f", but {type_name} contains it" if name != type_name else "")
                + "; leave its topic out",
                type=type_name,
            )


def _nested(
    known: Typesdict, name: str, within: tuple[str, ...]
) -> Iterator[tuple[str, Collection[str]]]:
    """Yield a type and all types in it, each with those that it is in."""
    yield name, within
    for inner in inner_types([kind for _, kind in known[name][1]]):
        yield from _nested(known, inner, (*within, name))


def inner_types(fields: Sequence[object]) -> Iterator[str]:
    """Yield the names of message types among field descriptions, also inside arrays."""
    for field in fields:
        if isinstance(field, tuple):
            for part in field:
                if isinstance(part, str) and "/" in part:
                    yield part
                elif isinstance(part, tuple):
                    yield from inner_types([part])


def _unreadable(type_name: str) -> RecordingError:
    return RecordingError(
        f"the definition of {type_name} in the recording is not readable; leave its topic out",
        type=type_name,
    )
