"""Discs are numbered from below and measured in mm, however their voxels are stored."""

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.models import disc_regions
from neuromm.simulate import make_dixon_spines

SPACING_MM = np.array([4.0, 1.25, 0.7])
PLACES = ["centre_x", "centre_y", "centre_z"]


def oblique(angles_deg=(12.0, -7.0, 20.0), origin=(-31.0, 14.5, 220.0)) -> np.ndarray:
    """Turned about all three axes, with anisotropic voxels."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        turn, (i, j) = np.eye(4), [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        affine = affine @ turn
    affine[:3, :3] *= SPACING_MM
    affine[:3, 3] = origin
    return affine


BOXES = (  # lowest and first voxel beyond it; not in the order of their heights
    ((2, 3, 30), (5, 11, 37)),
    ((1, 4, 4), (6, 9, 9)),
    ((3, 5, 17), (4, 12, 22)),
)


def boxes() -> np.ndarray:
    mask = np.zeros((8, 14, 40), dtype=bool)
    for low, high in BOXES:
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("affine", [np.diag([*SPACING_MM, 1]), oblique()])
def test_centres_and_volumes_of_boxes_are_exact(affine):
    regions = disc_regions(boxes(), affine, smallest_mm3=0)
    sizes = [np.subtract(high, low) for low, high in BOXES]
    middles = [(np.add(low, high) - 1) / 2 for low, high in BOXES]
    order = [1, 2, 0]  # from below
    expected = [affine[:3, :3] @ middles[k] + affine[:3, 3] for k in order]
    voxels = [int(sizes[k].prod()) for k in order]
    assert list(regions.table["label"]) == [1, 2, 3]
    np.testing.assert_allclose(regions.table[PLACES], expected, rtol=0, atol=1e-10)
    assert list(regions.table["n_voxels"]) == voxels
    np.testing.assert_allclose(
        regions.table["volume_mm3"], np.multiply(voxels, SPACING_MM.prod()), rtol=1e-12
    )
    for label, k in zip((1, 2, 3), order, strict=True):
        assert regions.labels[tuple(BOXES[k][0])] == label
    assert (regions.labels > 0).sum() == sum(voxels)


@given(
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    turned=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@settings(max_examples=25, deadline=None)
def test_numbers_do_not_depend_on_how_the_voxels_are_stored(order, turned):
    mask, affine = boxes(), oblique()
    orientation = np.array(
        [[axis, -1 if flip else 1] for axis, flip in zip(order, turned, strict=True)]
    )
    stored = nibabel.orientations.apply_orientation(mask, orientation)
    back = nibabel.orientations.inv_ornt_aff(orientation, mask.shape)
    plain = disc_regions(mask, affine, smallest_mm3=0)
    moved = disc_regions(stored, affine @ back, smallest_mm3=0)
    np.testing.assert_allclose(moved.table[PLACES], plain.table[PLACES], atol=1e-9)
    np.testing.assert_array_equal(
        moved.labels,
        nibabel.orientations.apply_orientation(plain.labels, orientation),
    )


def test_simulated_discs_are_found_at_their_places_in_an_oblique_scan():
    (spine,) = make_dixon_spines(1, shape=(16, 80, 80), tilt_deg=15, rng=3)
    regions = disc_regions(spine.discs > 0, spine.affine)
    np.testing.assert_array_equal(regions.labels, spine.discs)
    # Voxels are in or out: a disc of a few hundred moves by parts of one.
    np.testing.assert_allclose(regions.table[PLACES], spine.centres_mm, atol=0.5)
    np.testing.assert_allclose(
        regions.table["volume_mm3"], spine.volumes_mm3, rtol=0.05
    )
    assert list(regions.centres) == [1, 2, 3, 4, 5]


def test_voxels_that_touch_at_a_face_are_one_disc_and_at_an_edge_two():
    face, edge = np.zeros((2, 4, 4, 4), dtype=bool)
    face[1, 1, 1] = face[1, 1, 2] = True
    edge[1, 1, 1] = edge[1, 2, 2] = True
    assert len(disc_regions(face, np.eye(4), smallest_mm3=0).table) == 1
    assert len(disc_regions(edge, np.eye(4), smallest_mm3=0).table) == 2


@pytest.mark.parametrize("codes", ["RAS", "ASL", "PIR"])
@pytest.mark.parametrize("gap", [0, 1, 2, 3])
def test_a_disc_that_is_missing_in_a_few_slices_stays_one(codes, gap):
    shape = dict(zip("RAS", (12, 9, 8), strict=True))
    pairs = {"L": "R", "P": "A", "I": "S"}
    names = [pairs.get(code, code) for code in codes]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (code, name) in enumerate(zip(codes, names, strict=True)):
        affine["RAS".index(name), axis] = 2.0 if code == name else -2.0
    whole = np.zeros([shape[name] for name in "RAS"], dtype=bool)
    whole[1:11, 2:7, 2:5] = True
    for axis, name in enumerate("RAS"):
        mask = whole.copy()
        mask[
            tuple(slice(4, 4 + gap) if a == axis else slice(None) for a in range(3))
        ] = 0
        stored = mask.transpose(["RAS".index(n) for n in names])
        for allowed in (0, 1, 2):
            regions = disc_regions(stored, affine, smallest_mm3=0, gap_slices=allowed)
            one = gap == 0 or (name == "R" and gap <= allowed)
            expected = 1 if one else len(_runs(mask.any(axis=_others(axis))))
            assert len(regions.table) == expected
            np.testing.assert_array_equal(regions.labels > 0, stored)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def _runs(line: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(np.pad(line, 1).astype(int)) == 1)


def test_pieces_below_the_smallest_volume_are_dropped_and_counted():
    mask = boxes()
    affine = np.diag([*SPACING_MM, 1])
    volumes = sorted(disc_regions(mask, affine, smallest_mm3=0).table["volume_mm3"])
    kept = disc_regions(mask, affine, smallest_mm3=volumes[1])  # exactly as large
    assert kept.n_dropped == 1
    assert sorted(kept.table["volume_mm3"]) == volumes[1:]
    assert set(np.unique(kept.labels)) == {0, 1, 2}
    none = disc_regions(mask, affine, smallest_mm3=1.01 * volumes[-1])
    assert none.table.empty
    assert none.n_dropped == 3
    assert not none.labels.any()
    assert none.centres == {}


def test_numbers_start_where_a_data_set_starts_them():
    regions = disc_regions(boxes(), np.eye(4), smallest_mm3=0, first_label=201)
    assert list(regions.table["label"]) == [201, 202, 203]
    assert set(np.unique(regions.labels)) == {0, 201, 202, 203}


def test_one_class_of_several_is_taken():
    classes = np.where(boxes(), 2, 0)
    classes[7, 0, :20] = 1
    chosen = disc_regions(classes, np.eye(4), class_index=2, smallest_mm3=0)
    plain = disc_regions(boxes(), np.eye(4), smallest_mm3=0)
    np.testing.assert_array_equal(chosen.labels, plain.labels)
    with pytest.raises(UsageError, match=r"2 classes \(1, 2\).*class_index"):
        disc_regions(classes, np.eye(4))


def test_probability_and_uncertainty_are_means_over_the_voxels_of_a_disc():
    mask = boxes()
    rng = np.random.default_rng(0)
    stated, doubt = rng.random((2, *mask.shape))
    regions = disc_regions(
        mask, np.eye(4), probabilities=stated, uncertainty=doubt, smallest_mm3=0
    )
    for row in regions.table.itertuples():
        inside = regions.labels == row.label
        assert row.probability == pytest.approx(stated[inside].mean(), rel=1e-12)
        assert row.uncertainty == pytest.approx(doubt[inside].mean(), rel=1e-12)
    bare = disc_regions(mask, np.eye(4), smallest_mm3=0)
    assert bare.table[["probability", "uncertainty"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((4, 4))}, r"volume of labels.*\(4, 4\)"),
        ({"mask": np.zeros((4, 4, 4))}, "labels.*float64.*most\nprobable class"),
        ({"affine": None}, "picture.*no millimetres"),
        ({"affine": np.zeros((4, 4))}, "invertible"),
        ({"probabilities": np.zeros((2, 8, 14, 40))}, r"probabilities\[class_index\]"),
        ({"class_index": 0}, "0 is background"),
        ({"smallest_mm3": -1.0}, "smallest_mm3"),
        ({"first_label": 0}, "first_label"),
        ({"gap_slices": -1}, "gap_slices"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message):
    given_ = {"mask": boxes(), "affine": np.eye(4), **change}
    with pytest.raises(UsageError, match=message.replace("\n", " ")):
        disc_regions(**given_)
