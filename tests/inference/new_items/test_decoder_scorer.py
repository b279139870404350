"""`DecoderScorer` gives the scores of `NewItemScorer`, whose items' scores it does not compute."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.inference.new_items import scorer as module
from recvae.inference.new_items.decoder_scorer import DecoderScorer
from recvae.inference.new_items.scorer import NewItemScorer
from recvae.inference.rules.metadata import Metadata
from recvae.models.autoencoders.multdae import MultDAE

N_ITEMS = 300


@pytest.mark.parametrize("sample", [1000, 100])
def test_scores_are_those_of_all_items(sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", sample)
    rng = np.random.default_rng(0)
    user_items = sparse.csr_matrix((rng.random((80, N_ITEMS)) < 0.05).astype(np.float32))
    model = MultDAE(hidden=32, latent=8, epochs=3, batch_size=20).fit(user_items, show_progress=False)
    metadata = Metadata(pa.table({"item_id": range(N_ITEMS), "genre": [f"g{i % 7}" for i in range(N_ITEMS)]}))
    scorer = NewItemScorer.learn(metadata, [None] * N_ITEMS, model.item_counts_)
    new = scorer.features.encode(metadata, [None] * 20, np.arange(20))
    expected = scorer.score(model.score(user_items), user_items, new)
    found = DecoderScorer(scorer, model).score(user_items, new)
    assert_allclose(found, expected, rtol=0, atol=1e-4)
