"""Sections of the first spatial transcriptomics arrays: a count table and a spot table.

``A1.tsv.gz`` has a row a spot, named ``{x}x{y}`` by its place on the array, and a
column a gene; ``A1_selection.tsv`` says where each spot lies on the picture (HER2ST,
cSCC and STNet are distributed so).

References
----------
Andersson et al. (2021) Spatial deconvolution of HER2-positive breast cancer delineates
tumor-associated cell type interactions. Nature Communications 12:6012 (the layout).
"""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError
from neuromm.io.content import require_content
from neuromm.io.file_limits import unpacked

__all__ = ["EXTENSIONS", "find_companions", "is_count_table", "read_section"]

EXTENSIONS = (".tsv", ".tsv.gz")

_SPOT = re.compile(r"^\d+x\d+$")
_HEAD_BYTES = 4096
# Where a section's other files lie, beside the folder of its counts.
_SPOT_FOLDERS = ("spots", "ST-spotfiles", "spotfiles", ".")
_IMAGE_FOLDERS = ("images", "ST-imgs", "imgs", ".")
_LABEL_FOLDERS = ("pathology_labels", "ST-pat/lbl", "labels", ".")
_PICTURES = (".svs", ".ndpi", ".tif", ".tiff", ".png", ".jpg", ".jpeg")


def is_count_table(path: Path) -> bool:
    """Whether a file looks like a count table: its second line begins with ``XxY``."""
    if not path.is_file() or not path.name.lower().endswith(EXTENSIONS):
        return False
    import gzip
    import zlib

    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            file.readline()
            start = file.readline(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return False
    return bool(_SPOT.match(start.split(b"\t")[0].decode("ascii", "replace").strip()))


def find_companions(counts: Path) -> dict[str, Path]:
    """Spot table, picture and labels of a section, where they usually lie.

    Parameters
    ----------
    counts : Path
        ``…/counts/A1.tsv.gz``, ``…/ST-cnts/A1.tsv``: others are looked for beside it
        and in the folders beside its own.

    Returns
    -------
    companions : dict of str to Path
        ``spots``, ``slide`` and ``labels``, as far as there are any.
    """
    section = counts.name.partition(".")[0]
    wanted = {
        "spots": (_SPOT_FOLDERS, [f"{section}_selection.tsv"]),
        "slide": (
            _IMAGE_FOLDERS,
            [
                name + end
                for end in _PICTURES
                for name in (section, f"{section}_*", f"*/{section}/*")
            ],
        ),
        "labels": (_LABEL_FOLDERS, [f"{section}_labeled_coordinates.tsv"]),
    }
    found = {}
    for role, (folders, patterns) in wanted.items():
        path = next(_matches(counts.parent, folders, patterns), None)
        if path is not None:
            found[role] = path
    return found


def read_section(counts: Path, spots: Path | None) -> Any:
    """Read a section.

    Parameters
    ----------
    counts : Path
    spots : Path or None
        The spot table.

    Returns
    -------
    adata : anndata.AnnData
        Sparse whole counts; ``obs`` has ``array_row`` (y), ``array_col`` (x) and
        ``in_tissue``, ``obsm["spatial"]`` x and y in pixels.

    Raises
    ------
    InputMissingError
        If there is no spot table.
    DataError
        If a table is damaged, counts are not whole numbers, or no spot has a place.

    Warns
    -----
    UserWarning
        With the number of spots that have counts and no place; they are left out.
    """
    import anndata
    from scipy.sparse import csr_matrix

    if spots is None:
        raise InputMissingError(
            f"{counts}: has no table of spots. Put "
            f"{counts.name.partition('.')[0]}_selection.tsv (columns x, y, pixel_x, "
            "pixel_y) beside it, or give its path as companions={'spots': …}"
        )
    names, genes, values = _counts(counts)
    places = _places(require_content(spots))
    order = places.index.get_indexer(pd.Index(names))
    known = order >= 0
    if not known.any():
        raise DataError(
            f"none of its {len(names)} spots ({names[0]}, …) is in {spots} "
            f"({places.index[0]}, …). Do both belong to one section?",
            counts,
        )
    if not known.all():
        warnings.warn(
            f"{counts}: {int((~known).sum())} of {len(names)} spots have counts and no "
            f"place in {spots.name}; they are left out",
            stacklevel=4,
        )
    table = places.iloc[order[known]]
    obs = pd.DataFrame(
        {
            "array_row": table["y"].to_numpy(dtype=np.int64),
            "array_col": table["x"].to_numpy(dtype=np.int64),
            "in_tissue": table["selected"].to_numpy(dtype=np.int64),
        },
        index=pd.Index(np.array(names, dtype=object)[known]),
    )
    adata = anndata.AnnData(
        csr_matrix(values[known], dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes)),
    )
    adata.obsm["spatial"] = table[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64)
    return adata


