"""HL7 v2 in: results (ORU), orders (ORM, OMI) and patients (ADT) of the hospitals' own systems."""
