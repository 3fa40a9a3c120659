"""Between a frozen parameter dataclass and a node's ROS parameters.

Declaration takes overrides (YAML, command line) as one candidate that is validated whole.
A change at run time is checked as a whole candidate without side effects and refused with the
sentence of the broken rule; only committed values reach the node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import Declaration, NodeParameters, Value, declarations, likely

P = TypeVar("P", bound=NodeParameters)

# Humble has no callback after a commit; this is how soon a change is noticed there.
POLL_PERIOD_S = 0.1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def declare(node: Node, kind: type[P]) -> P:
    """Declare every parameter of a plain node; all are read-only but those for run time.

    Raises:
        ConfigurationError: an override has a wrong type, is out of range or breaks a rule; one
            sentence per problem, all of them at once.
    """
    return ParameterBinding(node, kind).value


class ParameterBinding(Generic[P]):
    """Declares the parameters of a node and follows their changes.

    Args:
        node: not yet declaring any of these names.
        kind: the parameter class.
        locked: for nodes that read parameters when they are configured: whether the others than
            the run-time ones must stay as they are now. Without it those are read-only for ever.
        changed: called on the executor's thread with the new values after a commit.

    Attributes:
        value: the committed parameters.

    Raises:
        ConfigurationError: see `declare`.
    """

    def __init__(
        self,
        node: Node,
        kind: type[P],
        *,
        locked: Callable[[], bool] | None = None,
        changed: Callable[[P], None] | None = None,
    ) -> None:
        self._node = node
        self._kind = kind
        self._locked = locked
        self._changed = changed
        self._declarations = declarations(kind)
        self.value = kind.from_mapping(self._overrides())
        for name, (_, declaration) in self._declarations.items():
            node.declare_parameter(
                name,
                getattr(self.value, name),
                self._descriptor(getattr(self.value, name), declaration),
                ignore_override=True,
            )
        node.add_on_set_parameters_callback(self._check)
        # By the feature, not by the distribution: a name says nothing about a patched rclpy.
        if hasattr(node, "add_post_set_parameters_callback"):
            node.add_post_set_parameters_callback(self._commit)
        else:
            node.create_timer(
                POLL_PERIOD_S,
                lambda: self._commit([]),
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )

    def _overrides(self) -> dict[str, object]:
        # rclpy keeps the merged overrides (files, then command line) in this attribute in every
        # distribution. Declaring with them directly would stop at the first bad one, in rclpy's
        # words, and refuse `scale: 2` because it is not `2.0`.
        overrides: dict[str, Parameter] = self._node._parameter_overrides
        ignored = sorted(
            name
            for name in overrides
            if name not in self._declarations
            and not self._node.has_parameter(name)
            and not name.startswith("qos_overrides.")
        )
        if ignored:
            # A file for several nodes may name parameters of others, so this is no error.
            self._node.get_logger().warning(
                f"ignored: {', '.join(ignored)} (this node has no such parameter; "
                f"{likely(ignored, self._declarations)})"
            )
        return {name: overrides[name].value for name in self._declarations if name in overrides}

    def _descriptor(self, value: Value, declaration: Declaration) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(
            description=declaration.description,
            read_only=self._locked is None and not declaration.at_runtime,
        )
        if declaration.choices:
            descriptor.additional_constraints = f"one of {', '.join(declaration.choices)}"
        if self._locked is not None and not declaration.at_runtime:
            descriptor.additional_constraints = "; ".join(
                part
                for part in (descriptor.additional_constraints, "read when the node is configured")
                if part
            )
        low, high = declaration.minimum, declaration.maximum
        if (low is not None or high is not None) and isinstance(value, float):
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=float("-inf") if low is None else float(low),
                    to_value=float("inf") if high is None else float(high),
                )
            ]
        elif (low is not None or high is not None) and isinstance(value, int):
            descriptor.integer_range = [
                IntegerRange(
                    from_value=INT64_MIN if low is None else int(low),
                    to_value=INT64_MAX if high is None else int(high),
                )
            ]
        return descriptor

    def _check(self, proposed: list[Parameter]) -> SetParametersResult:
        changes = {item.name: item.value for item in proposed if item.name in self._declarations}
        if self._locked is not None and self._locked():
            for name, value in changes.items():
                if not self._declarations[name][1].at_runtime and value != getattr(
                    self.value, name
                ):
                    return SetParametersResult(
                        successful=False,
                        reason=(
                            f"'{name}' is read when the node is configured; clean it up first "
                            "(ros2 lifecycle set <node> deactivate, then cleanup)"
                        ),
                    )
        try:
            self._candidate(changes)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=error.message)
        return SetParametersResult(successful=True)

    def _candidate(self, changes: dict[str, object]) -> P:
        return self._kind.from_mapping({**dataclasses.asdict(self.value), **changes})

    def _commit(self, _committed: list[Parameter]) -> None:
        # The node is asked for its values instead of trusting the list: other parameters may be
        # in it, and on the polling branch there is none.
        values = {
            item.name: item.value for item in self._node.get_parameters(list(self._declarations))
        }
        candidate = self._candidate(values)
        if candidate != self.value:
            self.value = candidate
            if self._changed is not None:
                self._changed(candidate)
