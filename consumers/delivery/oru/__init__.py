"""Reports as HL7 v2 ORU^R01 by MLLP, for a health record without FHIR."""
