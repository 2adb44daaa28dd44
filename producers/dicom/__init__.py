"""DIMSE: the DICOM door of the producers."""
