"""Numbers that a device reports of its own: the door ``client-metrics``.

A metric is a function that is called after each local training and returns numbers by
name::

    def held_out_loss(model, x, y):
        return {"held-out-loss": float(F.cross_entropy(model(x).logits, y))}

``model`` is what was trained (:class:`common.moe.MoEModel`, in evaluation mode and
without gradients), ``x`` of shape (n, *input_shape) and ``y`` of shape (n,) are the
client's own held-out samples. At most 16 finite numbers are reported; the server keeps
them by client in ``metrics.jsonl``, and their mean over clients as ``metrics.NAME``.
"""

import torch

from client_app.session import Session
from common import wire
from common.moe import MoEModel
from common.registry import CLIENT_METRICS
from common.text import reason


@torch.inference_mode()
def own_metrics(
    model: MoEModel, session: Session
) -> tuple[dict[str, float], list[str]]:
    """Call the metric that the settings name, if they do.

    What fails, or is more than a reply may carry, is dropped: the training is worth
    more.

    Returns
    -------
    metrics : dict of str to float
    warnings : list of str
        Why there are none.
    """
    if not (name := session.settings.run.client_metrics):
        return {}, []
    metric = CLIENT_METRICS.find(name)
    model.eval()
    try:
        x, y = session.held_out_tensors()
        given = metric(model, x if isinstance(x, torch.Tensor) else x.whole(), y)
        numbers = {str(key): float(value) for key, value in given.items()}
        return wire.OwnMetrics(metrics=numbers).metrics, []
    except Exception as error:  # whatever a metric does
        line = f"client-metrics {name} is left out: {reason(error)}"
        return {}, [line.encode("ascii", "replace").decode()[:200]]
