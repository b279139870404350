"""Preparation of data: find a source, filter it, split it, write the prepared directory."""
