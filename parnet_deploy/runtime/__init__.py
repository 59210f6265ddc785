"""Runs a deployment: devices, engines, the executor between them, and ``Runtime`` on top."""
