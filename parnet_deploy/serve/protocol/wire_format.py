"""Raw tensors taken out of a message's bytes, or put into them, without protobuf's copies.

A tensor of 602 kB would be copied twice more on its way: into the message, and out of it each time
the field is read. Its place in the bytes is all that is needed.
Source: protobuf's wire format (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

RAW_INPUT, RAW_OUTPUT, INFER_RESPONSE = 7, 6, 2
"""Numbers of ``ModelInferRequest.raw_input_contents``, ``ModelInferResponse.raw_output_contents``
and ``ModelStreamInferResponse.infer_response``.
"""

_LENGTH_DELIMITED = 2
_RAW_TAG = RAW_INPUT << 3 | _LENGTH_DELIMITED
_MOST_FIELDS = 256  # a message of more is left to protobuf, which is faster at small ones
_LONGEST_VARINT = 5  # bytes; a tag or length that needs more is none of ours


def take_raw_inputs(content: bytes) -> tuple[bytes, list[memoryview]] | None:
    """A ``ModelInferRequest`` without its raw tensors, and where those are.

    Returns: The rest of the message and the tensors in their order; None if the bytes are not a
        plain sequence of fields, of which protobuf must judge.

    Owns: the tensors are views of ``content``.
    """
    view, at, end = memoryview(content), 0, len(content)
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    for _ in range(_MOST_FIELDS):
        if at == end:
            return b"".join(rest), raws
        start = at
        tag, at = _varint(content, at)
        size, at = _varint(content, at)
        following = at + size
        if tag & 7 != _LENGTH_DELIMITED or tag >> 3 == 0 or size < 0 or following > end:
            return None
        if tag == _RAW_TAG:
            raws.append(view[at:following])
        else:
            rest.append(view[start:following])
        at = following
    return None


def prefix(field: int, size: int) -> bytes:
    """What stands before so many bytes of a field: its number, and their length."""
    found = bytearray([field << 3 | _LENGTH_DELIMITED])
    while size >= 0x80:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at a place and where it ends; -1 if there is none."""
    value = 0
    for shift, byte in enumerate(content[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    return -1, at
