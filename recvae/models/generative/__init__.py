"""Histories as a generative model sees them: how unusual they are, and new ones."""
