"""Models behind one contract, `recvae.models.base.Recommender`, and the registry that knows each by name."""

from recvae.models import registry as registry  # so that every model, however imported, can look up the others
