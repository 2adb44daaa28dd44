"""HAPI HL7 v2, an independent sender."""
