"""``neuromm express fit``: train Gene-DML, and say on patients left out how good it is.

A ridge regression on the same features, folds and genes stands beside it everywhere.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from neuromm.core import DataError, UsageError
from neuromm.core.files import read_json, write_json
from neuromm_pipelines.express_data import (
    Encoder,
    Tissue,
    chosen_source,
    sections_of,
)
from neuromm_pipelines.express_reading import file_stamps, in_stains, training_tissues
from neuromm_pipelines.express_scores import (
    COLUMNS,
    N_HIGHLY,
    gene_table,
    highest,
    patient_means,
    print_means,
    section_rows,
    write_table,
)
from neuromm_pipelines.express_training import (
    TrainedExpression,
    observed_expression,
    trained,
)
from neuromm_pipelines.units import UnitState, locked

__all__ = ["Config", "run"]

FoldKind = Literal["patients", "blocks", "random", "none"]
_BACKBONE = "colorstats"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm express fit`` was asked to do."""

    data: Path
    model_dir: Path
    section_label: tuple[str, ...] | None = None
    slide: Path | None = None
    slide_scale: float | None = None
    microns_per_pixel: float | None = None
    backbone: str | None = None
    features: str | None = None
    encoder: str | None = None
    cache: Path | None = None
    patch_um: float = 112.0
    tiles: int = 5
    patch_tokens: bool = False
    stain_normalise: bool = False
    genes: int = 250
    panel: Literal["mean", "variable", "mean-variance"] = "mean"
    gene_list: tuple[str, ...] | None = None
    library: Literal["panel", "all"] = "panel"
    log_base: Literal["e", "2", "10"] = "e"
    smooth_training: bool = False
    model: Literal["GeneDML", "TRIPLEX"] = "GeneDML"
    size: Literal["small", "her2st", "stnet", "skinst"] = "small"
    preset: Literal["corrected", "as_released"] = "corrected"
    groups: Literal["kmeans", "spectral", "sinkhorn"] = "kmeans"
    contrastive_weight: float | None = None
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 2e-3
    folds: FoldKind | None = None
    n_folds: int | None = None
    fold: int | None = None
    also_random: bool = False
    seed: int = 0
    device: str = "auto"
    nthreads: int | None = None
    overwrite: bool = False
    notice: str = ""
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Score folds, train on all sections, write the model folder and its report.

    Returns
    -------
    exit_code : int

    Raises
    ------
    neuromm.core.NeurommError
        If data or settings are wrong.
    """
    import torch

    from neuromm_pipelines.devices import chosen_device

    _check(config)
    _, cuda = chosen_device(config.device, "torch")
    if config.nthreads:
        torch.set_num_threads(config.nthreads)
    sections = sections_of(config)
    config = _settled(config, sections)
    source = chosen_source(config, sections, default_backbone=_BACKBONE)
    if config.stain_normalise:
        source = in_stains(source, sections)
    encoder = Encoder.of(source, cache=config.cache, device=cuda)
    tissues = training_tissues(config, sections, encoder)
    work = _Work(config, encoder, cuda, file_stamps(sections, source))
    folds = _folds(config, tissues)
    if config.fold is not None:
        # A job array: the job that comes last joins what the others have scored.
        work.fold(config.fold, folds[config.fold], tissues)
        work = replace(work, config=replace(config, overwrite=False))
        lacking = [n for n, fold in enumerate(folds) if not work.has(n, fold)]
        if lacking:
            print(
                f"neuromm express fit: fold {config.fold} is done, {len(lacking)} of "
                f"{len(folds)} are still to be computed"
            )
            return 0
    results = [work.fold(number, fold, tissues) for number, fold in enumerate(folds)]
    genes = _genes(results)
    final = work.final(tissues, genes)
    if results:
        _report(config, final, results, genes)
    print(f"neuromm express fit: wrote {config.model_dir}")
    return 0


def _check(config: Config) -> None:
    for name, least in (("genes", 1), ("epochs", 1), ("batch_size", 2), ("tiles", 1)):
        if getattr(config, name) < least:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} must be at least {least}, got {getattr(config, name)}"
            )
    if config.fold is not None and config.folds == "none":
        raise UsageError("--fold names one of --folds, and there are none")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "neuromm express fit runs in one process. For several GPUs, run folds side "
            "by side with --fold"
        )


def _settled(config: Config, sections: Sequence[Any]) -> Config:
    """Folds by what there is, if none were asked for; simulated data say so."""
    notice = _notice(config.data)
    if config.folds is not None:
        return replace(config, notice=notice)
    if len({section.patient for section in sections}) > 1:
        return replace(config, folds="patients", notice=notice)
    print(
        "neuromm express fit: one patient, so blocks of tissue are left out. They say "
        "nothing about new patients"
    )
    return replace(config, folds="blocks", notice=notice)


def _notice(data: Path) -> str:
    path = (data if data.is_dir() else data.parent) / "dataset_description.json"
    try:
        name = str(read_json(path).get("Name", "")) if path.is_file() else ""
    except DataError:
        return ""
    return (
        f"Trained on simulated sections ({name})." if "simulat" in name.lower() else ""
    )


def _folds(config: Config, tissues: Sequence[Tissue]) -> list[Any]:
    from neuromm.encoding import tissue_folds
    from neuromm.io.tissue_sections import grid_kind

    if config.folds is None or config.folds == "none":
        return []
    kinds = [config.folds]
    if config.also_random and config.folds != "random":
        kinds.append("random")
    found = [
        fold
        for kind in kinds
        for fold in tissue_folds(
            [one.features.grid for one in tissues],
            [one.section.patient for one in tissues],
            kind=kind,
            n_folds=config.n_folds,
            grid_kind=[grid_kind(one.adata) for one in tissues],
            rng=config.seed,
        )
    ]
    if config.fold is not None and not 0 <= config.fold < len(found):
        raise UsageError(
            f"--fold takes 0 to {len(found) - 1}, the folds of {', '.join(kinds)}, got "
            f"{config.fold}"
        )
    return found


@dataclass(frozen=True)
class _Work:
    """Trains folds and the final model; what is finished is read."""

    config: Config
    encoder: Encoder
    device: str | None
    inputs: Mapping[str, str]

    def fold(self, number: int, fold: Any, tissues: Sequence[Tissue]) -> dict[str, Any]:
        """Scores of a fold: rows, genes and their correlations."""
        state, path = self._state(number, fold)
        folder = self.config.model_dir / "work" / f"fold-{number:03d}"
        if self.config.overwrite:
            state.forget()
            shutil.rmtree(folder, ignore_errors=True)
        if not state.is_done():
            # Folds run side by side, and no fold twice.
            with locked(self.config.model_dir, f"fold-{number:03d}"):
                print(f"neuromm express fit: {fold.name}", flush=True)
                result = trained(
                    self.config,
                    [tissues[one].part(rows) for one, rows in fold.train.items()],
                    self.encoder,
                    device=self.device,
                    folder=folder,
                    label=fold.name,
                )
                write_json(path, _scored(result, fold, tissues))
                state.finish([path])
                shutil.rmtree(folder, ignore_errors=True)
        return read_json(path)

    def has(self, number: int, fold: Any) -> bool:
        """Whether a fold is scored."""
        return self._state(number, fold)[0].is_done()

    def final(
        self, tissues: Sequence[Tissue], genes: pd.DataFrame
    ) -> TrainedExpression:
        """Train on all sections and write the model, its settings last.

        The genes that were predicted best on spots left out are those of PCC(H) of
        sections to come.
        """
        folder, work = self.config.model_dir, self.config.model_dir / "work"
        # Two jobs of an array may both see that all folds are scored.
        with locked(folder, "final", wait=True):
            return self._final(tissues, genes, folder, work / "final")

    def _final(
        self, tissues: Sequence[Tissue], genes: pd.DataFrame, folder: Path, work: Path
    ) -> TrainedExpression:
        if self.config.overwrite:
            shutil.rmtree(work, ignore_errors=True)
        result = trained(
            self.config,
            tissues,
            self.encoder,
            device=self.device,
            folder=work,
            label="all sections",
        )
        result.model.save_pretrained(folder)
        result.probe.save(folder / "ridge.safetensors")
        settings = result.settings
        best = [gene for gene in genes["gene"] if gene in set(settings.genes)]
        settings = replace(settings, highly=tuple(sorted(best[:N_HIGHLY])))
        settings.write(folder)
        return replace(result, settings=settings)

    def _state(self, number: int, fold: Any) -> tuple[UnitState, Path]:
        told = {
            name: value
            for name, value in asdict(self.config).items()
            if name not in _NOT_SETTINGS
        }
        told["fold"] = fold.name
        told["encoder_sha256"] = self.encoder.weights_sha256
        name = f"fold-{number:03d}"
        state = UnitState(self.config.model_dir, name, told, self.inputs)
        return state, self.config.model_dir / "folds" / f"{name}.json"


# Where files lie and how fast it goes change no number.
_NOT_SETTINGS = {
    "command_line", "model_dir", "cache", "device", "nthreads", "overwrite", "fold",
    "folds", "n_folds", "also_random",
}  # fmt: skip


def _scored(
    result: TrainedExpression, fold: Any, tissues: Sequence[Tissue]
) -> dict[str, Any]:
    """Rows of the sections of a fold, and correlations of genes."""
    from neuromm.metrics import expression_correlation

    settings = result.settings
    of_model = settings.model
    # PCC(H): genes are chosen where the models were trained, never where they are
    # scored.
    known: dict[str, list[Any]] = {of_model: [], "ridge": []}
    truth, labels = [], []
    for one, chosen in fold.train.items():
        part = tissues[one].part(chosen)
        found = result.predict(part.features)
        known[of_model].append(found["predicted"])
        known["ridge"].append(found["ridge"])
        truth.append(_observed(part, settings))
        labels += [one] * len(chosen)
    highly = {
        model: highest(
            expression_correlation(
                np.concatenate(values), np.concatenate(truth), labels
            ).by_gene
        )
        for model, values in known.items()
    }
    rows: list[dict[str, Any]] = []
    correlations = []
    for one, chosen in fold.test.items():
        part = tissues[one].part(chosen)
        found = result.predict(part.features)
        own, scores = section_rows(
            {of_model: found["predicted"], "ridge": found["ridge"]},
            _observed(part, settings),
            part.adata,
            section=part.section.name,
            patient=part.section.patient,
            fold=fold.name,
            highly=highly,
        )
        rows += own
        correlations.append(_plain(scores[of_model].by_gene[0]))
    return {
        "fold": fold.name,
        "rows": [{k: _plain(v) for k, v in row.items()} for row in rows],
        "genes": list(settings.genes),
        "correlations": correlations,
        "best_epoch": result.best_epoch,
    }


def _observed(part: Tissue, settings: Any) -> Any:
    return observed_expression(
        part.adata, settings.genes, settings.library, settings.log_base
    )


def _plain(value: Any) -> Any:
    """As JSON has it: None for nan."""
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def _genes(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Correlation of each gene over the sections left out, best first."""
    honest = [result for result in results if not _is_random(result["fold"])]
    honest = honest or list(results)  # random folds alone were asked for
    return gene_table(
        [result["genes"] for result in honest for _ in result["correlations"]],
        [
            np.array(own, dtype=float)  # None becomes nan
            for result in honest
            for own in result["correlations"]
        ],
    )


