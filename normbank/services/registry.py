"""Domains and all that belongs to them, behind one object."""

from __future__ import annotations

from normbank.services.catalogue import Catalogue
from normbank.services.segmentations import Segmentations
from normbank.services.versions import Versions


class Registry(Catalogue, Versions, Segmentations):
    """The domains of this service, their states, cases and answers.

    Parameters
    ----------
    sessions : makes database sessions, see `normbank.storage.database`
    blobs : where scans and labels lie

    See Also
    --------
    Catalogue : domains, cases, the audit trail
    Versions : publish, promote, quarantine
    Segmentations : segmentations, traffic, retention
    """
