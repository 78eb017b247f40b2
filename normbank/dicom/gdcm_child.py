"""A program that decodes compressed frames with GDCM, for `normbank.dicom.decoding`.

GDCM ends its process when a stream is damaged in one of many ways, so it must not run
where anything else does. It is run as a file and imports nothing of ours.

It reads one line of JSON, `{"syntax", "rows", "columns", "signed", "inverted",
"frames": [[bytes, allocated, stored], …]}`, then the streams of all frames, and writes
the decoded frames one after the other. It ends with 0 if every one has its full size.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import gdcm

_MEMORY = 4 << 30  # bytes of address space, of which GDCM itself needs a few hundred million
_CPU_S = 300


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the pixels
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    request = json.loads(source.readline())
    for length, allocated, stored in request["frames"]:
        stream = source.read(length)
        frame = decoded(stream, request, allocated, stored)
        if len(frame) != request["rows"] * request["columns"] * allocated // 8:
            return 1
        sink.write(frame)
    return 0


def decoded(stream: bytes, request: dict[str, Any], allocated: int, stored: int) -> bytes:
    """One frame; what is left of it where it is damaged."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    grey = "MONOCHROME1" if request["inverted"] else "MONOCHROME2"
    kind = gdcm.PhotometricInterpretation.GetPIType(grey)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(request["syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    signed = int(request["signed"])
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, stored, stored - 1, signed))
    text: str = image.GetBuffer()  # bytes as text, as SWIG makes it
    return text.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
