"""infra's own commands of `sijil`, a module per subject."""
