"""A model of expression on sections, and the ridge regression beside it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.io.tissue_sections import grid_kind
from neuromm_pipelines.express_data import Encoder, Tissue
from neuromm_pipelines.express_settings import ExpressSettings

if TYPE_CHECKING:
    from neuromm.encoding import ExpressionProbe

__all__ = ["TrainedExpression", "observed_expression", "scaled", "trained"]

_VALIDATION = 0.2
_BLOCKS = 5  # of a patient's sections, where there is one patient: an inner split
# Sizes of the network for hundreds of spots; the published one has tens of thousands.
_SMALL: dict[str, Any] = {
    "dim": 64, "neighbor_depth": 1, "neighbor_heads": 4, "neighbor_mlp": 64,
    "neighbor_dropout": 0.1, "global_depth": 2, "global_heads": 4, "global_mlp": 64,
    "global_dropout": 0.1, "fusion_mlp": 128, "head_width": 128, "n_groups": 12,
}  # fmt: skip
_SMALL_TRIPLEX: dict[str, Any] = {
    "dim": 64, "neighbor_depth": 1, "neighbor_heads": 4, "global_depth": 1,
    "global_heads": 4,
}  # fmt: skip
_SMALL_WEIGHT = 0.03


@dataclass(frozen=True, eq=False)
class TrainedExpression:
    """What a training gives.

    Attributes
    ----------
    settings : ExpressSettings
    model : GeneDML or TRIPLEX
        In evaluation mode, on its device.
    probe : ExpressionProbe
        The ridge regression on the same features and targets.
    best_epoch : int
    best_score : float
        PCC(A) within the training sections; nan where none was left out.
    """

    settings: ExpressSettings
    model: Any
    probe: "ExpressionProbe"
    best_epoch: int
    best_score: float

    def predict(self, features: SpotFeatures) -> dict[str, NDArray[np.float64]]:
        """Expression by the model and by the ridge, and what it was made from.

        Returns
        -------
        found : dict of str to array
            ``predicted`` and ``ridge`` (n_spots, n_genes), in the unit of the training
            targets, and ``fused`` (n_spots, dim).
        """
        from neuromm.models import predict_expression

        n_tiles = self.model.config.n_tiles**2
        if features.neighbors.shape[1] != n_tiles:
            raise UsageError(
                f"{features.section}: the model was trained with {n_tiles} tiles a "
                f"spot, got {features.neighbors.shape[1]}"
            )
        found = predict_expression(self.model, scaled(features, self.settings))
        return {
            "predicted": found.expression + self.settings.gene_mean,
            "fused": found.fused.astype(np.float64),
            "ridge": self.probe.predict(features),
        }


def trained(
    config: Any,
    tissues: Sequence[Tissue],
    encoder: Encoder,
    *,
    device: str | None,
    folder: Path,
    label: str,
) -> TrainedExpression:
    """Choose genes on sections, train on them, and fit the ridge beside.

    Parameters
    ----------
    config : neuromm_pipelines.express_fit.Config
    tissues : sequence of Tissue
        Training sections, or parts of some, alone.
    encoder : Encoder
    device : str or None
        None for the CPU.
    folder : Path
        Where the state of the training is kept.
    label : str
        Of the progress bar.
    """
    from neuromm.encoding import fit_expression_probe
    from neuromm.training import ExpressionTask, TissueSpots, fit

    genes, panel = _chosen_genes(config, tissues)
    targets = [
        observed_expression(
            one.adata, genes, config.library, config.log_base,
            smooth=config.smooth_training,
        )
        for one in tissues
    ]  # fmt: skip
    settings = _settings(config, tissues, encoder, genes, panel, targets)
    model = _model(config, tissues[0].features, len(genes)).to(device or "cpu")
    spots = TissueSpots(
        [scaled(one.features, settings) for one in tissues],
        [values - settings.gene_mean for values in targets],
    )
    groups = _groups(tissues)
    with _bar(label) as told:
        result = fit(
            model,
            spots,
            _training_config(config, len(set(groups))),
            task=ExpressionTask(spots, model.config),
            groups=groups,
            folder=folder,
            progress=told,
        )
    probe = fit_expression_probe(
        [one.features for one in tissues],
        targets,
        [one.section.patient for one in tissues],
    )
    return TrainedExpression(
        settings, model, probe, result.best_epoch, result.best_score
    )


def observed_expression(
    adata: Any,
    genes: Sequence[str],
    library: Any,
    log_base: Any,
    *,
    smooth: bool = False,
    target_sum: float = 1e4,
) -> NDArray[np.float64]:
    """Measured expression of a panel, (n_spots, n_genes), in the unit of a model."""
    from neuromm.prepare.expression import expression, smoothed

    made = expression(
        adata, genes, library=library, target_sum=target_sum, log_base=log_base
    )
    if smooth:
        made = smoothed(made, grid_kind(adata))
    return np.asarray(made.X, dtype=np.float64)


def scaled(features: SpotFeatures, settings: ExpressSettings) -> SpotFeatures:
    """Features brought to a mean of 0 and a spread of 1 over the training spots."""
    if features.n_features != len(settings.feature_mean):
        raise UsageError(
            f"{features.section}: the vectors of {features.encoder} have "
            f"{features.n_features} numbers, the model was trained on "
            f"{len(settings.feature_mean)} of {settings.encoder}"
        )
    if features.target.shape[2] != features.n_features:
        raise UsageError(
            f"{features.section}: tokens of {features.encoder} have "
            f"{features.target.shape[2]} numbers, its vectors {features.n_features}, "
            "and the model reads both alike: leave out --patch-tokens"
        )
    parts = {
        name: (
            (getattr(features, name) - settings.feature_mean) / settings.feature_sd
        ).astype(np.float32)
        for name in ("target", "neighbors", "overview")
    }
    return replace(features, **parts)


def _chosen_genes(
    config: Any, tissues: Sequence[Tissue]
) -> tuple[tuple[str, ...], str]:
    """Panel of genes, chosen on the training spots alone, and how it was chosen."""
    from neuromm.prepare import gene_panels

    if config.gene_list is not None:
        return config.gene_list, "given"
    choose = {
        "mean": gene_panels.mean_panel,
        "variable": gene_panels.variable_panel,
        "mean-variance": gene_panels.mean_variance_panel,
    }[config.panel]
    counts = {one.section.name: one.adata for one in tissues}
    return tuple(choose(counts, config.genes)), config.panel


def _settings(
    config: Any,
    tissues: Sequence[Tissue],
    encoder: Encoder,
    genes: tuple[str, ...],
    panel: str,
    targets: Sequence[NDArray[np.float64]],
) -> ExpressSettings:
    overview = np.concatenate([one.features.overview for one in tissues])
    spread = overview.std(axis=0, dtype=np.float64)
    mean = np.concatenate(targets).mean(axis=0)
    first = tissues[0].features
    return ExpressSettings(
        # TRIPLEX predicts nothing below 0, so that it cannot learn differences.
        gene_mean=mean if config.model == "GeneDML" else np.zeros_like(mean),
        model=config.model,
        source=encoder.source,
        encoder=first.encoder,
        encoder_sha256=encoder.weights_sha256,
        is_stand_in=any(one.features.is_stand_in for one in tissues),
        genes=genes,
        library=config.library,
        target_sum=1e4,
        log_base=config.log_base,
        panel=panel,
        smoothed=config.smooth_training,
        sections={one.section.name: one.section.patient for one in tissues},
        notice=config.notice,
        feature_mean=overview.mean(axis=0, dtype=np.float64),
        feature_sd=np.where(spread > 1e-12, spread, 1.0),
    )


def _model(config: Any, features: SpotFeatures, n_genes: int) -> Any:
    """The network before its training."""
    import torch

    from neuromm.models import TRIPLEX, GeneDML, GeneDMLConfig, TRIPLEXConfig

    n_tiles = round(features.neighbors.shape[1] ** 0.5)
    torch.manual_seed(config.seed)
    own: dict[str, Any] = {
        "n_features": features.n_features,
        "n_genes": n_genes,
        "n_tiles": n_tiles,
    }
    if config.model == "TRIPLEX":
        size = {} if config.size == "published" else _SMALL_TRIPLEX
        return TRIPLEX(TRIPLEXConfig(**own | size))
    data = "her2st" if config.size == "small" else config.size
    base = GeneDMLConfig.preset(config.preset, data=data)
    size = dict(_SMALL) if config.size == "small" else {}
    weight = config.contrastive_weight
    if weight is None:
        weight = 1.0 if config.preset == "as_released" else _SMALL_WEIGHT
    own |= size | {"instance_weight": weight, "group_weight": weight}
    own["group_method"] = config.groups
    for name in ("neighbor_heads", "global_heads"):
        wanted = own.get(name, getattr(base, name))
        own[name] = _heads(features.n_features, wanted)
    if n_tiles == 1:  # the patch itself is no neighbourhood
        own["scales"] = ("target", "global")
    return GeneDML(replace(base, **own))


def _heads(n_features: int, wanted: int) -> int:
    """Most heads up to ``wanted`` that divide the vectors."""
    return next(n for n in range(wanted, 0, -1) if n_features % n == 0)


def _training_config(config: Any, n_groups: int) -> Any:
    from neuromm.training import TrainingConfig

    return TrainingConfig(
        n_epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=1e-2,
        schedule="cosine",
        validation_fraction=_VALIDATION if n_groups > 1 else 0.0,
        monitor="pcc",
        higher_is_better=True,
        seed=config.seed,
    )


def _groups(tissues: Sequence[Tissue]) -> list[str]:
    """Patient of each spot; of one patient, blocks of the sections."""
    from neuromm.encoding import tissue_folds

    patients = [one.section.patient for one in tissues]
    if len(set(patients)) > 1:
        sizes = [one.features.n_spots for one in tissues]
        return [
            patient
            for patient, n_spots in zip(patients, sizes, strict=True)
            for _ in range(n_spots)
        ]
    labels: list[str] = []
    folds = tissue_folds(
        [one.features.grid for one in tissues],
        patients,
        kind="blocks",
        n_folds=_BLOCKS,
        grid_kind=[grid_kind(one.adata) for one in tissues],
    )
    for number, one in enumerate(tissues):
        own = np.empty(one.features.n_spots, dtype=object)
        for fold in folds:
            own[fold.test.get(number, np.array([], dtype=int))] = fold.name
        labels += own.tolist()
    return labels


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the steps of a training."""
    from tqdm import tqdm

    with tqdm(total=1, unit="step", desc=label, disable=None) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told
