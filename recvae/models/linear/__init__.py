"""Linear models in closed form: EASE and filters on the graph of items."""
