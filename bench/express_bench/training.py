"""One training of Gene-DML, for all of the script."""

import torch

from neuromm.models import GeneDML
from neuromm.training import ExpressionTask, TissueSpots, TrainingConfig, fit


def trained(
    config, features, expression, *, n_epochs, batch_size, learning_rate, seed=0
):
    """The model after its last epoch: no section is left out to choose one."""
    torch.manual_seed(seed)
    model = GeneDML(config)
    spots = TissueSpots(features, expression)
    training = TrainingConfig(
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-2,
        schedule="cosine",
        validation_fraction=0,
        seed=seed,
    )
    task = ExpressionTask(spots, config)
    fit(model, spots, training, task=task, groups=range(len(spots)))
    return model
