"""The DICOM door, the answering half: what is found, moved and fetched."""
