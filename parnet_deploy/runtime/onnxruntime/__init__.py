"""The backends on ONNX Runtime: the CPU, and CUDA."""
