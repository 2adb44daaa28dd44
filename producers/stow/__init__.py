"""STOW-RS (PS3.18 §10.5): the HTTP door of the producers."""
