"""A real FHIR R4 server (HAPI JPA on H2) and its jars, for tests alone."""
