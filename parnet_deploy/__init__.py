"""Lowest-latency inference for trained ParNet weights, with proof of an unchanged answer."""

__version__ = "0.1.0"
