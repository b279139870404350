"""Autoencoders: Mult-VAE, Mult-DAE, RecVAE, and their scoring without torch."""
