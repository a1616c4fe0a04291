"""Linear probes of frozen features: what a regression reads of expression.

No network's number stands alone: on the same features, spots and genes, a probe's
stands beside it.

References
----------
Jaume et al. (2024) HEST-1k: a dataset for spatial transcriptomics and histology image
analysis. NeurIPS; arXiv 2406.16192, and the code of its benchmark
(github.com/mahmoodlab/HEST, src/hest/bench: benchmark.py, trainer.py).
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import atomic_path
from neuromm.core.spot_features import SpotFeatures
from neuromm.core.spot_grid import GridKind
from neuromm.encoding.ridge_cv import RidgeCV
from neuromm.encoding.section_folds import tissue_folds
from neuromm.encoding.splitters import RunKFold, Split

__all__ = [
    "ExpressionProbe",
    "ProbeProtocol",
    "expression_probe",
    "fit_expression_probe",
]

ProbeProtocol = Literal["ridge", "hest"]

_N_COMPONENTS = 256  # of HEST
_TENSORS, _METADATA = ("center", "weights", "intercept"), "neuromm.expression_probe"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpressionProbe:
    """A linear regression of frozen features that has been fitted.

    Attributes
    ----------
    protocol : {"ridge", "hest"}
        See `expression_probe`.
    encoder : str
        Of the features that it was fitted on; it takes no others.
    n_features : int
        Length of their vectors.
    n_tiles : int
        Tiles around a spot, its own too.
    center : array of shape (n_columns,)
        Mean over the training spots of the columns that are read: the vector of the
        patch and, for "ridge" with more than one tile, the mean vector of the tiles.
    weights : array of shape (n_columns, n_genes)
        Of the columns in their own unit.
    intercept : array of shape (n_genes,)
        Added to (columns - center) weights; 0 for "hest".
    """

    protocol: ProbeProtocol
    encoder: str
    n_features: int
    n_tiles: int
    center: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def predict(self, features: SpotFeatures) -> NDArray[np.float64]:
        """Expression at the spots of a section, of shape (n_spots, n_genes).

        Raises
        ------
        UsageError
            If the features are of another encoder or shape, or hold nan or infinity.
        """
        fitted_on = (self.encoder, self.n_features, self.n_tiles)
        if _kind(features) != fitted_on:
            raise UsageError(
                f"{features.section}: the probe was fitted on features of (encoder, "
                f"length, tiles) {fitted_on}, got {_kind(features)}"
            )
        x = _columns(features, self.protocol)
        return (x - self.center) @ self.weights + self.intercept

    def save(self, path: str | Path) -> Path:
        """Write as safetensors, whole or not at all; the same bytes each time."""
        from safetensors.numpy import save_file

        # One entry: the format keeps several in no order.
        told = {
            name: getattr(self, name)
            for name in ("protocol", "encoder", "n_features", "n_tiles")
        }
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={_METADATA: json.dumps(told)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputMissingError
            If there is no such file.
        DataError
            If it is damaged, or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise InputMissingError(f"{path}: no such file, expected a saved probe")
        try:
            with safe_open(path, framework="np") as file:
                told = json.loads((file.metadata() or {})[_METADATA])
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
            probe = cls(**told, **tensors)
            probe._check()
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"is no saved linear probe ({error!r})", path) from error
        return probe

    def _check(self) -> None:
        if self.protocol not in ("ridge", "hest"):
            raise ValueError(f"protocol {self.protocol!r}")
        n_columns = self.n_features * (2 if _reads_tiles(self) else 1)
        n_genes = self.intercept.size
        shapes = [getattr(self, name).shape for name in _TENSORS]
        if shapes != [(n_columns,), (n_columns, n_genes), (n_genes,)]:
            raise ValueError(f"shapes {shapes} for {n_columns} columns")


def expression_probe(
    features: Sequence[SpotFeatures],
    expression: Sequence[NDArray[np.floating]],
    groups: Sequence[Any],
    test_features: Sequence[SpotFeatures],
    *,
    protocol: ProbeProtocol = "ridge",
) -> list[NDArray[np.float64]]:
    """Predict expression by a linear regression of frozen features.

    Parameters
    ----------
    features : sequence of SpotFeatures
        Training sections, or parts of them.
    expression : sequence of arrays of shape (n_spots, n_genes)
        One a section, such as the logarithm of normalised counts.
    groups : sequence of labels, or of arrays of n_spots labels
        One a section: its patient, or one for each spot. The penalty is chosen by
        leaving one group out at a time.
    test_features : sequence of SpotFeatures
    protocol : {"ridge", "hest"}
        "ridge": the patch and the mean of the tiles around it, standardised; an
        intercept, and a penalty for each gene. "hest": the patch alone, as
        HEST-Benchmark has it, for comparison with published numbers.

    Returns
    -------
    predicted : list of arrays of shape (n_spots, n_genes)
        One for each of ``test_features``.

    Raises
    ------
    UsageError
        If sections, spots, genes, groups or features do not match, or values are not
        finite.

    Notes
    -----
    "ridge" is `RidgeCV`. Where all groups are one, its penalty is chosen on quarters of
    each section without the spots that touch them (`tissue_folds`); an array whose rows
    and columns add up to even numbers alone, or to odd ones, is taken as hexagonal. A
    gene that does not vary gives its mean. The tiles are those that lie on the slide,
    the spot's own too; where there is no other, the patch stands alone.

    "hest" standardises the patch vector, keeps at most 256 principal components, and
    has the fixed penalty alpha = 100 / (n_components * n_genes) of
    ``|y - X w|^2 + alpha |w|^2``
    (``alpha = 100 / (X_train.shape[1] * y_train.shape[1])`` in trainer.py; X_train are
    the components). There is **no intercept** and targets are taken as given: as
    components have a mean of 0, predictions lack the mean of each gene unless targets
    are centred. Correlations do not depend on it, errors do. Where the
    authors iterate (lsqr), we solve in closed form. ``groups`` are not used.
    """
    probe = fit_expression_probe(features, expression, groups, protocol=protocol)
    return [probe.predict(one) for one in test_features]


def fit_expression_probe(
    features: Sequence[SpotFeatures],
    expression: Sequence[NDArray[np.floating]],
    groups: Sequence[Any],
    *,
    protocol: ProbeProtocol = "ridge",
) -> ExpressionProbe:
    """Fit the regression of `expression_probe`, to keep it.

    Parameters
    ----------
    features, expression, groups, protocol
        As in `expression_probe`.

    Returns
    -------
    probe : ExpressionProbe

    Raises
    ------
    UsageError
        As `expression_probe`.
    """
    if protocol not in ("ridge", "hest"):
        raise UsageError(f"protocol must be 'ridge' or 'hest', got {protocol!r}")
    y, labels = _checked(features, expression, groups)
    x = np.concatenate([_columns(own, protocol) for own in features])
    center, spread = x.mean(axis=0), x.std(axis=0)
    # A feature that does not vary says nothing: it stays, as zeros.
    spread[spread <= 1e-12 * np.abs(x).max(axis=0)] = np.inf
    x = (x - center) / spread
    if protocol == "hest":
        weights, intercept = _hest_weights(x, y), np.zeros(y.shape[1])
    else:
        weights, intercept = _ridge_weights(x, y, _inner_folds(features, labels))
    encoder, n_features, n_tiles = _kind(features[0])
    return ExpressionProbe(
        protocol=protocol,
        encoder=encoder,
        n_features=n_features,
        n_tiles=n_tiles,
        center=center,
        weights=weights / spread[:, None],
        intercept=intercept,
    )


def _kind(own: SpotFeatures) -> tuple[str, int, int]:
    return own.encoder, own.n_features, own.neighbors.shape[1]


def _reads_tiles(probe: ExpressionProbe) -> bool:
    return probe.protocol == "ridge" and probe.n_tiles > 1


def _columns(own: SpotFeatures, protocol: ProbeProtocol) -> NDArray[np.float64]:
    """Vectors that are regressed on, of shape (n_spots, n_columns)."""
    x = own.overview.astype(np.float64)
    if protocol == "ridge" and own.neighbors.shape[1] > 1:
        x = np.hstack([x, _around(own)])
    if not np.isfinite(x).all():
        raise UsageError(f"{own.section}: features hold nan or infinity")
    return x


def _around(own: SpotFeatures) -> NDArray[np.float64]:
    """Mean of the tiles on the slide; others may hold anything."""
    means = [
        tiles[is_on_slide].mean(axis=0, dtype=np.float64)
        for tiles, is_on_slide in zip(own.neighbors, own.neighbor_mask, strict=True)
    ]
    return np.array(means).reshape(own.n_spots, own.neighbors.shape[2])


def _ridge_weights(
    x: NDArray[np.float64], y: NDArray[np.float64], folds: list[Split]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # From nearly least squares to nearly the mean: eigenvalues of standardised X'X add
    # up to the number of spots times that of features that vary.
    n_varying = max(int(x.any(axis=0).sum()), 1)
    alphas = len(x) * np.geomspace(1e-4, 10 * n_varying, 25)
    with warnings.catch_warnings():
        # Genes that features tell nothing about choose the largest one, and those that
        # do not vary are given by their mean, as they should be.
        warnings.filterwarnings("ignore", ".* chose the (smallest|largest) alpha")
        warnings.filterwarnings("ignore", ".* targets are constant")
        model = RidgeCV(alphas=alphas, cv=folds).fit(x, y)
    return np.asarray(model.coef_), np.asarray(model.intercept_)


def _hest_weights(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of standardised features, through their principal components."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    u, s, vt = u[:, :_N_COMPONENTS], s[:_N_COMPONENTS], vt[:_N_COMPONENTS]
    alpha = 100 / (len(s) * y.shape[1])
    weights: NDArray[np.float64] = vt.T @ ((s / (s**2 + alpha))[:, None] * (u.T @ y))
    return weights


def _inner_folds(features: Sequence[SpotFeatures], labels: NDArray[Any]) -> list[Split]:
    if len(np.unique(labels)) > 1:
        return list(RunKFold().split(labels, groups=labels))
    start = np.cumsum([0, *(own.n_spots for own in features)])
    try:
        folds = tissue_folds(
            [own.grid for own in features],
            ["one"] * len(features),
            kind="blocks",
            grid_kind=[_array_kind(own) for own in features],
        )
    except UsageError as error:
        raise UsageError(
            "all training spots are of one group, and sections of "
            f"{[own.n_spots for own in features]} spots are too small to choose a "
            f"penalty on blocks of them: give several groups, or more spots ({error})"
        ) from error
    return [
        (
            np.concatenate([start[one] + rows for one, rows in fold.train.items()]),
            np.concatenate([start[one] + rows for one, rows in fold.test.items()]),
        )
        for fold in folds
    ]


def _array_kind(own: SpotFeatures) -> GridKind:
    return "visium" if np.ptp(own.grid.sum(axis=1) % 2) == 0 else "st"


def _checked(
    features: Sequence[SpotFeatures],
    expression: Sequence[NDArray[np.floating]],
    groups: Sequence[Any],
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Targets and groups of all training spots."""
    if not features or not len(features) == len(expression) == len(groups):
        raise UsageError(
            "needs expression and a group for each training section, got "
            f"{len(features)} sections, {len(expression)} tables and {len(groups)} "
            "groups"
        )
    targets = [np.asarray(one, dtype=np.float64) for one in expression]
    labels = []
    for own, values, group in zip(features, targets, groups, strict=True):
        shape = (own.n_spots, *targets[0].shape[1:])
        if values.ndim != 2 or values.shape != shape or not values.shape[1]:
            raise UsageError(
                f"{own.section}: expression must have a row for each of {own.n_spots} "
                f"spots and the genes of the other sections, got {values.shape}"
            )
        if not np.isfinite(values).all():
            raise UsageError(f"{own.section}: expression holds nan or infinity")
        label = np.asarray(group)
        if label.shape not in ((), (own.n_spots,)):
            raise UsageError(
                f"{own.section}: groups must be one label, or one for each of "
                f"{own.n_spots} spots, got shape {label.shape}"
            )
        if _kind(own) != _kind(features[0]):
            raise UsageError(
                f"{own.section}: features must be as those of {features[0].section}, "
                f"(encoder, length, tiles) {_kind(features[0])}, got {_kind(own)}"
            )
        labels.append(np.broadcast_to(label, own.n_spots))
    return np.concatenate(targets), np.concatenate(labels)
