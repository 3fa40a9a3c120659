"""`python -m dae_ros.cli` is `dae-ros`."""

import sys

from dae_ros.cli.main import main

sys.exit(main())
