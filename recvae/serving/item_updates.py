"""`ItemUpdates`: metadata of items that clients have set, those of new items too, laid over those of the artifact."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from recvae.inference.ids import Id
from recvae.serving.live_model import LiveModel, ServedModels
from recvae.store.database import StoreUnavailableError
from recvae.store.user_store import UserStore

LOGGER = logging.getLogger("recvae.items")
SECONDS = 0.5
"""Time between two looks for what other workers have stored."""
OVERLAP = 10.0
"""Seconds before the latest change seen that are read again: clocks of machines differ, and transactions take time."""


class ItemUpdates:
    """Reads what every worker has stored, and keeps the live models' metadata up to date.

    Parameters
    ----------
    store : UserStore
    """

    def __init__(self, store: UserStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._changes: dict[Id, Mapping[str, Any]] = {}
        self._latest = 0.0
        self._failure = ""

    async def watch(self, models: ServedModels) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.try_refresh(models)

    async def try_refresh(self, models: ServedModels) -> None:
        """Refresh the live models; a failure changes nothing, and is logged once until it is over."""
        try:
            await self.refresh(models)
        except StoreUnavailableError as error:
            if self._is_new(error):
                LOGGER.error("items: %s", error)
        except Exception as error:
            if self._is_new(error):
                LOGGER.exception("items were not updated")
        else:
            if self._failure:
                LOGGER.info("items: the store answers again")
            self._failure = ""

    def _is_new(self, error: Exception) -> bool:
        """Tell whether a look failed otherwise than the one before."""
        before, self._failure = self._failure, repr(error)
        return self._failure != before

    async def refresh(self, models: ServedModels) -> None:
        """Read what is new in the store, and bring the live models up to date.

        Raises
        ------
        StoreUnavailableError
            If the database cannot be reached.
        """
        async with self._lock:
            rows = await self._store.changed_items(self._latest - OVERLAP)
            new: dict[Id, Mapping[str, Any]] = {
                item: given for item, given, _ in rows if self._changes.get(item) != given
            }
            self._latest = max([self._latest, *(at for _, _, at in rows)])
            if new:
                self._changes = {**self._changes, **new}
            for one in models.reloaders:
                while (live := one.current) is not None and live.item_changes is not self._changes:
                    changed = await asyncio.to_thread(self.apply, live)
                    if one.current is live:  # and no other model has been loaded meanwhile
                        one.current = changed

    def apply(self, model: LiveModel) -> LiveModel:
        """Lay all changes over a model's own metadata, and learn what new items are scored by."""
        model.ranker.scorer  # noqa: B018 learned now: most of a second where there are many items, too long for a PUT
        return model.with_items(self._changes)
