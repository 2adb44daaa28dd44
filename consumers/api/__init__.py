"""The query API: QIDO-RS, WADO-RS, reports, accesses."""
