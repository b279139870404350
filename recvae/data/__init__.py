"""Interactions, user-item matrices, splits, and the files they are kept in."""
