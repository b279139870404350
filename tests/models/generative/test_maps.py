"""Maps of a model whose users have known tastes: neighbours share theirs, and titles say which it is."""

import numpy as np
import pytest

from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.generative.maps import draw_maps
from tests.contracts import one_thread as one_thread
from tests.models.generative.test_anomaly import COMMON, N_ITEMS, N_TASTES, draw_users

pytestmark = pytest.mark.usefixtures("one_thread")

SHOWN = 100
TITLES = [f"taste {item % N_TASTES}" for item in range(N_ITEMS)]


@pytest.mark.parametrize("model", [MultVAE(hidden=16, epochs=20, **COMMON), MultDAE(epochs=20, **COMMON)])
def test_neighbours_on_both_maps_share_a_taste(model: MultVAE | MultDAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.generative.maps.MOST_USERS", SHOWN)
    users = draw_users(SHOWN + 100, seed=0)
    maps = draw_maps(model.fit(users, show_progress=False), users, TITLES)
    assert list(maps) == ["item_map", "user_map"]
    for name, count in (("item_map", N_ITEMS), ("user_map", SHOWN)):
        points = maps[name]["points"]
        assert len(points) == count
        places = np.array([[x, y] for x, y, *_ in points])
        tastes = np.array([title.split("; ")[0] for *_, title in points])
        distances = ((places[:, None] - places) ** 2).sum(axis=2) + 9 * np.eye(len(points))
        assert np.mean(tastes[distances.argmin(axis=1)] == tastes) > 0.8
    assert all(title.count("; ") == 2 for *_, title in maps["user_map"]["points"])
