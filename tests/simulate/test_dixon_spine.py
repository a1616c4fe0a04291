"""Simulated Dixon scans hold the discs that they state, and only fat and water tell."""

import numpy as np
import pytest

from neuromm.io import mri
from neuromm.io.mri_layouts import open_ivdm3seg
from neuromm.simulate import DIXON_TISSUES, make_dixon_spines


@pytest.fixture(scope="module")
def clean():
    """Without noise and bias, so that intensities are those of the tissues."""
    return make_dixon_spines(3, noise=0, bias=0, tilt_deg=10, rng=1)


def voxel(spine, place):
    indices = np.linalg.inv(spine.affine) @ [*place, 1]
    return tuple(np.round(indices[:3]).astype(int))


def test_discs_lie_where_they_are_said_to(clean):
    for spine in clean:
        for k, centre in enumerate(spine.centres_mm):
            indices = np.argwhere(spine.discs == k + 1)
            found = (spine.affine[:3, :3] @ indices.T).mean(axis=1)
            # Voxels are in or out: a disc of a few hundred moves by parts of one.
            np.testing.assert_allclose(found + spine.affine[:3, 3], centre, atol=0.5)


def test_volumes_are_those_of_the_masks():
    (spine,) = make_dixon_spines(
        1, shape=(48, 128, 192), spacing_mm=(1.2, 1.0, 0.7), rng=2
    )
    voxel_mm3 = abs(np.linalg.det(spine.affine[:3, :3]))
    found = np.bincount(spine.discs.ravel())[1:] * voxel_mm3
    # About 5000 voxels a disc, of which those at the surface are in or out by chance.
    np.testing.assert_allclose(found, spine.volumes_mm3, rtol=0.02)


def test_discs_are_counted_from_below(clean):
    for spine in clean:
        assert (np.diff(spine.centres_mm[:, 2]) > 0).all()
        heights = [
            (spine.affine @ [*np.argwhere(spine.discs == k).mean(axis=0), 1])[2]
            for k in range(1, 6)
        ]
        assert heights == sorted(heights)


def test_the_four_images_obey_the_dixon_equations(clean):
    for spine in clean:
        fat, inn, opp, wat = (spine.images[n].astype(int) for n in
                              ("fat", "inn", "opp", "wat"))  # fmt: skip
        np.testing.assert_array_equal(inn, fat + wat)
        np.testing.assert_array_equal(opp, np.abs(wat - fat))


def test_no_image_alone_tells_a_disc_but_fat_and_water_do(clean):
    # At every disc and decoy the four intensities are those of its tissue, and each
    # image has a tissue that equals the disc.
    for spine in clean:
        for place, kind in [
            *((centre, "disc") for centre in spine.centres_mm),
            *zip(spine.decoys_mm, spine.decoy_kinds, strict=True),
        ]:
            at = voxel(spine, place)
            pair = (spine.images["fat"][at], spine.images["wat"][at])
            assert pair == tuple(1000 * np.array(DIXON_TISSUES[kind]))
    fat, water = np.array(list(DIXON_TISSUES.values())).T
    of = list(DIXON_TISSUES).index("disc")
    for image in (fat, water, fat + water, np.abs(water - fat)):
        assert np.isclose(image, image[of]).sum() == 2
    distance = np.hypot(fat - fat[of], water - water[of])
    assert np.sort(distance)[1] > 0.4  # ten times the noise


def test_decoys_are_as_many_as_would_halve_the_overlap(clean):
    kinds = {kind for spine in clean for kind in spine.decoy_kinds}
    assert kinds == {"mixed", "swapped"}
    for spine in clean:
        assert len(spine.decoys_mm) == 2 * len(spine.centres_mm)
        # All that is as bright as a disc in the water image: no better than Dice 0.7.
        bright = spine.images["wat"] == 800
        dice = 2 * (spine.discs > 0).sum() / ((spine.discs > 0).sum() + bright.sum())
        assert dice < 0.7


def test_scans_of_a_person_share_the_anatomy_and_not_the_noise():
    first, again, other = make_dixon_spines(2, n_scans=2, rng=3)[:3]
    assert [first.subject, again.subject, other.subject] == ["01", "01", "02"]
    assert [first.name, again.name, other.name] == ["01", "02", "03"]
    np.testing.assert_array_equal(first.discs, again.discs)
    assert (first.images["wat"] != again.images["wat"]).mean() > 0.5
    assert (first.discs != other.discs).any()


def test_the_same_seed_gives_the_same_scans():
    a, b, c = (make_dixon_spines(1, rng=seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(a.images["opp"], b.images["opp"])
    assert (a.images["opp"] != c.images["opp"]).any()


def test_written_scans_are_read_back_in_the_layout_of_ivdm3seg(tmp_path):
    spines = make_dixon_spines(2, n_scans=2, tilt_deg=15, folder=tmp_path, rng=4)
    study = open_ivdm3seg(tmp_path, subjects={s.name: s.subject for s in spines})
    assert list(study.table["subject"]) == ["01", "01", "02", "02"]
    for spine, sample in zip(spines, study, strict=True):
        expected = [spine.images[name] for name in ("fat", "inn", "opp", "wat")]
        np.testing.assert_array_equal(mri.stacked(sample), expected)
        labels = mri.load_labels(sample)
        np.testing.assert_array_equal(labels.dataobj, spine.discs > 0)
        np.testing.assert_allclose(labels.affine, spine.affine, atol=1e-4)


def test_discs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="discs would reach beyond the grid"):
        make_dixon_spines(1, n_discs=7)
    with pytest.raises(ValueError, match="must be positive"):
        make_dixon_spines(0)
