"""``--backbone``: feature spaces from the stimuli of a data set, before any fit.

Tables are computed once and lie in the output folder, named by a digest of what they
hold. From there on they are feature tables as ``--features`` names them, for units,
chunks and workers alike.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import InputMissingError, ResourceLimitError
from neuromm_pipelines.backbone_flags import BackboneSpec
from neuromm_pipelines.stimulus_events import shown_stimuli, stimulus_events
from neuromm_pipelines.units import STATE_FOLDER, locked

if TYPE_CHECKING:
    import pandas as pd

    from neuromm.features import Backbone, FeatureTable, StimulusRows, TokenStates
    from neuromm.features.backbones import Attrs, Modality
    from neuromm.features.film_rows import Scan
    from neuromm_pipelines.encode import EncodeConfig
    from neuromm_pipelines.encode_unit import EncodingUnit

__all__ = [
    "PlannedSpace",
    "planned_spaces",
    "planned_tables",
    "told_plan",
    "with_features",
    "with_names",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PlannedSpace:
    """A feature space that can be computed.

    Attributes
    ----------
    name : str
    backbone : Backbone
    rows : StimulusRows
    stimuli : str
        Where the stimuli were found, as sidecars say it.
    scans : tuple of Scan
        Volumes of films, in which rows are averaged.
    """

    name: str
    backbone: "Backbone"
    rows: "StimulusRows"
    stimuli: str
    scans: "tuple[Scan, ...]" = ()

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        volumes = sum(scan.n_volumes for scan in self.scans)
        return volumes if self.scans else len(self.rows.stimuli)

    @property
    def n_bytes(self) -> int:
        """Memory of the table, and of the steps that it is an average of."""
        kept = self.n_rows + (len(self.rows.stimuli) if self.scans else 0)
        return 4 * kept * self.backbone.dim

    @property
    def keys(self) -> "pd.DataFrame":
        """Keys of the table."""
        from neuromm.features.film_rows import scan_keys

        return scan_keys(self.scans) if self.scans else self.rows.keys

    def in_scans(self, table: "FeatureTable") -> "FeatureTable":
        """A table of all rows, averaged within volumes where these are films."""
        from neuromm.features.film_rows import scan_table

        return scan_table(table, self.scans) if self.scans else table


def with_names(config: "EncodeConfig") -> "EncodeConfig":
    """Let the spaces of backbones count as features, for checks that need names."""
    if config.backbones is None:
        return config
    named = {name: Path(name) for name in config.backbones.spaces}
    return replace(config, features={**config.features, **named}, backbones=None)


def planned_spaces(
    config: "EncodeConfig", units: "Sequence[EncodingUnit]"
) -> list[PlannedSpace]:
    """Load every backbone and find its stimuli; embed nothing.

    Raises
    ------
    UsageError
        If there is no such backbone, or the stimuli are not of its kind.
    InputMissingError
        If stimuli, weights or a package are missing.
    DataError
        If the events do not tell what was shown.
    ResourceLimitError
        If the tables do not fit into memory.
    """
    if config.backbones is None:
        return []
    asked = config.backbones
    backbones = {
        name: _loaded(name, spec, config) for name, spec in asked.spaces.items()
    }
    events = stimulus_events(config.bids_dir, units, config.trial_type)
    planned = []
    for name, backbone in backbones.items():
        shown = shown_stimuli(
            events,
            backbone,
            text_column=asked.text_column,
            context_words=asked.context_words,
            film_step_s=asked.film_step_s,
        )
        planned.append(
            PlannedSpace(name, backbone, shown.rows, shown.told, shown.scans)
        )
    _check_memory(config, planned)
    return planned


def planned_tables(planned: Sequence[PlannedSpace]) -> "list[FeatureTable]":
    """Tables of the right keys and sizes, without numbers: for a plan of the fits."""
    from neuromm.features import FeatureTable
    from neuromm.features.keys import KEYS
    from neuromm.features.layer_candidates import candidate_columns

    tables = []
    for space in planned:
        shape = (space.n_rows, space.backbone.dim)
        # One zero that is shown everywhere: a plan must not take the memory.
        values = np.broadcast_to(np.zeros(1, dtype=np.float32), shape)
        keys = space.keys
        tables.append(
            FeatureTable(
                name=space.name,
                key=next(key for key in KEYS if key in keys),
                keys=keys,
                values=values,
                columns=tuple(candidate_columns(space.backbone.attrs) or ()),
                source=Path(space.backbone.name),
                attrs=space.backbone.attrs,
            )
        )
    return tables


def told_plan(planned: Sequence[PlannedSpace]) -> list[str]:
    """One line a space: what would be embedded, and the memory of the result."""
    return [
        f"embed {space.name}: {_named(space.backbone)}, {len(space.rows.stimuli)} "
        f"stimuli ({space.stimuli}) x {space.backbone.dim} features, "
        f"{space.n_bytes / 2**20:.1f} MB in memory"
        for space in planned
    ]


def with_features(
    config: "EncodeConfig", planned: Sequence[PlannedSpace]
) -> "EncodeConfig":
    """Embed the stimuli, and give the configuration that reads the tables.

    Embeddings are kept in ``.neuromm/features/cache`` of the output folder, or below
    NEUROMM_CACHE_DIR if that is set: a second run embeds nothing.

    Raises
    ------
    DataError
        If a stimulus cannot be read.
    OutputError
        If the output folder cannot be written.
    """
    if not planned:
        return config
    from tqdm import tqdm

    from neuromm.features import FeatureCache, stimulus_features

    folder = config.output_dir / STATE_FOLDER / "features"
    shared = os.environ.get("NEUROMM_CACHE_DIR")
    cache = FeatureCache(None if shared else folder / "cache")
    paths = {}
    total = sum(len(space.rows.stimuli) for space in planned)
    # Tasks of a job array begin together: the first computes, the others wait.
    with (
        locked(config.output_dir, "features", wait=True),
        tqdm(total=total, unit="stimulus", disable=None) as bar,
    ):
        done = 0
        for space in planned:
            bar.set_postfix_str(space.name)
            logger.info("%s: %s", space.name, _named(space.backbone))
            table = stimulus_features(
                _Watched(space.backbone, bar), space.rows, name=space.name, cache=cache
            )
            done += len(space.rows.stimuli)
            bar.update(done - bar.n)  # repeats, and what the cache held
            attrs = {**table.attrs, "stimuli": space.stimuli}
            table = space.in_scans(replace(table, attrs=attrs))
            paths[space.name] = _kept(folder, table)
    return replace(config, features={**config.features, **paths}, backbones=None)


@dataclass(frozen=True, eq=False)
class _Watched:
    """A backbone that tells a progress bar what it has embedded."""

    inner: "Backbone"
    bar: Any

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def modality(self) -> "Modality":
        return self.inner.modality

    @property
    def attrs(self) -> "Attrs":
        return self.inner.attrs

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        values = self.inner.embed(stimuli)
        self.bar.update(len(stimuli))
        return values

    def tokens(self, stimuli: Sequence[object]) -> "list[TokenStates]":
        return self.inner.tokens(stimuli)


def _loaded(name: str, spec: BackboneSpec, config: "EncodeConfig") -> "Backbone":
    from neuromm.features import layer_candidates, load_backbone

    several = spec.layers is not None
    try:
        backbone = load_backbone(
            spec.source,
            random=spec.random,
            seed=config.model.seed,
            modality=spec.tower,
            layer=-1 if several else spec.layer,
            device=config.device or "cpu",
        )
        return layer_candidates(backbone, spec.layers or None) if several else backbone
    except ImportError as error:
        raise InputMissingError(f"--backbone {name}={spec.source}: {error}") from error


def _named(backbone: "Backbone") -> str:
    kind = backbone.attrs["kind"]
    return f"{backbone.name} ({kind}, layer: {backbone.attrs['layer']})"


def _check_memory(config: "EncodeConfig", planned: Sequence[PlannedSpace]) -> None:
    import psutil

    from neuromm_pipelines.encode_unit import memory_limit

    needed = sum(space.n_bytes for space in planned)
    available = psutil.virtual_memory().available
    allowed = min(memory_limit(config) or available, available)
    if needed > allowed:
        told = "; ".join(told_plan(planned))
        raise ResourceLimitError(
            f"the features of all stimuli need {needed / 2**20:.0f} MB and may take "
            f"{allowed / 2**20:.3g} MB ({told}). Raise --mem, or choose fewer "
            "recordings."
        )


def _kept(folder: Path, table: "FeatureTable") -> Path:
    """Write a table under a name that says what is in it; leave one that is there.

    A file is never replaced, so that its time of change holds for finished units.
    """
    from neuromm.features import write_features

    about = json.dumps(dict(table.attrs), sort_keys=True)
    digest = hashlib.sha256(about.encode())
    digest.update(table.keys.to_csv().encode())
    digest.update(np.ascontiguousarray(table.values).tobytes())
    path = folder / f"{table.name}-{digest.hexdigest()[:12]}.npz"
    return path if path.is_file() else write_features(path, table)
