"""The service for `uvicorn service.app:app`, with the settings of the environment variables `RECVAE_…`."""

from recvae.serving.server import application

app = application()
