"""Compressed frames, decoded in a process of their own.

The decoder ends its process when a stream is damaged; here that is an error of the file
and nobody else notices.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.dicom.codestream import Claims, claims_of
from normbank.dicom.layout import Layout, broken_pixels

_CHILD = Path(__file__).with_name("gdcm_child.py")
_JPEG_LS_AND_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81, 90, 91))
_PATIENCE_S = 30.0
_VOXELS_PER_S = 500_000  # a slow machine's


def decode(
    streams: Sequence[bytes], syntax: str, layout: Layout
) -> list[npt.NDArray[np.integer[Any]]]:
    """Frames of one layout and transfer syntax, decoded: (rows, columns) each, as stored.

    Raises
    ------
    DicomError
        `broken_pixels` if one of them cannot be decoded, or has another size.
    """
    claims = [_checked(stream, layout) for stream in streams]
    own = syntax in _JPEG_LS_AND_2000  # their decoders answer as many bytes as they need
    bits = [_container(claim) if own else (layout.allocated, layout.stored) for claim in claims]
    request = {
        "syntax": syntax,
        "rows": layout.rows,
        "columns": layout.columns,
        "signed": layout.signed,
        "inverted": layout.inverted,
        "frames": [[len(s), *b] for s, b in zip(streams, bits, strict=True)],
    }
    answer = _ask(request, streams, layout)
    frames, at = [], 0
    for claim, (allocated, _) in zip(claims, bits, strict=True):
        count = layout.rows * layout.columns
        dtype = np.dtype(f"<{'i' if layout.signed else 'u'}{allocated // 8}")
        frame = np.frombuffer(answer, dtype, count, at).reshape(layout.rows, layout.columns)
        at += count * dtype.itemsize
        if own and layout.signed and claim.bits == layout.stored:  # a stream may know no sign
            unused = allocated - claim.bits
            frame = (frame << unused) >> unused
        frames.append(frame.astype(layout.dtype, copy=False))
    return frames


def _checked(stream: bytes, layout: Layout) -> Claims:
    claims = claims_of(stream)
    if claims is None or claims[:3] != (layout.rows, layout.columns, 1):
        raise broken_pixels("a compressed image has another size than the header says")
    if not 2 <= claims.bits <= layout.allocated:
        raise broken_pixels("a compressed image has more bits than the header says")
    return claims


def _container(claims: Claims) -> tuple[int, int]:
    """Bits that hold a decoded pixel, and bits of it that are used."""
    allocated = 8 if claims.bits <= 8 else 16 if claims.bits <= 16 else 32
    return allocated, claims.bits


def _ask(request: dict[str, Any], streams: Sequence[bytes], layout: Layout) -> bytes:
    """The decoded frames of a child, one after the other."""
    question = b"".join([json.dumps(request).encode(), b"\n", *streams])
    voxels = layout.rows * layout.columns * len(streams)
    needed = sum(layout.rows * layout.columns * frame[1] // 8 for frame in request["frames"])
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=question,
            capture_output=True,
            timeout=_PATIENCE_S + voxels / _VOXELS_PER_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise broken_pixels("compressed images take too long to decode") from error
    # It says nothing of whole streams, and answers for some damaged ones after a complaint.
    if done.returncode != 0 or done.stderr or len(done.stdout) != needed:
        raise broken_pixels("a compressed image cannot be decoded")
    return done.stdout
