"""Neural network parts: batches, layers, likelihoods, matrix products, several processes."""
