"""One read model each, pure: project() and summarise()."""
