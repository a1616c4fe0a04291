"""``neuromm express evaluate``: what was predicted against what was measured."""

import logging
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import write_json
from neuromm.io.tissue_sections import TissueSection
from neuromm_pipelines.express_data import read_spots, sections_of
from neuromm_pipelines.express_predict import thumbnail_of
from neuromm_pipelines.express_scores import (
    COLUMNS,
    MEASURES,
    N_HIGHLY,
    gene_table,
    patient_means,
    print_means,
    section_rows,
    write_table,
)
from neuromm_pipelines.express_training import observed_expression
from neuromm_pipelines.outcomes import Outcome, Status, exit_code, outcome_of, summary

__all__ = ["Config", "run"]

logger = logging.getLogger(__name__)

_TRAINED = "trained on"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm express evaluate`` was asked to do."""

    data: Path
    output_dir: Path
    section_label: tuple[str, ...] | None = None
    slide: Path | None = None
    slide_scale: float | None = None
    microns_per_pixel: float | None = None
    include_trained: bool = False
    smooth_truth: bool = False
    debug: bool = False
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Score every section that has a prediction and counts.

    Returns
    -------
    exit_code : int
        0 if all were scored; 1 if some failed; 66 if none has both.

    Raises
    ------
    neuromm.core.NeurommError
        If folders or settings are wrong.
    """
    sections = [
        section
        for section in sections_of(config)
        if section.spots is not None
        and (config.output_dir / f"{section.name}.h5ad").is_file()
    ]
    if not sections:
        raise InputMissingError(
            f"{config.output_dir}: holds no prediction of a section of {config.data} "
            "with counts. Run neuromm express predict first"
        )
    work = _Work(config, [], [], [])
    ended: list[Outcome] = [
        outcome_of(
            section.name,
            lambda section=section: work(section),  # type: ignore[misc]
            output_dir=config.output_dir,
            omp_nthreads=None,
            debug=config.debug,
        )
        for section in sections
    ]
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm express: error: {outcome.message}", file=sys.stderr)
    if work.rows:
        _report(config, work)
    elif all(outcome.status == "skipped" for outcome in ended):
        raise InputMissingError(
            f"all {len(sections)} sections are of patients that the model was trained "
            "on, which says nothing about new ones. --include-trained scores them "
            "nevertheless"
        )
    print(f"neuromm express: {summary(ended)}")
    return exit_code(ended)


@dataclass(frozen=True)
class _Work:
    """Scores sections, and collects what the tables hold."""

    config: Config
    rows: list[dict[str, Any]]
    genes: list[tuple[list[str], Any]]
    told: list[dict[str, Any]]

    def __call__(self, section: TissueSection) -> Status:
        made = _prediction(self.config.output_dir / f"{section.name}.h5ad")
        told = made.uns["neuromm"]["express"]
        was_trained = section.patient in list(told["trained_patients"])
        if was_trained and not self.config.include_trained:
            print(
                f"neuromm express: {section.name}: its patient was trained on, so it "
                "does not count",
                file=sys.stderr,
            )
            return "skipped"
        adata = read_spots(section)
        lacking = [name for name in made.obs_names if name not in adata.obs_names]
        if lacking:
            raise DataError(
                f"{len(lacking)} predicted spots are not in its counts, such as "
                f"{lacking[0]}: was another section predicted?",
                section.spots,
            )
        genes = list(made.var_names)
        observed = observed_expression(
            adata[made.obs_names],
            genes,
            told["library"],
            told["log_base"],
            target_sum=float(told["target_sum"]),
            smooth=self.config.smooth_truth,
        )
        models = {
            str(told["model"]): made.layers["predicted"],
            "ridge": made.layers["ridge"],
        }
        highly = made.var["highly_predicted"].to_numpy(dtype=bool)
        rows, scores = section_rows(
            models,
            observed,
            made,
            section=section.name,
            patient=section.patient,
            fold=_TRAINED if was_trained else "new patient",
            highly=dict.fromkeys(models, highly) if highly.any() else None,
        )
        self.rows.extend(rows)
        self.genes.append((genes, scores[str(told["model"])].by_gene[0]))
        self.told.append(
            dict(told)
            | {
                "highly_chosen_on": "train" if highly.any() else "test",
                "n_highly": int(highly.sum()) or min(N_HIGHLY, len(genes)),
                "smoothed": self.config.smooth_truth,
            }
        )
        self._write_page(section, made, observed, rows, scores)
        return "done"

    def _write_page(
        self,
        section: TissueSection,
        made: Any,
        observed: Any,
        rows: list[dict[str, Any]],
        scores: Any,
    ) -> None:
        from neuromm.models.gene_dml import CARD as GENE_DML
        from neuromm.models.triplex import CARD as TRIPLEX
        from neuromm.report import ExpressionSectionScores, write_expression_page

        told = made.uns["neuromm"]["express"]
        model = str(told["model"])
        made.layers["observed"] = observed.astype(np.float32)
        made.uns["neuromm"]["expression"] = {"smoothed": self.config.smooth_truth}
        picture, scale = thumbnail_of(section, made)
        write_expression_page(
            self.config.output_dir,
            section.name,
            made,
            scores=ExpressionSectionScores(
                models={
                    row["model"]: {name: row[name] for name in MEASURES} for row in rows
                },
                genes=pd.DataFrame(
                    {
                        "gene": list(made.var_names),
                        "pcc": scores[model].by_gene[0],
                        "pcc_ridge": scores["ridge"].by_gene[0],
                    }
                ),
                highly_chosen_on=self.told[-1]["highly_chosen_on"],
                n_highly=self.told[-1]["n_highly"],
            ),
            thumbnail=picture,
            thumbnail_scale=scale,
            card=GENE_DML if model == "GeneDML" else TRIPLEX,
            warnings=list(told["findings"]),
        )


