"""Storage commitment (PS3.4 Annex J, PS3.18 §13): the archive says of which instances a sender may delete its copy."""
