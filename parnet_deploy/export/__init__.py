"""From a checkpoint to one ONNX graph per part. The only package that imports torch."""