def _report(
    config: Config,
    final: TrainedExpression,
    results: Sequence[Mapping[str, Any]],
    genes: pd.DataFrame,
) -> None:
    """Tables, a page, and what it says in short."""
    from neuromm.core.provenance import package_versions
    from neuromm.report import write_expression_summary

    rows = pd.DataFrame(
        [row for result in results for row in result["rows"]], columns=list(COLUMNS)
    )
    is_random = rows["fold"].map(_is_random)
    honest = rows if is_random.all() else rows[~is_random]
    write_table(config.model_dir / "folds.tsv", rows)
    write_table(config.model_dir / "genes.tsv", genes)
    means = patient_means(honest)
    write_table(config.model_dir / "means.tsv", means)
    settings = final.settings
    write_expression_summary(
        config.model_dir,
        rows,
        genes=genes,
        told=settings.told()
        | {
            "versions": package_versions(),
            "n_genes": len(settings.genes),
            "folds": config.folds,
            "highly_chosen_on": "train",
            "n_highly": min(N_HIGHLY, len(settings.genes)),
            "seed": config.seed,
        },
    )
    _print(means, settings, config)
    if is_random.any() and not is_random.all():
        leak = patient_means(rows[is_random])
        print("random spots, whose neighbours were trained on (a leak):")
        print_means(leak)


def _is_random(fold: str) -> bool:
    return fold.startswith("random")


def _print(means: pd.DataFrame, settings: Any, config: Config) -> None:
    stand_in = " (a stand-in: no network made them)" if settings.is_stand_in else ""
    what = {
        "patients": "patients left out",
        "blocks": "blocks left out, which say nothing about new patients",
        "random": "random spots, whose neighbours were trained on: a leak",
    }[str(config.folds)]
    print(
        f"neuromm express fit: {len(settings.genes)} genes, features "
        f"{settings.encoder}{stand_in}; {what}"
    )
    print_means(means)
