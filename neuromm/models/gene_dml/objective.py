"""What Gene-DML is trained for: the prediction, instances and groups.

References
----------
Song, Fan, Chang & Cai (2026) Gene-DML. WACV, arXiv 2507.14670.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from neuromm.core import UsageError
from neuromm.losses import instance_group, multi_level_contrastive
from neuromm.models.gene_dml.config import GeneDMLConfig
from neuromm.models.gene_dml.model import GeneDMLOutput

__all__ = ["GeneDMLLosses", "gene_dml_losses"]


class GeneDMLLosses(NamedTuple):
    """Losses of a batch, each of shape ().

    Attributes
    ----------
    total : tensor
        prediction + instance_weight * instance + group_weight * group.
    prediction : tensor
        Mean squared error over spots and genes.
    instance : tensor
        Mean over scales, in nats.
    group : tensor
        In nats.
    """

    total: Tensor
    prediction: Tensor
    instance: Tensor
    group: Tensor


def gene_dml_losses(
    output: GeneDMLOutput, expression: Tensor, config: GeneDMLConfig
) -> GeneDMLLosses:
    """Losses of a batch of spots.

    Parameters
    ----------
    output : GeneDMLOutput
        Of a model that was called with the expression.
    expression : tensor of shape (n_spots, n_genes)
    config : GeneDMLConfig

    Raises
    ------
    UsageError
        If the model was called without expression.
    """
    if output.gene is None or output.image_group is None or output.gene_group is None:
        raise UsageError("the losses need a model that was called with expression")
    prediction = functional.mse_loss(output.expression, expression)
    levels = [
        level
        for level in (output.target, output.neighbor, output.overview)
        if level is not None
    ]
    zero = prediction.new_zeros(())
    instance = group = zero
    if config.instance_weight:
        instance = multi_level_contrastive(output.gene, levels, config.temperature)
    if config.group_weight:
        is_paper = config.group_space == "paper"
        instances = None
        if is_paper:
            instances = (output.fused, functional.normalize(output.gene, dim=1))
        group = instance_group(
            output.image_group,
            output.gene_group,
            min(config.n_groups, len(expression)),
            config.group_temperature,
            config.group_method,
            instances,
            normalise_centres=not is_paper,
        )
    total = prediction + config.instance_weight * instance + config.group_weight * group
    return GeneDMLLosses(total, prediction, instance, group)
