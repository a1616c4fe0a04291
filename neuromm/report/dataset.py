"""The files that make an output folder a BIDS derivative dataset.

Several participant jobs share one output folder: every file here is read, completed
and written only if its bytes change, so that jobs in any order end alike. What a user
added by hand is kept.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromm import __version__
from neuromm.core import UsageError
from neuromm.core.files import read_json, write_json, write_text
from neuromm.report.methods import GENERAL_REFERENCES

__all__ = [
    "BIDS_VERSION",
    "RAW_LINK",
    "Contents",
    "bids_uri",
    "linked_datasets",
    "prepare_output",
]

BIDS_VERSION = "1.11.1"
RAW_LINK = "raw"  # name of the source dataset in BIDS URIs

# As bids-validator-deno 3.0.2 reads them: a trailing slash or ``/**`` does not silence
# a folder, its bare name does; and ``*_hemi-*_mask.*`` matches nothing.
_IGNORED = (
    "*_statmap.*",
    "*_scores.*",
    "*_predictions.*",
    "*_regions.*",
    "*_courses.*",
    "*hemi-*_mask.*",  # masks and labels in func are volumes, says BIDS
    "*hemi-*_dseg.*",
    "sub-*.html",
    "group.html",
    "group",
    "logs",
    "work",
    ".neuromm",
    "*.tmp-*",
)

_DESCRIPTIONS = {
    "encoding": "Scores of encoding models: held-out prediction of every target from "
    "feature spaces; as a mask, the targets that could be scored",
    "layers": "Layers of networks that targets took, chosen inside the training folds",
    "multimodalsites": "Sites of multimodal integration: targets that features of a "
    "multimodal network predict better than every simpler model",
    "mean": "Mean across subjects",
    "sem": "Standard error of the mean across subjects",
}

_README = """\
Encoding models of neuromm
==========================

Research use only: not a medical device, not for diagnosis or treatment.

Each voxel, vertex, sensor or contact was predicted from feature spaces by ridge
regression, and scored on data that the model had not seen.

sub-XX.html, group.html            reports; open them in a browser, no network needed
sub-XX/**/*_desc-encoding_scores   one row a target and feature space (.tsv), what the
                                   columns mean and how they were computed (.json)
sub-XX/**/*_desc-layers_scores     layers that were chosen inside the training folds, if
                                   several were given
sub-XX/**/*_statmap                maps: contrast-<feature space>, stat-<r, rsquared,
                                   alpha, p, q>
sub-XX/**/*_desc-encoding_mask     targets that could be scored
sub-XX/**/*_desc-multimodalsites_* where features of a multimodal network predict better
                                   than everything simpler, if sites were asked for
group/, group_desc-encoding_*      means across subjects
descriptions.tsv                   what each desc- label means
logs/CITATION.md                   what to cite

