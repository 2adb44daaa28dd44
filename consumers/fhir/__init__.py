"""FHIR R4: what the archive holds as resources that health records read."""
