"""From the parts' ONNX graphs to engines: merge, place, build, prove, publish."""