def _matches(
    beside: Path, folders: tuple[str, ...], patterns: list[str]
) -> Iterator[Path]:
    for folder in folders:
        place = beside if folder == "." else beside.parent / folder
        for pattern in patterns:
            yield from sorted(p for p in place.glob(pattern) if p.is_file())


def _text(path: Path) -> str:
    content = unpacked(path) if path.name.lower().endswith(".gz") else path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("is no text: is it damaged?", path) from error


def _counts(path: Path) -> tuple[list[str], list[str], NDArray[np.float32]]:
    text = _text(path)
    header, *lines = text.splitlines() or [""]
    genes = header.split("\t")[1:]
    names, rows = [], []
    for line in lines:
        name, _, row = line.partition("\t")
        names.append(name)
        rows.append(row)
    n_uneven = sum(row.count("\t") + 1 != len(genes) for row in rows)
    # What is packed tells by itself whether it is whole.
    has_end = text.endswith("\n") or path.name.lower().endswith(".gz")
    if not rows or n_uneven or not has_end:
        raise DataError(
            f"is no whole table of counts, spots by genes: its header names "
            f"{len(genes)} genes, and {n_uneven} of {len(rows)} rows have another "
            "number of counts, or the last one has no end. Is it cut?",
            path,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of text that is no number
            values = np.fromstring("\t".join(rows), sep="\t", dtype=np.float64)
        values = values.reshape(len(rows), len(genes))
    except (ValueError, DeprecationWarning) as error:
        raise DataError(f"holds counts that are no numbers ({error})", path) from error
    wrong = [name for name in names if not _SPOT.match(name)]
    if wrong:
        raise DataError(
            f"expected spots named by their place, such as 10x13, got {wrong[0]!r}",
            path,
        )
    for what, given in (("spot", names), ("gene", genes)):
        if len(set(given)) != len(given):
            twice = pd.Index(given)
            first = twice[twice.duplicated()][0]
            raise DataError(f"the {what} {first} comes twice", path)
    if not np.isfinite(values).all() or (values < 0).any() or (values % 1).any():
        raise DataError(
            "counts must be whole numbers of 0 or above. Are these normalised values? "
            "Give the raw counts",
            path,
        )
    return names, genes, values.astype(np.float32)


def _places(path: Path) -> pd.DataFrame:
    """The spot table, by the names of spots."""
    needed = ["x", "y", "pixel_x", "pixel_y"]
    try:
        table = pd.read_csv(io.StringIO(_text(path)), sep="\t")
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"is no table of spots ({error})", path) from error
    lacking = [name for name in needed if name not in table]
    if lacking:
        raise DataError(
            f"a table of spots has the columns {', '.join(needed)}, this one lacks "
            f"{', '.join(lacking)} (found: {', '.join(map(str, table.columns))})",
            path,
        )
    try:
        values = table[needed].to_numpy(dtype=np.float64)
    except ValueError as error:
        raise DataError(f"places of spots are not numbers ({error})", path) from error
    if not len(table) or not np.isfinite(values).all():
        raise DataError("places of spots are missing: is it cut or damaged?", path)
    table = table.astype({"x": np.int64, "y": np.int64})
    if "selected" not in table:
        table["selected"] = 1
    table.index = pd.Index(
        [f"{x}x{y}" for x, y in zip(table["x"], table["y"], strict=True)]
    )
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise DataError(f"the spot {twice} comes twice", path)
    return table
