"""Which domain a scan belongs to: by its header, by its statistics, by what is answered.

`identify` decides; `Identifier` holds what scans look like; `signature_of` says what a
domain's own cases look like.
"""

from pipeline.identify.answers import Candidate, Identification, Reason
from pipeline.identify.decide import ServedDomain, identify
from pipeline.identify.identifier import Identifier, shipped_identifier
from pipeline.identify.served import served_domains
from pipeline.identify.signatures import signature_of

__all__ = [
    "Candidate",
    "Identification",
    "Identifier",
    "Reason",
    "ServedDomain",
    "identify",
    "served_domains",
    "shipped_identifier",
    "signature_of",
]
