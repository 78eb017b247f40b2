"""Headers that say where labels come from, what is doubtful, and how to save them."""

from __future__ import annotations

from app.http.openapi import ORIGIN_HEADERS
from normbank.entities import Segmentation
from normbank.entities.flags import codes


def origin_of(record: Segmentation) -> dict[str, str]:
    """Headers that name the domain, version, backbone and flags of an answer."""
    flags = codes(record.summary.flags)
    values = (record.domain_id, str(record.version), record.backbone)
    return {
        **dict(zip(ORIGIN_HEADERS, values, strict=True)),
        **({"X-Normbank-Flags": ",".join(flags)} if flags else {}),
        "Vary": "Accept, Prefer",
        "Link": f'</segmentations/{record.id}>; rel="describedby"',
    }


def download_of(record: Segmentation) -> dict[str, str]:
    """A file name for who saves the answer; ours, not the client's."""
    return {"Content-Disposition": f'attachment; filename="labels-{record.id}.nii.gz"'}
