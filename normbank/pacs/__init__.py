"""PACS over DICOMweb: the file that names them, the client, and what is taken from them."""