Maps and score tables have no place in BIDS yet; .bidsignore lists them, and the rest
passes the BIDS validator.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What one kind of analysis writes into its output folder.

    Attributes
    ----------
    name : str
        Such as "encoding"; in the name of the dataset.
    description : str
        For ``GeneratedBy``.
    readme, citation : str
        Whole texts of ``README`` and ``logs/CITATION.md``.
    ignored : tuple of str
        Lines of ``.bidsignore``.
    labels : mapping of str to str
        Labels of ``desc-`` to what they mean.
    """

    name: str
    description: str
    readme: str
    citation: str
    ignored: tuple[str, ...]
    labels: Mapping[str, str]


_ENCODING = Contents(
    name="encoding",
    description="Encoding models: every target predicted from feature spaces",
    readme=_README,
    citation="# What to cite\n\nThe methods paragraph of each report names what its "
    "own analysis used. Every encoding analysis used:\n\n"
    + "\n".join(f"- {reference}" for reference in GENERAL_REFERENCES)
    + "\n",
    ignored=_IGNORED,
    labels=_DESCRIPTIONS,
)


def prepare_output(
    root: str | Path,
    source: str | Path,
    derivative_links: Mapping[str, str | Path] | None = None,
    *,
    contents: Contents = _ENCODING,
    version: str = __version__,
) -> None:
    """Write or complete the dataset-level files of an output folder.

    Parameters
    ----------
    root : path-like
        Output folder, made if missing.
    source : path-like
        The raw BIDS dataset; ``bids:raw:…`` in Sources.
    derivative_links : mapping of str to path-like, optional
        Further datasets that were read, by their name in BIDS URIs.
    contents : Contents
        What is written there; encoding models by default.
    version : str
        Version of neuromm that is named in ``GeneratedBy``.

    Raises
    ------
    neuromm.core.UsageError
        If ``root`` is the source or holds a raw dataset.
    neuromm.core.OutputError
        If a file cannot be written.
    """
    root, source = Path(root), Path(source)
    links = {RAW_LINK: source, **(derivative_links or {})}
    _refuse_foreign(root, source)
    description = root / "dataset_description.json"
    present = read_json(description) if description.exists() else {}
    completed = _completed_description(present, root, source, links, contents, version)
    if completed != present:
        write_json(description, completed)
    _complete_lines(root / ".bidsignore", contents.ignored)
    rows = [f"desc-{label}\t{text}" for label, text in contents.labels.items()]
    _complete_lines(root / "descriptions.tsv", ["desc_id\tdescription", *rows])
    _write_missing(
        root / "descriptions.json", '{"Description": "What each desc- label means"}\n'
    )
    _write_missing(root / "README", contents.readme)
    _write_missing(root / "logs" / "CITATION.md", contents.citation)


def bids_uri(path: str | Path, datasets: Mapping[str, str | Path]) -> str:
    """BIDS URI of a file in one of the linked datasets.

    Parameters
    ----------
    path : path-like
    datasets : mapping of str to path-like
        Name of a dataset in ``DatasetLinks`` to its root; the deepest root that holds
        the file is taken.

    Returns
    -------
    uri : str
        ``"bids:raw:sub-01/func/…"``; the bare file name where no dataset holds the
        file, so that no path of the machine is told.
    """
    path = Path(path).resolve()
    holders = [
        (len(Path(root).resolve().parts), name)
        for name, root in datasets.items()
        if path.is_relative_to(Path(root).resolve())
    ]
    if not holders:
        return path.name
    name = max(holders)[1]
    relative = path.relative_to(Path(datasets[name]).resolve()).as_posix()
    return f"bids:{name}:{relative}"


def linked_datasets(root: str | Path) -> dict[str, Path]:
    """Datasets that BIDS URIs in an output folder may name, and where they lie."""
    description = Path(root, "dataset_description.json")
    links = read_json(description).get("DatasetLinks") if description.exists() else {}
    return {
        str(name): Path(root, place)
        for name, place in (links or {}).items()
        if "://" not in str(place)
    }


def _refuse_foreign(root: Path, source: Path) -> None:
    if root.resolve() == source.resolve():
        raise UsageError(
            f"{root}: the output folder is the input dataset. Name another folder, "
            f"such as {source / 'derivatives' / 'neuromm'}"
        )
    description = root / "dataset_description.json"
    if description.exists():
        kind = read_json(description).get("DatasetType", "raw")
        if kind != "derivative":
            raise UsageError(
                f"{root}: holds a dataset of type '{kind}', and derivatives would mix "
                "with it. Name an empty folder, or one that neuromm wrote"
            )


def _completed_description(
    present: Mapping[str, Any],
    root: Path,
    source: Path,
    links: Mapping[str, str | Path],
    contents: Contents,
    version: str,
) -> dict[str, Any]:
    origin = source / "dataset_description.json"
    raw = read_json(origin) if origin.exists() else {}
    entry: dict[str, Any] = {
        "Name": "neuromm",
        "Version": version,
        "Description": contents.description,
    }
    named_after = raw.get("Name") or source.resolve().name
    content: dict[str, Any] = {
        "Name": f"neuromm {contents.name} of {named_after}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
    }
    if raw.get("License"):
        content["License"] = raw["License"]
    content["HowToAcknowledge"] = "Cite the references in logs/CITATION.md."
    content |= present
    content["GeneratedBy"] = _appended(present.get("GeneratedBy"), entry)
    dataset: dict[str, Any] = {"URL": _relative(source, root)}
    if raw.get("DatasetDOI"):
        dataset["DOI"] = raw["DatasetDOI"]
    content["SourceDatasets"] = _appended(present.get("SourceDatasets"), dataset)
    named = {name: _relative(path, root) for name, path in sorted(links.items())}
    merged = {**(present.get("DatasetLinks") or {}), **named}
    content["DatasetLinks"] = dict(sorted(merged.items()))
    return content


def _appended(present: Any, entry: dict[str, Any]) -> list[Any]:
    entries = list(present or [])
    return entries if entry in entries else [*entries, entry]


def _relative(path: str | Path, root: Path) -> str:
    """Location relative to ``root``: it survives a move and names no home folder."""
    return Path(os.path.relpath(Path(path).resolve(), root.resolve())).as_posix()


def _complete_lines(path: Path, wanted: Iterable[str]) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text.splitlines()
    completed = [*lines, *(line for line in wanted if line not in lines)]
    if completed != lines:
        write_text(path, "\n".join(completed) + "\n")


def _write_missing(path: Path, text: str) -> None:
    if not path.exists():
        write_text(path, text)
