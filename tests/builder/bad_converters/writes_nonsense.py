"""A converter whose file no backend can read."""


def convert(graph, output, *, precision):
    output.write_bytes(b"nonsense" * 100)
    return {}
