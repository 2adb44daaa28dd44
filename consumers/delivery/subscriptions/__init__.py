"""FHIR subscriptions: each is a destination of its own, that begins and ends while the process runs."""
