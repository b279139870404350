"""Models behind one contract, `recvae.models.base.Recommender`."""
