"""Reports and dataset-level files of ``neuromm encode``, from what lies on disk."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuromm.core import InputMissingError, NeurommError
from neuromm.core.files import write_text
from neuromm_pipelines.execution import processes, result_of
from neuromm_pipelines.outcomes import Outcome
from neuromm_pipelines.units import locked

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig

__all__ = ["prepare_output", "rewrite", "write_group", "write_subjects"]

logger = logging.getLogger(__name__)

# Name of the lock on the files that every subject shares.
_SHARED = "dataset"


def prepare_output(config: "EncodeConfig") -> None:
    """Make the output a BIDS derivative dataset, if it is none yet."""
    from neuromm.report import prepare_output as prepare

    with locked(config.output_dir, _SHARED, wait=True):
        prepare(config.output_dir, config.bids_dir, config.derivatives)


def write_subjects(
    config: "EncodeConfig", outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Write the report of every subject that has finished units.

    A report is an output like others: one that cannot be written is a failure. Several
    are written at once where the command has several processes.
    """
    changed = {o.subject for o in outcomes if o.status == "done"}
    subjects = [
        subject
        for subject in sorted({o.subject for o in outcomes if o.status != "failed"})
        if subject in changed
        or not (config.output_dir / f"sub-{subject}.html").exists()
    ]
    n_workers = min(config.nprocs, len(subjects))
    if n_workers < 2:
        ended = [_try_subject(config, subject) for subject in subjects]
    else:
        with processes(n_workers) as pool:
            jobs = {
                f"report of sub-{subject}": pool.submit(_try_subject, config, subject)
                for subject in subjects
            }
            ended = [result_of(name, job) for name, job in jobs.items()]
    return [outcome for outcome in ended if outcome.status == "failed"]


def rewrite(config: "EncodeConfig") -> int:
    """Rebuild reports, or the methods text alone, from the files on disk."""
    from neuromm.report import methods_text, read_units

    subjects = list(config.participant_label) or _finished_subjects(config)
    for subject in subjects:
        if config.boilerplate_only:
            texts = [
                methods_text(unit.design)
                for unit in read_units(config.output_dir, subject)
            ]
            path = config.output_dir / "logs" / f"sub-{subject}_methods.md"
            write_text(path, "\n\n".join(dict.fromkeys(texts)) + "\n")
            print(path)
        else:
            print(_write_subject(config, subject))
    print(f"neuromm encode: {len(subjects)} done, 0 skipped, 0 failed")
    return 0


def write_group(config: "EncodeConfig") -> int:
    """Write the group's maps, tables and report from the participants' outputs."""
    from neuromm.report import write_group_report

    subjects = _finished_subjects(config)
    with locked(config.output_dir, "group"):
        report = write_group_report(config.output_dir, config.both_alignments)
    print(report)
    print(f"neuromm encode: group of {len(subjects)} subjects done")
    return 0


def _try_subject(config: "EncodeConfig", subject: str) -> Outcome:
    """Write a report; an error becomes an outcome."""
    name = f"report of sub-{subject}"
    try:
        _write_subject(config, subject)
    except NeurommError as error:
        cause = f"sub-{subject}: the report failed: {error}"
        return Outcome(name, "failed", subject, error.exit_code, cause)
    return Outcome(name, "done", subject)


def _write_subject(config: "EncodeConfig", subject: str) -> str:
    from neuromm.report import write_subject_report

    with locked(config.output_dir, f"report-{subject}", wait=True):
        return str(write_subject_report(config.output_dir, subject))


def _finished_subjects(config: "EncodeConfig") -> list[str]:
    folders = sorted(config.output_dir.glob("sub-*/**/*_desc-encoding_scores.tsv"))
    subjects = sorted(
        {path.name.split("_")[0].removeprefix("sub-") for path in folders}
    )
    if not subjects:
        raise InputMissingError(
            f"{config.output_dir} holds no scores of participants: run the participant "
            "level first (neuromm encode BIDS_DIR OUTPUT_DIR participant …)"
        )
    return subjects
