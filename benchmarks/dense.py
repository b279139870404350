"""Mult-VAE as public PyTorch implementations write it, the reference for our speed.

Dense batches in, log_softmax over all items, Adam as it comes.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from scipy import sparse
from torch import Tensor, nn


class DenseMultVAE(nn.Module):
    """n_items → hidden → 2·latent, a sample, latent → hidden → n_items, with tanh between (Liang et al. 2018).

    Parameters
    ----------
    n_items, hidden, latent : int
    dropout : float
        On the L2-normalised input.
    """

    def __init__(self, n_items: int, hidden: int = 600, latent: int = 200, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, n_items))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.trunc_normal_(layer.bias, std=0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, n_items) → logits (batch, n_items), mu and logvar (batch, latent)."""
        mu, logvar = self.encoder(self.dropout(F.normalize(x))).chunk(2, dim=1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return self.decoder(z), mu, logvar

    def loss(self, x: Tensor, beta: float) -> Tensor:
        """Mean over the batch of −Σ x·log_softmax(logits) + β·KL(q(z|x) ‖ N(0, I))."""
        logits, mu, logvar = self.forward(x)
        nll = -(F.log_softmax(logits, dim=1) * x).sum(dim=1)
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(dim=1)
        loss: Tensor = (nll + beta * kl).mean()
        return loss


class DenseTraining:
    """A dense Mult-VAE and its Adam, trained an epoch at a time.

    Parameters
    ----------
    train : csr_matrix, shape (n_users, n_items)
    batch_size, hidden, latent, seed : int
    total_anneal_steps : int
        Updates in which β would reach 1; it stops at .2.
    """

    def __init__(
        self,
        train: sparse.csr_matrix,
        batch_size: int = 500,
        hidden: int = 600,
        latent: int = 200,
        seed: int = 0,
        total_anneal_steps: int = 200_000,
    ) -> None:
        torch.manual_seed(seed)
        self.train, self.batch_size, self.total_anneal_steps = train, batch_size, total_anneal_steps
        self.model = DenseMultVAE(train.shape[1], hidden, latent)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.generator = np.random.default_rng(seed)
        self.step = 0

    def epoch(self) -> float:
        """Train one epoch over all users in random order; return the mean of the batches' losses."""
        self.model.train()
        return float(np.mean([self._update(x) for x in self._batches()]))

    def scores(self, fold_in: sparse.csr_matrix) -> Tensor:
        """(n_users, n_items) logits at the posterior mean."""
        self.model.eval()
        with torch.no_grad():
            logits, _, _ = self.model(torch.from_numpy(fold_in.toarray()))
        return torch.as_tensor(logits)

    def _batches(self) -> Iterator[Tensor]:
        order = self.generator.permutation(self.train.shape[0])
        for start in range(0, len(order), self.batch_size):
            yield torch.from_numpy(self.train[order[start : start + self.batch_size]].toarray())

    def _update(self, x: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = self.model.loss(x, min(0.2, self.step / self.total_anneal_steps))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return loss.item()
