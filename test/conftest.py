"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that does other work as well is slow, and that is no error.
settings.register_profile("dae_ros", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dae_ros")
