"""Lowest-latency inference for trained ParNet weights, with proof that the answer did not change."""

__version__ = "0.1.0"
