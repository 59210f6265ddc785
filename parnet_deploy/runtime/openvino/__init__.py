"""The ``openvino`` backend: segments on OpenVINO's plugin for the CPU."""
