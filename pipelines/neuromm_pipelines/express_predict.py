"""``neuromm express predict``: expression at the spots of sections, or over a slide."""

import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError, OutputError, UsageError
from neuromm.core.files import atomic_path, file_digest, remove_leftovers
from neuromm.core.provenance import Provenance, package_versions
from neuromm.io.tissue_sections import TissueSection
from neuromm_pipelines.express_data import (
    Encoder,
    Tissue,
    read_spots,
    read_tissue,
    sections_of,
    vector_files,
    vectors_source,
)
from neuromm_pipelines.express_settings import (
    ExpressSettings,
    read_settings,
    weights_digest,
)
from neuromm_pipelines.express_training import TrainedExpression
from neuromm_pipelines.outcomes import (
    Outcome,
    Status,
    exit_code,
    log_run,
    outcome_of,
    summary,
)
from neuromm_pipelines.units import UnitState

__all__ = ["Config", "run", "thumbnail_of", "write_h5ad"]

logger = logging.getLogger(__name__)

_THUMBNAIL_PX = 800


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm express predict`` was asked to do."""

    data: Path
    output_dir: Path
    model: Path | None
    section_label: tuple[str, ...] | None = None
    slide: Path | None = None
    slide_scale: float | None = None
    microns_per_pixel: float | None = None
    backbone: str | None = None
    features: str | None = None
    encoder: str | None = None
    cache: Path | None = None
    grid_um: float | None = None
    overwrite: bool = False
    device: str = "auto"
    nthreads: int | None = None
    debug: bool = False
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Predict every section; one that fails does not stop the others.

    Returns
    -------
    exit_code : int
        0 if every section is done; 1 if some failed; the common code if all failed
        alike.

    Raises
    ------
    neuromm.core.NeurommError
        If the model, the data or a setting is wrong.
    """
    import torch
    from tqdm import tqdm

    from neuromm_pipelines.devices import chosen_device

    started = time.monotonic()
    if config.model is None:
        raise UsageError("--model is needed: a folder that neuromm express fit wrote")
    if config.grid_um is not None and not config.grid_um > 0:
        raise UsageError(f"--grid-um must be above 0, got {config.grid_um}")
    model = _loaded(config.model)
    _, cuda = chosen_device(config.device, "torch")
    if config.nthreads:
        torch.set_num_threads(config.nthreads)
    model.model.to(cuda or "cpu")
    sections = sections_of(config)
    encoder = _encoder(config, model.settings, cuda)
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {config.output_dir}: {error.strerror}. Choose a folder "
            "that you may write to"
        ) from error
    remove_leftovers(config.output_dir)
    worker = _Worker(
        config, model, encoder, str(cuda or "cpu"), weights_digest(config.model)
    )
    ended: list[Outcome] = []
    for section in tqdm(sections, unit="section", disable=None):
        outcome = outcome_of(
            section.name,
            lambda section=section: worker(section),  # type: ignore[misc]
            output_dir=config.output_dir,
            omp_nthreads=None,
            debug=config.debug,
        )
        logger.info("%s: %s", section.name, outcome.status)
        ended.append(outcome)
    if any(outcome.status == "done" for outcome in ended):
        wall_time = time.monotonic() - started
        log_run(config.output_dir, config.command_line, ended, wall_time)
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm express: error: {outcome.message}", file=sys.stderr)
    print(f"neuromm express: {summary(ended)}")
    return exit_code(ended)


