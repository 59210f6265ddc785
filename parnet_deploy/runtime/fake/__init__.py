"""Simulated devices, and the backend that runs on them."""