def _prediction(path: Path) -> Any:
    import anndata

    from neuromm.io.file_limits import check_hdf5

    check_hdf5(path, "AnnData (.h5ad)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = anndata.read_h5ad(path)
        told = made.uns["neuromm"]["express"]
        for name in ("model", "library", "log_base", "target_sum", "trained_patients"):
            told[name]
        made.layers["predicted"], made.layers["ridge"], made.var["highly_predicted"]
    except MemoryError:
        raise
    except Exception as error:  # the HDF5 library meets damage with many errors
        raise DataError(
            f"is no prediction of neuromm express ({error}): predict the section again "
            "with --overwrite",
            path,
        ) from error
    return made


def _report(config: Config, work: _Work) -> None:
    from neuromm.report import write_expression_summary

    rows = pd.DataFrame(work.rows, columns=list(COLUMNS))
    is_new = rows["fold"] != _TRAINED
    # Patients that were trained on never enter a mean with others.
    scored = rows[is_new] if is_new.any() else rows
    means = patient_means(scored)
    genes = gene_table(
        [names for names, _ in work.genes], [values for _, values in work.genes]
    )
    write_table(config.output_dir / "scores.tsv", rows)
    write_table(config.output_dir / "genes.tsv", genes)
    write_table(config.output_dir / "means.tsv", means)
    told = work.told[0]
    write_expression_summary(config.output_dir, rows, genes=genes, told=told)
    n_sections, n_patients = rows["section"].nunique(), rows["patient"].nunique()
    write_json(
        config.output_dir / "evaluation.json",
        {
            "Description": "Means over patients, with 95 % intervals by resampling "
            "patients (percentiles; too narrow for few patients)",
            "patients": "new" if is_new.any() else "trained on",
            "n_sections": int(scored["section"].nunique()),
            "n_patients": int(scored["patient"].nunique()),
            "smoothed_truth": config.smooth_truth,
            "highly_chosen_on": told["highly_chosen_on"],
            "means": [
                {
                    key: None if isinstance(value, float) and np.isnan(value) else value
                    for key, value in row.items()
                }
                for row in means.to_dict("records")
            ],
        },
    )
    print(f"neuromm express: {n_sections} section(s) of {n_patients} patient(s)")
    if is_new.any():
        print("new patients:")
        print_means(means)
    if not is_new.all():
        print("patients that were trained on, which says nothing about new ones:")
        print_means(patient_means(rows[~is_new]))
