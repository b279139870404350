"""Benchmarks, whose tables stand in `benchmarks/results`."""

import recvae  # noqa: F401 before torch, as for users: what it says of threads is read when libraries are loaded
