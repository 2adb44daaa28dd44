"""The world: drivers, settings, the local stack. No decision about radiology."""
