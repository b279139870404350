"""`recvae fit`: from any source to the best model for it, within a time budget."""
