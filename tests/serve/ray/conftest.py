"""What Ray reads from the environment when it is imported, for all tests here."""

from __future__ import annotations

import importlib.util
import os
import secrets
import warnings
from pathlib import Path

if importlib.util.find_spec("ray") is not None:
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(16),  # and none in the home directory
        RAY_USAGE_STATS_ENABLED="0",
        # Otherwise a proxy asks only the replicas of its own node while there are some.
        RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING="0",
        PYTHONPATH=str(Path(__file__).parents[3]),  # of the processes that Ray starts
    )
    with warnings.catch_warnings():  # its own use of what its dependencies have deprecated
        warnings.simplefilter("ignore")
        import ray.serve  # noqa: F401
