"""Thin handlers: parse, ask, render."""
