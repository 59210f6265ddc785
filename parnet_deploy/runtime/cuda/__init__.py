"""NVIDIA GPUs as devices, over the driver API."""
