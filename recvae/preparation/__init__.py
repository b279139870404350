"""From a source to a prepared directory: find, filter, split, write."""
