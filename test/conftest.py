"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A machine that does other work as well is slow, and that is no error.
settings.register_profile("dae_ros", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dae_ros")

# Processes that test at once do not hear each other's nodes.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
if "ROS_DOMAIN_ID" in os.environ:
    domain = int(os.environ["ROS_DOMAIN_ID"]) + 25 * int(WORKER)
    os.environ["ROS_DOMAIN_ID"] = str((domain - 1) % 100 + 1)
