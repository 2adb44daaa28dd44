"""Answers go out: reads tables and objects, writes nothing but its own access events."""
