"""Figures of sites: what is drawn is what was found, in colour and in grey."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuromm.core import UsageError
from neuromm.encoding.group_courses import score_courses
from neuromm.encoding.group_sites import model_ranks, region_table
from neuromm.report.figures.site_drawing import (
    is_stand_in,
    model_dashes,
    model_marks,
    site_colours,
)
from neuromm.report.figures.site_maps import contact_sites, vertex_sites
from neuromm.report.figures.site_models import (
    rank_heat_map,
    twin_counts,
    twin_scatter,
)
from neuromm.report.figures.site_regions import (
    gain_bins,
    gain_distribution,
    region_bars,
)
from neuromm.report.figures.site_surface import cortex, nearest_vertices, shown_in
from neuromm.report.figures.site_times import site_time_courses
from neuromm.report.figures.site_winners import site_winners

MODELS = ("vision", "language", "linear", "joint")


def table(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Contacts in both hemispheres; every fourth is a site."""
    rng = np.random.default_rng(seed)
    vertices = rng.integers(10_242, size=n)
    side = np.where(np.arange(n) % 2, "L", "R")
    xyz = [cortex(s).middle[v] for s, v in zip(side, vertices, strict=True)]
    contacts = pd.DataFrame(np.array(xyz), columns=list("xyz"))
    contacts.insert(0, "target", [f"A{i}" for i in range(n)])
    contacts["subject"] = [f"{i % 8:02d}" for i in range(n)]
    contacts["region"] = np.where(contacts["x"] < 0, "L Insula", "R Insula")
    scores = 0.2 + 0.05 * rng.standard_normal((n, 3))
    is_site = np.arange(n) % 4 == 0
    gain = np.where(is_site, 0.06, -0.02)
    for name, values in zip(MODELS[:3], scores.T, strict=True):
        contacts[f"score_{name}"] = values
    contacts["score_joint"] = scores.max(axis=1) + gain
    return contacts.assign(gain=gain, is_site=is_site)


