"""`detector`: the model of an artifact, if it can say how unusual a history is."""

from recvae.errors import UnsupportedError
from recvae.models.base import Recommender
from recvae.models.generative.anomaly import AnomalyDetector


def detector(model: Recommender) -> AnomalyDetector:
    """The model, if it is one that can say how unusual a history is.

    Raises
    ------
    UnsupportedError
        If it is of another kind, or was not calibrated.
    """
    if not isinstance(model, AnomalyDetector):
        raise UnsupportedError(
            f"{type(model).__name__} gives no probability of a history; MultVAE, RecVAE and MultDAE do"
        )
    model.smallest_p_value()
    return model
