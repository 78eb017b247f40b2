"""DICOM series in: from files, folders and zips to a scan that is right, or refused."""