def surface() -> pd.DataFrame:
    parts = []
    for side in ("L", "R"):
        y = cortex(side).middle[:, 1]
        parts.append(
            pd.DataFrame(
                {
                    "target": [f"{side}-{i}" for i in range(len(y))],
                    "score_vision": np.where(y < -40, 0.3, 0.1),
                    "score_language": np.where(y < -40, 0.1, 0.3),
                    "score_joint": np.where(abs(y + 40) < 20, 0.4, 0.2),
                    "gain": np.where(abs(y + 40) < 20, 0.1, -0.1),
                    "is_site": abs(y + 40) < 20,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def courses(n_subjects: int = 7) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    times = np.arange(-0.5, 1.01, 0.1).round(3)
    shape = 0.2 * np.exp(-(((times - 0.3) / 0.2) ** 2))
    tables = {}
    for subject in range(n_subjects):
        rows = [
            pd.DataFrame(
                {
                    "target": name,
                    "region": region,
                    "time": times,
                    "score_vision": 0.5 * shape + 0.02 * rng.standard_normal(16),
                    "score_joint": shape + 0.02 * rng.standard_normal(16),
                    "is_site": shape > 0.1,
                }
            )
            for name, region in (("A1", "Insula"), ("A2", "Precentral"))
        ]
        tables[f"{subject:02d}"] = pd.concat(rows, ignore_index=True)
    return tables


def twins() -> pd.DataFrame:
    random = np.linspace(0, 0.3, 10)
    better = np.where(np.arange(10) < 7, 0.05, -0.05)
    return pd.DataFrame({"model": "clip", "random": random, "trained": random + better})


def ranks() -> pd.DataFrame:
    scores = pd.DataFrame({"a": [0.3, 0.1], "b": [0.2, 0.2], "c": [0.1, 0.3]})
    return model_ranks(scores, ["Insula", "Precentral"])


def drawings() -> dict:
    contacts = table()
    return {
        "contacts by winner": contact_sites(contacts),
        "contacts by gain on the surface": contact_sites(
            contacts, colour="gain", on="surface"
        ),
        "vertices": vertex_sites(surface()),
        "regions": region_bars(region_table(contacts)),
        "gains": gain_distribution(contacts),
        "courses": site_time_courses(score_courses(courses())),
        "twins": twin_scatter(twins()),
        "twins of three": twin_scatter(
            pd.concat([twins().assign(model=name) for name in ("a", "b", "c")])
        ),
        "ranks": rank_heat_map(ranks()),
    }


@pytest.fixture(scope="module")
def drawn() -> dict:
    return drawings()


def luminance(colour: str) -> float:
    """CIE L*."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16)


def texts(figure) -> list[str]:
    import matplotlib.text

    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def test_every_figure_is_written_as_png_svg_and_tsv(drawn: dict, tmp_path: Path):
    for name, drawing in drawn.items():
        png, svg, tsv = drawing.write(tmp_path / name)
        assert png.read_bytes().startswith(b"\x89PNG")
        words = {
            "".join(node.itertext())
            for node in ElementTree.parse(svg).iter()
            if node.tag.endswith("}text")
        }
        assert words, name  # text stays text, not outlines
        read = pd.read_csv(tsv, sep="\t", na_values="n/a")
        assert list(read.columns) == list(drawing.table.columns)
        assert len(read) == len(drawing.table) > 0
        assert drawing.caption.endswith(".")
        assert drawing.picture.alt


def test_equal_numbers_give_equal_bytes():
    first, second = (twin_scatter(twins()) for _ in range(2))
    assert first.png == second.png
    assert first.svg == second.svg
    assert first.tsv == second.tsv


def test_a_surface_in_a_vector_graphic_is_an_image_under_vector_marks(drawn: dict):
    svg = drawn["contacts by gain on the surface"].svg
    assert svg.count(b"<image") >= 4
    assert len(svg) < 1_500_000
    assert b"<use" in svg


def test_nothing_leaves_the_figure_or_lies_under_its_title(drawn: dict):
    for name, drawing in drawn.items():
        figure = drawing.figure
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        width, height = figure.get_size_inches()
        inside = figure.get_tightbbox(renderer)  # in inches
        assert inside.x0 >= -0.01, name
        assert inside.y0 >= -0.01, name
        assert inside.x1 <= width + 0.01, name
        assert inside.y1 <= height + 0.01, name
        title = figure.texts[0].get_window_extent()
        for part in (*figure.axes, *figure.legends):
            assert not part.get_tightbbox(renderer).overlaps(title), name


@pytest.mark.parametrize("name", ["twins", "regions", "ranks", "gains", "courses"])
def test_the_mark_of_stand_ins_overlaps_no_other_text(name: str):
    attrs = {"language": {"kind": "stand-in"}}
    drawing = {
        "twins": lambda: twin_scatter(twins(), attrs=attrs),
        "regions": lambda: region_bars(region_table(table()), attrs=attrs),
        "ranks": lambda: rank_heat_map(ranks(), attrs=attrs),
        "gains": lambda: gain_distribution(table(), attrs=attrs),
        "courses": lambda: site_time_courses(score_courses(courses()), attrs=attrs),
    }[name]()
    figure = drawing.figure
    figure.canvas.draw()
    (mark,) = [t for t in figure.texts if t.get_text().startswith("stand-in")]
    renderer, box = figure.canvas.get_renderer(), mark.get_window_extent()
    assert not box.overlaps(figure.texts[0].get_window_extent())  # the title
    for part in (*figure.axes, *figure.legends):
        assert not box.overlaps(part.get_tightbbox(renderer))
    assert "stand-in features" in drawing.caption


def test_only_stand_ins_are_marked():
    assert not is_stand_in(None)
    assert not is_stand_in({"kind": "trained", "vision": {"kind": "random twin"}})
    assert is_stand_in({"vision": {"kind": "stand-in"}})
    assert is_stand_in({"stand_in": ["vision"]})
    plain = gain_distribution(table())
    assert not any("stand-in" in text for text in texts(plain.figure))
    marked = table()
    marked.attrs["stand_in"] = True
    assert any("stand-in" in t for t in texts(gain_distribution(marked).figure))


def test_models_stay_apart_in_grey_and_by_mark_and_dash():
    colours = site_colours(MODELS)
    lightness = sorted(luminance(colour) for colour in colours.values())
    assert np.diff(lightness).min() > 12  # of 100; neighbours on a map are told apart
    assert len(set(model_marks(MODELS).values())) == len(MODELS)
    assert len({str(dash) for dash in model_dashes(MODELS).values()}) == len(MODELS)


def test_the_colour_of_a_model_does_not_depend_on_the_others():
    assert (
        site_colours(["joint", "language"])["language"]
        == (site_colours(MODELS)["language"])
    )


def test_sites_are_won_by_the_joint_model_and_others_by_the_best_simpler_one():
    contacts = table()
    winners = site_winners(contacts, least_score=0.0)
    site = contacts["is_site"].to_numpy()
    assert (winners["winner"][site] == "joint").all()
    simpler = contacts[[f"score_{name}" for name in MODELS[:3]]]
    best = simpler.idxmax(axis=1).str.removeprefix("score_")
    assert (winners["winner"][~site] == best[~site]).all()
    np.testing.assert_allclose(winners["score"][~site], simpler.max(axis=1)[~site])


def test_a_target_that_no_model_predicts_has_no_winner():
    contacts = table()
    weak = contacts.index[1:4]
    contacts.loc[weak, [f"score_{name}" for name in MODELS]] = 0.01
    winners = site_winners(contacts)
    assert (winners.loc[weak, "winner"] == "").all()
    assert (winners["winner"] == "").sum() == len(weak)


def test_all_contacts_are_drawn_where_they_lie_and_in_the_colour_of_their_winner():
    drawing = contact_sites(table(), least_score=0.0)
    colours = site_colours(MODELS)
    from matplotlib.colors import to_rgba

    above = drawing.figure.axes[-1]  # the view from above holds every contact
    found = {}
    for marks in above.collections:
        face = tuple(np.round(marks.get_facecolor()[0], 3))
        found[face] = found.get(face, 0) + len(marks.get_offsets())
    counts = drawing.table["winner"].value_counts()
    for model, number in counts.items():
        assert found[tuple(np.round(to_rgba(colours[model]), 3))] == number
    offsets = np.concatenate([m.get_offsets() for m in above.collections])
    wanted = drawing.table[["x", "y"]].to_numpy()
    np.testing.assert_allclose(
        offsets[np.lexsort(offsets.T)], wanted[np.lexsort(wanted.T)]
    )


def test_each_contact_is_drawn_once_on_the_surface_at_its_vertex():
    drawing = contact_sites(table(), on="surface", least_score=0.0)
    drawn = []
    for axes in drawing.figure.axes:
        for marks in axes.collections[1:]:  # the first is the surface
            drawn.append(np.column_stack(marks._offsets3d))
    xyz = np.concatenate(drawn)
    wanted = np.array(
        [
            cortex(row["hemi"]).inflated[row["vertex"]]
            for _, row in drawing.table.iterrows()
        ]
    )
    np.testing.assert_allclose(xyz[np.lexsort(xyz.T)], wanted[np.lexsort(wanted.T)])


def test_the_nearest_vertex_of_a_point_of_cortex_is_its_own():
    for side, sign in (("L", -1), ("R", 1)):
        vertices = np.array([0, 77, 5000, 10_241])
        nearest = nearest_vertices(cortex(side).middle[vertices])
        np.testing.assert_array_equal(nearest["vertex"], vertices)
        assert set(nearest["hemi"]) == {side}
        np.testing.assert_allclose(nearest["distance_mm"], 0, atol=1e-9)
        lateral = np.array([int(np.argmax(sign * cortex(side).inflated[:, 0]))])
        assert shown_in(side, sign, lateral)[0]
        assert not shown_in(side, -sign, lateral)[0]


def test_normals_point_out_of_the_surface():
    for side in ("L", "R"):
        mesh = cortex(side)
        outwards = mesh.inflated - mesh.inflated.mean(axis=0)
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        assert (np.sum(outwards * mesh.normals, axis=1) > 0).mean() > 0.99


def test_contacts_far_from_cortex_are_left_off_the_surface_and_counted():
    contacts = table()
    contacts.loc[0, ["x", "y", "z"]] = (0.0, 0.0, 120.0)
    drawing = contact_sites(contacts, on="surface")
    assert len(drawing.table) == 39
    assert "1 contact farther than 10 mm from cortex not drawn." in drawing.caption
    assert len(contact_sites(contacts).table) == 40


def test_vertices_get_the_planted_winner_on_the_mesh():
    drawing = vertex_sites(surface())
    counts = drawing.table.groupby("winner").size()
    planted = surface()
    y = np.concatenate([cortex(side).middle[:, 1] for side in ("L", "R")])
    assert counts["joint"] == planted["is_site"].sum()
    assert counts["vision"] == (y <= -60).sum()
    assert f"vision ({counts['vision']:,})" in texts(drawing.figure)


def test_maps_without_places_say_what_they_need():
    with pytest.raises(UsageError, match="x, y and z"):
        contact_sites(table().drop(columns="x"))
    with pytest.raises(UsageError, match="no scored contact has a place"):
        contact_sites(table().assign(x=np.nan))
    with pytest.raises(UsageError, match="targets named such as L-123"):
        vertex_sites(table())
    with pytest.raises(UsageError, match="those of fsaverage5"):
        vertex_sites(surface().head(1).assign(target="L-20000"))


def test_bars_stand_at_the_share_and_name_contacts_and_subjects():
    regions = region_table(table())
    drawing = region_bars(regions)
    (axes,) = drawing.figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, 100 * regions["share"])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    first = regions.iloc[0]
    assert labels[0] == (
        f"{first['region']}  ({first['n_targets']} contacts, "
        f"{first['n_subjects']} subjects)"
    )


def test_small_regions_can_be_left_out_and_this_is_told():
    contacts = table()
    contacts.loc[0, "region"] = "Amygdala"
    drawing = region_bars(region_table(contacts), min_targets=2)
    assert "2 of 3 regions are shown." in drawing.caption
    assert len(drawing.table) == 3
    with pytest.raises(UsageError, match="no region has 99 contacts"):
        region_bars(region_table(contacts), min_targets=99)


def test_bins_of_gains_count_every_target_and_split_at_zero():
    contacts = table()
    bins = gain_bins(contacts)
    assert bins["n_sites"].sum() == contacts["is_site"].sum()
    assert bins[["n_sites", "n_others"]].to_numpy().sum() == len(contacts)
    assert ((bins["gain_low"] >= -1e-12) | (bins["gain_high"] <= 1e-12)).all()
    below = bins["gain_high"] <= 1e-12
    assert bins.loc[below, "n_others"].sum() == (contacts["gain"] < 0).sum()


def test_gains_without_any_site_are_drawn():
    drawing = gain_distribution(table().assign(is_site=False))
    assert "0 sites" in drawing.alt


def test_the_bar_stands_where_the_site_test_is_passed():
    means = score_courses(courses())
    drawing = site_time_courses(means, event="word onset")
    (axes,) = drawing.figure.axes
    spans = []
    from matplotlib.collections import PolyCollection

    for marks in axes.collections[len(set(means["model"])) :]:
        assert isinstance(marks, PolyCollection)
        x = np.concatenate([path.vertices[:, 0] for path in marks.get_paths()])
        spans.append((x.min(), x.max()))
    passed = sorted(set(means.loc[means["share_sites"] > 0, "time"]))
    np.testing.assert_allclose(
        sorted(np.mean(span) for span in spans), passed, atol=1e-9
    )
    assert "time from word onset (s)" in texts(drawing.figure)


def test_panels_of_regions_name_their_contacts_and_the_legend_has_no_empty_entry():
    drawing = site_time_courses(score_courses(courses(), by="region"), by="region")
    words = texts(drawing.figure)
    assert "Insula\n7 contacts, 7 subjects" in words
    untested = {n: one.drop(columns="is_site") for n, one in courses().items()}
    plain = site_time_courses(score_courses(untested))
    assert "site test passed" not in texts(plain.figure)
    assert "Bar:" not in plain.caption


def test_twins_are_counted_on_either_side_of_the_line():
    counts = twin_counts(twins()).iloc[0]
    assert (counts["n_trained"], counts["n_random"]) == (7, 3)
    words = texts(twin_scatter(twins()).figure)
    assert "clip\n7 (70 %) above, 3 (30 %) below" in words
    with pytest.raises(UsageError, match="lacks random"):
        twin_scatter(twins().drop(columns="random"))


def test_ranks_are_written_into_their_cells():
    drawing = rank_heat_map(ranks())
    (axes,) = drawing.figure.axes
    models = [label.get_text() for label in axes.get_xticklabels()]
    regions = [label.get_text().split("  ")[0] for label in axes.get_yticklabels()]
    given = ranks().set_index(["region", "model"])["rank"]
    written = {
        (regions[round(t.get_position()[1])], models[round(t.get_position()[0])]):
            float(t.get_text())
        for t in axes.texts
    }  # fmt: skip
    assert written == given.to_dict()


def test_a_figure_shows_itself_with_its_caption_in_a_notebook():
    html = gain_distribution(table())._repr_html_()
    assert "data:image/png;base64," in html
    assert "<figcaption>Bars are stacked." in html


def test_drawing_sites_leaves_pyplot_alone_and_downloads_nothing():
    code = """
import socket
def refuse(*args, **kwargs): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import matplotlib; matplotlib.use("svg"); import matplotlib.pyplot as plt
import pandas as pd
from neuromm.report.figures.site_maps import contact_sites
row = {"target": "A1", "x": -50.0, "y": -20.0, "z": 5.0, "score_vision": 0.1}
row |= {"score_joint": 0.2, "gain": 0.1, "is_site": True}
contact_sites(pd.DataFrame([row]), on="surface")
contact_sites(pd.DataFrame([row])).svg
assert plt.get_fignums() == []
assert matplotlib.rcParams["svg.fonttype"] == "path"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
