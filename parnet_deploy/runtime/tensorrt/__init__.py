"""The ``tensorrt`` backend."""
