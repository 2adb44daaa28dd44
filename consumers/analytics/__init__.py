"""Consumers of the topics that count."""
