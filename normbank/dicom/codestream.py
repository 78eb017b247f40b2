"""Sizes that compressed images say they have, before anybody unpacks them.

A decoder makes room for what the compressed stream claims, not for what the header of
the DICOM file says, so both are compared first.
"""

from __future__ import annotations

_JPEG_START, _JPEG2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF of JPEG and of JPEG-LS
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_RLE_HEADER = 64


def size_of(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where it does not say."""
    if stream.startswith(_JPEG2000_START):
        x1, y1, x0, y0 = (int.from_bytes(stream[i : i + 4], "big") for i in (8, 12, 16, 20))
        return y1 - y0, x1 - x0
    if not stream.startswith(_JPEG_START):
        return None
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_MARKERS:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(
                stream[at + 7 : at + 9], "big"
            )
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def rle_segments(stream: bytes) -> int | None:
    """How many planes of bytes an RLE frame says it has; None where it is none."""
    if len(stream) < _RLE_HEADER:
        return None
    return int.from_bytes(stream[:4], "little")
