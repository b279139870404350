"""`uvicorn service.app:app`: the service, told by environment variables `RECVAE_…` what to serve."""

from recvae.serving import create_app
from recvae.serving.telemetry import log_as_json

log_as_json()
app = create_app()
