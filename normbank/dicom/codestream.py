"""What compressed images say of themselves, before anybody unpacks them.

A decoder makes room for what the compressed stream claims, not for what the header of
the DICOM file says, so both are compared first.
"""

from __future__ import annotations

from typing import NamedTuple

_JPEG_START, _JPEG2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF of JPEG and of JPEG-LS
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAME_BYTES, _SIZE_BYTES = 10, 43  # of what is read of SOF, of SIZ
_RLE_HEADER = 64


class Claims(NamedTuple):
    """Size of a compressed image, components of a pixel, and bits of each."""

    rows: int
    columns: int
    components: int
    bits: int


def claims_of(stream: bytes) -> Claims | None:
    """What a JPEG, JPEG-LS or JPEG 2000 stream says of itself; None where it does not."""
    if stream.startswith(_JPEG2000_START):
        if len(stream) < _SIZE_BYTES:
            return None
        x1, y1, x0, y0 = (int.from_bytes(stream[i : i + 4], "big") for i in (8, 12, 16, 20))
        components = int.from_bytes(stream[40:42], "big")
        return Claims(y1 - y0, x1 - x0, components, (stream[42] & 0x7F) + 1)
    return _jpeg_claims(stream) if stream.startswith(_JPEG_START) else None


def _jpeg_claims(stream: bytes) -> Claims | None:
    at = 2
    while at + _FRAME_BYTES <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _FRAME_MARKERS:
            rows, columns = (int.from_bytes(stream[at + i : at + i + 2], "big") for i in (5, 7))
            return Claims(rows, columns, stream[at + 9], stream[at + 4])
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def rle_segments(stream: bytes) -> int | None:
    """How many planes of bytes an RLE frame says it has; None where it is none."""
    if len(stream) < _RLE_HEADER:
        return None
    return int.from_bytes(stream[:4], "little")
