"""RecVAE's own parts: the old encoder, what is declared of the authors' two branches, and similar items."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae.models.autoencoders.architecture import LAYER_NORM_EPSILON
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions


def test_the_paper_preset_follows_the_authors_master_branch() -> None:
    module = RecVAE(hidden=(6, 6), latent=5)._build(20, torch.Generator().manual_seed(0))
    assert LAYER_NORM_EPSILON == 0.1
    assert [norm.eps for norm in module.encoder.norms] == [LAYER_NORM_EPSILON] * 2  # type: ignore[union-attr]
    new, old = module.encoder.state_dict(), module.old_encoder.state_dict()
    assert not torch.equal(new["input.weight"], old["input.weight"])  # the first epoch's prior is another encoder's
    assert all(word in (RecVAE.__doc__ or "") for word in ("`master`", "`wsdm`", "ε", "stored", "initial"))
    assert "Adam's ε" in (MultVAE.__doc__ or "")


def test_the_old_encoder_is_not_saved_but_loaded_as_a_copy() -> None:
    model = RecVAE(hidden=(6, 6), latent=5, epochs=1).fit(random_interactions(), show_progress=False)
    state = model._state()
    assert not any(name.startswith("old_") for name in state)
    loaded = RecVAE(hidden=(6, 6), latent=5)
    loaded.item_counts_ = model.item_counts_
    loaded._restore(state)
    new, old = loaded.module_.encoder.state_dict(), loaded.module_.old_encoder.state_dict()
    assert all(torch.equal(old[name], tensor) for name, tensor in new.items())


@pytest.mark.parametrize(
    "model",
    [
        RecVAE(hidden=8, latent=4, epochs=2),
        MultVAE(hidden=8, latent=4, epochs=2),
        MultVAE(hidden=8, latent=4, epochs=2, n_negatives=5),
        MultDAE(latent=4, epochs=2),
    ],
    ids=str,
)
def test_similar_items_have_interactions(model: Autoencoder) -> None:
    padding = sparse.csr_matrix(np.zeros((random_interactions().shape[0], 30), dtype=np.float32))
    interactions = sparse.csr_matrix(sparse.hstack([random_interactions(), padding]))
    model.fit(interactions, show_progress=False)
    unseen = np.flatnonzero(interactions.sum(axis=0).A1 == 0)
    ids, _ = model.similar_items(np.arange(25), N=30)
    assert len(unseen) == 30
    assert not np.isin(ids, unseen).any()
