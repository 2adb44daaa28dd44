"""The language: shapes that cross a border, and nothing that does I/O."""
