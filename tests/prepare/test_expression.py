"""Expression by hand, neighbours of both arrays, panels, and counts that are none."""

import anndata
import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, UsageError
from neuromm.prepare.expression import expression, neighbours, smoothed
from neuromm.prepare.gene_panels import (
    mean_panel,
    mean_variance_panel,
    variable_panel,
)


def section(counts, genes=None, *, row=None, col=None, names=None):
    counts = np.asarray(counts, dtype=np.float32)
    genes = genes or [f"G{number}" for number in range(counts.shape[1])]
    obs = pd.DataFrame(
        {
            "array_row": np.arange(len(counts)) if row is None else row,
            "array_col": np.zeros(len(counts), int) if col is None else col,
        },
        index=names or [f"s{number}" for number in range(len(counts))],
    )
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))
    adata.obsm["spatial"] = obs[["array_col", "array_row"]].to_numpy(float)
    return adata


COUNTS = [[1, 3, 0, 96], [0, 0, 0, 5], [2, 2, 4, 0]]


@pytest.mark.parametrize(
    ("base", "log"), [("e", 1.0), ("2", np.log(2)), ("10", np.log(10))]
)
def test_the_panel_comes_first_then_its_own_library(base, log):
    adata = section(COUNTS)
    found = expression(adata, ["G1", "G0"], target_sum=100, log_base=base)
    expected = np.log1p([[75, 25], [0, 0], [50, 50]]) / log
    np.testing.assert_allclose(found.X, expected, rtol=1e-6)
    assert list(found.var_names) == ["G1", "G0"]
    assert found.uns["neuromm"]["expression"]["log_base"] == base
    np.testing.assert_array_equal(adata.X, np.array(COUNTS, dtype=np.float32))


def test_the_library_of_all_genes_is_another_number():
    found = expression(section(COUNTS), ["G1", "G0"], library="all", target_sum=100)
    np.testing.assert_allclose(found.X, np.log1p([[3, 1], [0, 0], [25, 25]]), rtol=1e-6)


def test_scanpy_gives_the_same_for_all_genes():
    import scanpy

    rng = np.random.default_rng(0)
    adata = section(rng.poisson(4, (30, 8)))
    peer = adata.copy()
    scanpy.pp.normalize_total(peer, target_sum=1e4)
    scanpy.pp.log1p(peer)
    np.testing.assert_allclose(expression(adata).X, peer.X, rtol=1e-5)


def test_backed_counts_are_read_for_the_panel(tmp_path):
    adata = section(COUNTS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(
        expression(backed, ["G3"]).X, expression(adata, ["G3"]).X
    )


def test_what_is_no_panel_or_no_counts_is_refused():
    adata = section(COUNTS)
    with pytest.raises(UsageError, match=r"1 of 2 genes of the panel.*ENSG1"):
        expression(adata, ["G0", "ENSG1"])
    with pytest.raises(UsageError, match="come twice"):
        expression(adata, ["G0", "G0"])
    for wrong in (0.5, -3, np.nan):
        with pytest.raises(DataError, match="whole numbers"):
            expression(section([[1, wrong], [2, 1]]))
    with pytest.raises(UsageError, match="log_base"):
        expression(adata, log_base="ten")


def test_a_square_array_has_eight_neighbours_and_a_hexagonal_one_six():
    row, col = (axis.ravel() for axis in np.mgrid[:5, :5])
    square = neighbours(row, col, "st").toarray()
    assert square.sum(axis=1).reshape(5, 5)[2, 2] == 8
    assert square.sum(axis=1).reshape(5, 5)[0, 0] == 3
    shifted = 2 * col + row % 2
    hexagonal = neighbours(row, shifted, "visium").toarray()
    assert hexagonal.sum(axis=1).reshape(5, 5)[2, 2] == 6
    # Those that the distances on the chip give.
    from neuromm.core.spot_grid import chip_positions

    places = chip_positions(row, shifted, "visium")
    distance = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.testing.assert_array_equal(hexagonal, np.isclose(distance, 100.0))
    np.testing.assert_array_equal(square, square.T)


def test_smoothing_takes_the_mean_of_the_neighbours_that_are_there():
    adata = section([[9.0], [3.0], [0.0], [6.0]], row=[0, 0, 1, 5], col=[0, 1, 1, 5])
    made = smoothed(expression_like(adata), "st")
    np.testing.assert_allclose(made.X[:, 0], [4.0, 4.0, 4.0, 6.0])
    assert made.uns["neuromm"]["expression"]["smoothed"] is True
    with pytest.raises(DataError, match="share their place"):
        neighbours([0, 0], [1, 1], "st")


def expression_like(adata):
    made = adata.copy()
    made.uns["neuromm"] = {"expression": {"smoothed": False}}
    return made


def cohort():
    rng = np.random.default_rng(0)
    genes = ["MT-CO1", "RPL3", *[f"G{number:02d}" for number in range(200)]]
    mean = np.concatenate([[60.0, 50.0], np.linspace(1, 12, 200)])
    sections = {}
    for name in ("A", "B"):
        rate = np.broadcast_to(mean, (80, 202)).copy()
        # G35 and G36 vary from spot to spot, the others do not.
        rate[:, [37, 38]] *= rng.gamma(0.4, 2.5, (80, 2))
        sections[name] = section(
            rng.poisson(rate), genes, names=[f"{name}{i}" for i in range(80)]
        )
    return sections


def test_the_mean_panel_has_most_counts_and_is_seen_often():
    sections = cohort()
    total = sum(adata.X.sum(axis=0) for adata in sections.values())
    names = sections["A"].var_names
    expected = list(names[np.argsort(-total)][:10])
    assert mean_panel(sections, 10) == expected
    # Many counts in few spots do not make a panel.
    for adata in sections.values():
        adata.X[:, 5] = 0
        adata.X[0, 5] = 100_000
    assert names[5] not in mean_panel(sections, 150)
    with pytest.raises(UsageError, match="250 genes wanted, and there are 201"):
        mean_panel(sections)


def test_the_variable_panel_finds_the_genes_that_vary():
    assert set(variable_panel(cohort(), 2)) == {"G35", "G36"}
    assert set(variable_panel({"A": cohort()["A"]}, 2)) == {"G35", "G36"}


def test_high_mean_and_variance_leave_housekeeping_genes_out():
    panel = mean_variance_panel(cohort(), 100)
    assert not any(name.startswith(("MT-", "RPL")) for name in panel)
    # First in spread, in the last fifth of the means: half way up in the sum.
    assert {"G35", "G36"} <= set(panel)
    assert panel == mean_variance_panel(cohort(), 100)


def test_sections_without_a_shared_gene_are_refused():
    one, other = section(COUNTS), section(COUNTS, ["A", "B", "C", "D"])
    with pytest.raises(UsageError, match="no gene was measured in every section"):
        mean_panel({"one": one, "other": other}, 2)
    with pytest.raises(UsageError, match="one training section"):
        variable_panel({})