def write_h5ad(path: Path, adata: Any) -> Path:
    """Write an AnnData whole or not at all."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # anndata tells which of its formats it writes.
        warnings.simplefilter("ignore")
        adata.write_h5ad(temporary, compression="gzip")
    return path


def thumbnail_of(section: TissueSection, adata: Any) -> tuple[Any, float]:
    """Small picture of a section, and its size in that of the full-resolution one."""
    if section.slide is None:
        return None, 1.0
    slide = section.open_slide(adata)
    picture = slide.thumbnail(_THUMBNAIL_PX)
    return picture, picture.shape[1] / slide.width


def _loaded(folder: Path) -> TrainedExpression:
    from neuromm.encoding import ExpressionProbe
    from neuromm.models import TRIPLEX, GeneDML

    settings = read_settings(folder)
    kind: Any = {"GeneDML": GeneDML, "TRIPLEX": TRIPLEX}.get(settings.model)
    if kind is None:
        raise DataError(f"holds the model {settings.model}", folder / "express.json")
    return TrainedExpression(
        settings,
        kind.from_pretrained(folder),
        ExpressionProbe.load(folder / "ridge.safetensors"),
        0,
        np.nan,
    )


def _encoder(
    config: Config,
    settings: ExpressSettings,
    device: str | None,
) -> Encoder:
    """What the model was trained with, wherever its weights and files lie now."""
    own = settings.source
    if own.backbone:
        if config.features is not None:
            raise UsageError(
                f"the model was trained with the backbone {own.backbone}: --features "
                "has no meaning for it"
            )
        source = replace(own, backbone=config.backbone or own.backbone)
    else:
        if config.backbone is not None:
            raise UsageError(
                f"the model was trained on vectors of {settings.encoder} that were "
                "computed elsewhere: give such vectors with --features"
            )
        source = own
        if config.features is not None:
            source = vectors_source(config.features, config.encoder or own.encoder)
    encoder = Encoder.of(source, cache=config.cache, device=device)
    if encoder.weights_sha256 != settings.encoder_sha256:
        raise UsageError(
            f"--backbone {source.backbone}: its weights are not those that the model "
            f"was trained with ({settings.encoder})"
        )
    return encoder


@dataclass(frozen=True)
class _Worker:
    """Predicts one section."""

    config: Config
    trained: TrainedExpression
    encoder: Encoder
    device: str
    weights: str

    def __call__(self, section: TissueSection) -> Status:
        settings = self.trained.settings
        files = [*section.files, *vector_files(section, self.encoder.source)]
        inputs = {str(path): file_digest(path) for path in files}
        told = {
            "weights": self.weights,
            "grid_um": self.config.grid_um,
            "microns_per_pixel": self.config.microns_per_pixel,
            "slide_scale": section.scale,
            "features": self.encoder.source.place,
        }
        state = UnitState(self.config.output_dir, section.name, told, inputs)
        if self.config.overwrite:
            state.forget()
        page = self.config.output_dir / f"{section.name}_report.html"
        # Evaluation writes the page again, with scores.
        if state.is_done() and page.is_file():
            return "skipped"
        spots = read_spots(section, grid_um=self.config.grid_um)
        tissue = read_tissue(section, spots, self.encoder)
        if tissue.features.encoder != settings.encoder:
            raise UsageError(
                f"{section.name}: its vectors are of {tissue.features.encoder}, the "
                f"model was trained on those of {settings.encoder}"
            )
        provenance = Provenance(
            versions=package_versions(), config=told, inputs=inputs, device=self.device
        )
        made = _predicted(tissue, self.trained, provenance)
        path = write_h5ad(self.config.output_dir / f"{section.name}.h5ad", made)
        _write_page(self.config.output_dir, tissue, made, settings.model)
        state.finish([path])
        return "done"


def _predicted(
    tissue: Tissue, trained: TrainedExpression, provenance: Provenance
) -> Any:
    """AnnData of a section: what was predicted, and what was measured if it was."""
    import anndata
    import pandas as pd

    from neuromm_pipelines.express_training import observed_expression

    settings, adata = trained.settings, tissue.adata
    found = trained.predict(tissue.features)
    values = found["predicted"].astype(np.float32)
    made = anndata.AnnData(
        values,
        obs=adata.obs.copy(),
        var=pd.DataFrame(
            {"highly_predicted": [gene in settings.highly for gene in settings.genes]},
            index=list(settings.genes),
        ),
        obsm={
            "spatial": np.asarray(adata.obsm["spatial"], dtype=np.float64),
            "genedml": found["fused"].astype(np.float32),
        },
        layers={"predicted": values, "ridge": found["ridge"].astype(np.float32)},
    )
    is_measured = set(settings.genes) <= set(adata.var_names)
    if is_measured:
        made.layers["observed"] = observed_expression(
            adata, settings.genes, settings.library, settings.log_base
        ).astype(np.float32)
    made.uns["spatial"] = {
        name: {"scalefactors": dict(library.get("scalefactors", {})), "images": {}}
        for name, library in adata.uns["spatial"].items()
    }
    made.uns["neuromm"] = {
        "express": json.loads(
            json.dumps(
                settings.told()
                | {
                    "patient": tissue.section.patient,
                    "versions": package_versions(),
                    "findings": [*tissue.findings, *_warnings(tissue, settings)],
                }
            )
        ),
        # One text: AnnData keeps no lists of mappings, and names of files hold slashes.
        "provenance": json.dumps(provenance.to_dict(volatile=False)),
    }
    return made


def _warnings(tissue: Tissue, settings: ExpressSettings) -> list[str]:
    found = []
    section = tissue.section
    if section.patient in settings.sections.values():
        found.append(
            f"The model was trained on a patient of this name ({section.patient}): if "
            "it is the same, this says nothing about new patients."
        )
    overview = (tissue.features.overview - settings.feature_mean) / settings.feature_sd
    far = float(np.median(np.abs(overview.mean(axis=0))))
    if far > 1.0:
        found.append(
            f"Its features lie {far:.1f} standard deviations of the training spots "
            "away in the median: another stain, scanner or tissue?"
        )
    return found


def _write_page(output_dir: Path, tissue: Tissue, made: Any, model: str) -> None:
    from neuromm.models.gene_dml import CARD as GENE_DML
    from neuromm.models.triplex import CARD as TRIPLEX
    from neuromm.report import write_expression_page

    picture, scale = thumbnail_of(tissue.section, tissue.adata)
    write_expression_page(
        output_dir,
        tissue.section.name,
        made,
        thumbnail=picture,
        thumbnail_scale=scale,
        card=GENE_DML if model == "GeneDML" else TRIPLEX,
        warnings=list(made.uns["neuromm"]["express"]["findings"]),
    )
