"""``neuromm demo``: a simulated data set with planted truth, encoded and checked."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuromm.core.errors import OutputError, UsageError
from neuromm_pipelines import encode
from neuromm_pipelines.command_line import RESEARCH_USE, QuietAliases, add_flag

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DemoConfig", "main", "recovery", "run", "site_recovery"]

_MARK = ".neuromm-demo"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What ``neuromm demo`` was asked to do."""

    folder: Path
    n_subjects: int = 3
    n_runs: int = 4
    n_permutations: int = 1000
    n_resamples: int = 400
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="neuromm demo",
        description="Simulate a BIDS data set (fMRI and SEEG) in which it is known "
        "what each target responds to, run `neuromm encode` on it, and say how much of "
        f"the truth was found. Everything is simulated.\n\n{RESEARCH_USE}",
        formatter_class=QuietAliases,
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("demo"),
        help="folder to make (default: demo)",
    )  # fmt: skip
    add_flag(parser, "--n-subjects", type=int, default=3, help="subjects (default: 3)")
    add_flag(parser, "--random-seed", type=int, default=0, help="seed (default: 0)")
    args = parser.parse_args(argv)
    return run(
        DemoConfig(
            folder=args.folder, n_subjects=args.n_subjects, seed=args.random_seed
        )
    )


def run(config: DemoConfig) -> int:
    """Simulate, encode, compare; return the exit code of the encoding."""
    from neuromm.simulate import make_bids_dataset

    started = time.monotonic()
    dataset, output = config.folder / "dataset", config.folder / "derivatives"
    _clear(config.folder)
    print(f"simulating {config.n_subjects} subjects in {dataset}", flush=True)
    truth = make_bids_dataset(
        dataset,
        n_subjects=config.n_subjects,
        n_runs=config.n_runs,
        modalities=("fmri", "ieeg"),
        interactive=True,
        rng=config.seed,
    )
    arguments = [str(dataset), str(output)]
    options = [
        "--features",
        *(f"{name}={path}" for name, path in truth.features.items()),
        "--derivatives",
        *(f"{name}={path}" for name, path in truth.derivatives.items()),
        "--confounds", "motion6",
        "--n-permutations", str(config.n_permutations),
        "--sites", "--sites-over-time", "cluster",
        "--n-resamples", str(config.n_resamples),
        "--nprocs", "2", "--omp-nthreads", "1",
        "--skip-bids-validation",
    ]  # fmt: skip
    print("neuromm encode " + " ".join([*arguments, "participant", *options]))
    code = encode.main([*arguments, "participant", *options])
    if code != 0:
        return code
    code = encode.main([*arguments, "group"])
    if code != 0:
        return code
    print("\nplanted truth, found at a false discovery rate of 0.05 (simulated data):")
    print(recovery(output, truth.table).to_string(index=False))
    print("\nsites of multimodal integration, planted and found (simulated data):")
    print(site_recovery(output, truth.table).to_string(index=False))
    reports = sorted(output.glob("*.html"))
    print(f"\n{time.monotonic() - started:.0f} s. Open in a browser:")
    for report in reports:
        print(f"  {report.resolve()}")
    return 0


def recovery(output_dir: Path, truth: "pd.DataFrame") -> "pd.DataFrame":
    """Compare what was found with what was planted.

    A target counts as found in a feature space if its false discovery rate over targets
    is below 0.05. In time-resolved data the p of a target joins those of its times by
    the test of Simes (1986, Biometrika 73:751).

    Parameters
    ----------
    output_dir : Path
        Output of ``neuromm encode``.
    truth : DataFrame
        ``subject``, ``datatype``, ``target`` and ``kind`` (vision, language, both,
        interactive, none), a row a target.

    Returns
    -------
    table : DataFrame
        A row a data type and feature space: ``planted`` and ``found`` targets,
        ``sensitivity`` (found of the planted), ``false_discoveries`` (share of the
        found that were not planted).
    """
    import pandas as pd
    from scipy.stats import false_discovery_control

    rows = []
    for (datatype, subject), planted in truth.groupby(["datatype", "subject"]):
        (path,) = output_dir.glob(
            f"sub-{subject}/**/{datatype}/*_desc-encoding_scores.tsv"
        )
        scores = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})
        scores["target"] = scores["target"].str.partition("@")[0]
        kinds = planted.set_index("target")["kind"]
        for space in ("vision", "language"):
            p = scores[scores["space"] == space].groupby("target")["p"].agg(_simes)
            q = false_discovery_control(p.reindex(kinds.index).fillna(1.0))
            is_planted, is_found = kinds.isin([space, "both"]).to_numpy(), q < 0.05
            rows.append(
                {
                    "datatype": datatype,
                    "space": space,
                    "planted": int(is_planted.sum()),
                    "found": int(is_found.sum()),
                    "hits": int((is_planted & is_found).sum()),
                }
            )
    table = pd.DataFrame(rows).groupby(["datatype", "space"], as_index=False).sum()
    table["sensitivity"] = (table["hits"] / table["planted"]).round(3)
    wrong = table["found"] - table["hits"]
    table["false_discoveries"] = (wrong / table["found"].clip(lower=1)).round(3)
    return table.drop(columns="hits")


def site_recovery(output_dir: Path, truth: "pd.DataFrame") -> "pd.DataFrame":
    """Compare the sites of integration with the planted ones.

    Parameters
    ----------
    output_dir, truth
        As for `recovery`. Sites are the targets of kind ``interactive``.

    Returns
    -------
    table : DataFrame
        A row a data type: ``planted`` sites, ``found`` targets, ``sensitivity`` (found
        of the planted), ``false_sites`` (found and not planted), and ``kinds``: what
        the false ones follow.
    """
    import pandas as pd

    rows = []
    for datatype, of_type in truth.groupby("datatype"):
        is_planted, is_found, kinds = [], [], []
        for subject, planted in of_type.groupby("subject"):
            (path,) = output_dir.glob(
                f"sub-{subject}/**/{datatype}/*_desc-multimodalsites_scores.tsv"
            )
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
            sites = set(table.loc[table["is_site"] == "true", "target"])
            kinds += planted["kind"].tolist()
            is_planted += (planted["kind"] == "interactive").tolist()
            is_found += planted["target"].isin(sites).tolist()
        found = pd.DataFrame({"kind": kinds, "planted": is_planted, "found": is_found})
        false = found.loc[found["found"] & ~found["planted"], "kind"].value_counts()
        hits = int((found["planted"] & found["found"]).sum())
        n_planted = int(found["planted"].sum())
        rows.append(
            {
                "datatype": datatype,
                "planted": n_planted,
                "found": int(found["found"].sum()),
                "sensitivity": round(hits / max(n_planted, 1), 3),
                "false_sites": int(false.sum()),
                "kinds": ", ".join(f"{n} {kind}" for kind, n in false.items()) or "-",
            }
        )
    return pd.DataFrame(rows)


def _simes(p: "pd.Series") -> float:
    """One p for all times of a target; valid under positive dependence."""
    ordered = p.dropna().sort_values().to_numpy()
    if not len(ordered):
        return 1.0
    return float((ordered * len(ordered) / range(1, len(ordered) + 1)).min())


def _clear(folder: Path) -> None:
    """Empty the folder of an earlier demo; leave any other folder alone."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise UsageError(
                f"{folder} is not empty and not of an earlier demo: name another folder"
            )
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error


if __name__ == "__main__":
    from neuromm_pipelines.command_line import guarded

    sys.exit(guarded("neuromm demo", main, sys.argv[1:]))
