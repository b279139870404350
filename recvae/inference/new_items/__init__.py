"""Items that nobody has played yet: scores by their metadata, for every model."""
