"""From the graph of a segment to a TensorRT engine, in a child process, cached."""
