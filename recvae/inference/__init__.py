"""Inference: ranked lists for one user, for a batch, or for every user of a file, from ids to titles."""
