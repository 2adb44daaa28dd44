"""The national health record: FHIR R4 transactions to its server."""
