"""Every error normbank raises on purpose.

    NormbankError
    ├── NotFoundError               no such thing
    ├── ConflictError               the thing is not in a state that allows this
    ├── InvalidError                the request can never work as it stands
    │   ├── UnreadableScanError     not a readable image file
    │   │   └── UnknownFileKindError
    │   ├── TooLargeError           more bytes or voxels than the service takes
    │   ├── ImpossibleScanError     readable, but no head can look like this
    │   │   ├── GeometryError       affine, spacing or dimensions make no sense
    │   │   └── EmptyScanError      nothing but background
    │   ├── DicomError              DICOM files that are not one MR volume
    │   ├── ImplausibleError        an answer that is no anatomy, or a scan nobody can place
    │   ├── GeometryMismatchError   labels on another grid than their scan
    │   ├── UnknownLabelError       ids outside the label scheme
    │   ├── TooFewCasesError        adaptation needs more labelled cases
    │   └── NoCloseDomainError      `auto` found nothing close enough
    ├── StateError                  a domain state failed its checks
    │   └── CorruptBlobError        a stored file is not what was put there
    ├── PacsError                   a PACS and we did not come together
    │   ├── PacsUnreachableError    it is away, or too slow; later it may work
    │   ├── PacsRefusedError        it answers, and will not do what is asked
    │   ├── SeriesError             the series is not there, or not all of it
    │   └── StoreRejectedError      it did not take a result
    ├── BusyError                   the queue is full, try again later
    ├── AbandonedError              nobody waits for the answer any more
    ├── PostponedError              the job can only go on later
    ├── JobCancelledError           the job was cancelled while it ran
    └── LeaseLostError              another attempt owns the job now

`code` is stable and meant for machines; the message is meant for people and
never holds a path or anything about a patient. The HTTP status of each kind
is decided in `app/http/errors.py` and nowhere else.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any


class NormbankError(Exception):
    """Base of all errors; `code` names the cause for machines.

    Parameters
    ----------
    message : one sentence for people
    code : snake_case, stable; the class's own when left out
    facts : further members of the problem document, JSON values
    """

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.facts = dict(facts or {})


class NotFoundError(NormbankError):
    code = "not_found"


class ConflictError(NormbankError):
    code = "conflict"


class InvalidError(NormbankError):
    code = "invalid"


class UnreadableScanError(InvalidError):
    code = "unreadable_scan"


class UnknownFileKindError(UnreadableScanError):
    code = "unknown_file_kind"


class TooLargeError(InvalidError):
    code = "too_large"


class ImpossibleScanError(InvalidError):
    code = "impossible_scan"


class GeometryError(ImpossibleScanError):
    code = "impossible_geometry"


class EmptyScanError(ImpossibleScanError):
    code = "empty_scan"


class DicomError(InvalidError):
    code = "bad_dicom"


class ImplausibleError(InvalidError):
    code = "implausible"


class GeometryMismatchError(InvalidError):
    code = "geometry_mismatch"


class UnknownLabelError(InvalidError):
    code = "unknown_labels"


class TooFewCasesError(InvalidError):
    code = "too_few_cases"


class NoCloseDomainError(InvalidError):
    code = "no_close_domain"


class StateError(NormbankError):
    code = "bad_state"


class CorruptBlobError(StateError):
    code = "corrupt_blob"


class PacsError(NormbankError):
    code = "pacs_error"


class PacsUnreachableError(PacsError):
    """The PACS is away; `waited_s` seconds went by until that was clear."""

    code = "pacs_unreachable"

    def __init__(self, message: str, *, waited_s: float = 0.0) -> None:
        super().__init__(message)
        self.waited_s = waited_s


class PacsRefusedError(PacsError):
    code = "pacs_refused"


class SeriesError(PacsError):
    code = "series_empty"


class StoreRejectedError(PacsError):
    code = "store_rejected"


class PostponedError(NormbankError):
    """The job can only go on later; `delay_s` says when it may be tried again."""

    code = "postponed"

    def __init__(self, message: str, *, delay_s: float) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class BusyError(NormbankError):
    """The service is at its limit; `retry_after_s` is a fair guess."""

    code = "busy"

    def __init__(self, message: str, *, retry_after_s: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    @classmethod
    def stopping(cls) -> BusyError:
        return cls("The service is stopping.", retry_after_s=5, code="stopping")


class AbandonedError(NormbankError):
    """Nobody waits for the answer any more."""

    code = "client_gone"

    def __init__(self) -> None:
        super().__init__("Nobody waits for the answer any more.")


class JobCancelledError(NormbankError):
    code = "cancelled"


class LeaseLostError(NormbankError):
    code = "lease_lost"


def is_disk_full(error: BaseException) -> bool:
    """Whether the system has refused to write because there is no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
