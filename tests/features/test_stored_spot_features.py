"""Vectors from files find their spots by names or places, never by their order."""

from dataclasses import fields, replace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.features import (
    FeatureCache,
    TokenStates,
    load_backbone,
    obsm_spot_features,
    patch_file_features,
    stored_spot_features,
    write_spot_features,
)

PITCH = 80.0  # pixels


@pytest.fixture
def adata():
    """A patch of a hexagonal array; no row of it is like another."""
    row, place = np.divmod(np.arange(20), 5)
    col = 2 * place + row % 2
    section = anndata.AnnData(
        np.zeros((20, 1), dtype=np.float32),
        obs=pd.DataFrame(
            {"array_row": row, "array_col": col}, index=[f"s{n:02d}" for n in range(20)]
        ),
    )
    section.obsm["spatial"] = 500 + PITCH / 2 * np.column_stack([col, np.sqrt(3) * row])
    return section


@pytest.fixture
def shuffled():
    """The spot that each row of a file is of."""
    return np.random.default_rng(5).permutation(20)


def vectors_of(spots, n_features=6, n=None):
    """A vector that says which spot it is of."""
    rng = np.random.default_rng(0)
    shape = (20, n_features) if n is None else (20, n, n_features)
    return rng.standard_normal(shape).astype(np.float32)[spots]


def write(path, **arrays):
    attrs = arrays.pop("attrs", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(attrs)
    return path


def names_of(spots):
    """Barcodes as HEST-1k has them: text of any length, a column."""
    return np.array([f"s{n:02d}" for n in spots], dtype=object)[:, None]


def test_rows_are_paired_by_names(adata, shuffled, tmp_path):
    folder = tmp_path / "emb"
    write(
        folder / "global" / "uni_v1" / "A1.h5",
        embeddings=vectors_of(shuffled),
        barcodes=names_of(shuffled),
    )
    again = np.random.default_rng(6).permutation(20)  # each file has its own order
    mask = np.ones((20, 9))
    mask[again == 7, 2] = 0
    write(
        folder / "neighbor" / "uni_v1" / "A1.h5",
        embeddings=vectors_of(again, n=9),
        mask_tb=mask,
        barcode=names_of(again),
    )
    found = stored_spot_features(adata, folder, section="A1")
    everyone = np.arange(20)
    np.testing.assert_array_equal(found.overview, vectors_of(everyone))
    np.testing.assert_array_equal(found.target[:, 0], found.overview)
    np.testing.assert_array_equal(found.neighbors, vectors_of(everyone, n=9))
    assert np.argwhere(~found.neighbor_mask).tolist() == [[7, 2]]
    assert list(found.spots) == list(adata.obs_names)
    np.testing.assert_array_equal(found.grid, adata.obs[["array_row", "array_col"]])
    assert (found.encoder, found.is_stand_in) == ("uni_v1", False)


@pytest.mark.parametrize(
    "offset", [[0.0, 0.0], [0.3, -0.3], [-112.4, -112.4], [0.0, 39.0]]
)
def test_rows_are_paired_by_centres_or_corners_of_patches(
    adata, shuffled, tmp_path, offset
):
    """-112 is the corner of a patch, further away than the next spot."""
    coords = (adata.obsm["spatial"][shuffled] + offset).astype(int)
    path = write(tmp_path / "A1.h5", embeddings=vectors_of(shuffled), coords=coords)
    found = stored_spot_features(adata, path, section="A1")
    np.testing.assert_array_equal(found.overview, vectors_of(np.arange(20)))
    assert found.neighbors.shape == (20, 1, 6)
    np.testing.assert_array_equal(found.neighbors[:, 0], found.overview)
    assert found.neighbor_mask.all()


def test_numbers_in_the_place_of_barcodes_are_no_names(adata, shuffled, tmp_path):
    """TRIPLEX writes zeros where patches have no barcode."""
    path = write(
        tmp_path / "A1.h5",
        embeddings=vectors_of(shuffled),
        barcodes=np.zeros((1, 3)),
        coords=adata.obsm["spatial"][shuffled],
    )
    found = stored_spot_features(adata, path, section="A1")
    np.testing.assert_array_equal(found.overview, vectors_of(np.arange(20)))


def test_order_alone_is_no_proof(adata, tmp_path):
    path = write(tmp_path / "A1.h5", embeddings=vectors_of(np.arange(20)))
    with pytest.raises(DataError, match=r"neither names .barcode. nor coords"):
        stored_spot_features(adata, path, section="A1")


def test_a_missing_an_extra_and_a_double_spot_are_named(adata, tmp_path):
    everyone = np.arange(20)

    def refused(match, spots, *, by):
        keys = {
            "names": {"barcode": names_of(spots)},
            "coords": {"coords": adata.obsm["spatial"][spots]},
        }[by]
        path = write(tmp_path / "A1.h5", embeddings=vectors_of(spots), **keys)
        with pytest.raises(DataError, match=match):
            stored_spot_features(adata, path, section="A1")

    refused(r"1 of 20 spots, such as s19, have no row.*adata\[kept\]", everyone[:19],
            by="names")  # fmt: skip
    refused(r"holds the spot s03 twice", np.append(everyone, 3), by="names")
    refused(r"1 of 20 spots, such as s19, have no row within 40 pix", everyone[:19],
            by="coords")  # fmt: skip
    refused(r"two rows within 40 pixels of the spot s03", np.append(everyone, 3),
            by="coords")  # fmt: skip
    fewer = adata[:15].copy()
    path = write(
        tmp_path / "A1.h5", embeddings=vectors_of(everyone), barcode=names_of(everyone)
    )
    with pytest.raises(DataError, match="5 rows, such as s15, have no spot"):
        stored_spot_features(fewer, path, section="A1")
    path = write(
        tmp_path / "A1.h5",
        embeddings=vectors_of(everyone),
        coords=adata.obsm["spatial"] / 2,
    )
    with pytest.raises(DataError, match=r"have no row within 40 pixels and .* no spot"):
        stored_spot_features(adata, path, section="A1")


def test_barcodes_that_every_chip_has_are_checked_by_places(adata, tmp_path):
    everyone = np.arange(20)
    of_another = adata.obsm["spatial"] * [1.3, 1.0]
    path = write(
        tmp_path / "A1.h5",
        embeddings=vectors_of(everyone),
        barcode=names_of(everyone),
        coords=of_another,
    )
    with pytest.raises(DataError, match="names and coords contradict each other"):
        stored_spot_features(adata, path, section="A1")


def test_an_encoder_is_named_where_there_are_several(adata, tmp_path):
    folder, everyone = tmp_path / "emb", np.arange(20)
    for encoder, factor in {"conch_v1": 1, "uni_v1": 2, "colorstats": 3}.items():
        write(
            folder / "global" / encoder / "A1.h5",
            embeddings=factor * vectors_of(everyone),
            barcodes=names_of(everyone),
        )
    with pytest.raises(UsageError, match=r"several.*colorstats, conch_v1, uni_v1"):
        stored_spot_features(adata, folder, section="A1")
    with pytest.raises(UsageError, match="no A1 by uni_v2, but by colorstats, conch"):
        stored_spot_features(adata, folder, section="A1", encoder="uni_v2")
    with pytest.raises(InputMissingError, match=r"B1\.h5, it holds sections A1"):
        stored_spot_features(adata, folder, section="B1")
    with pytest.raises(InputMissingError, match=r"holds no features.*folder emb"):
        stored_spot_features(adata, tmp_path, section="A1")
    found = stored_spot_features(adata, folder, section="A1", encoder="uni_v1")
    np.testing.assert_array_equal(found.overview, 2 * vectors_of(everyone))
    assert not found.is_stand_in
    stand_in = stored_spot_features(adata, folder, section="A1", encoder="colorstats")
    assert stand_in.is_stand_in  # by its name: the file says nothing


def test_one_file_says_its_encoder_or_is_told(adata, tmp_path):
    everyone = np.arange(20)
    arrays = {"embeddings": vectors_of(everyone), "barcode": names_of(everyone)}
    silent = write(tmp_path / "vit" / "A1.h5", **arrays)
    assert stored_spot_features(adata, silent, section="A1").encoder == "vit"
    told = stored_spot_features(adata, silent, section="A1", encoder="uni")
    assert told.encoder == "uni"
    denying = write(
        tmp_path / "text" / "A1.h5", attrs={"is_stand_in": "False"}, **arrays
    )
    assert not stored_spot_features(adata, denying, section="A1").is_stand_in
    speaking = write(
        tmp_path / "twin" / "A1.h5",
        attrs={"encoder": "uni", "is_stand_in": True},
        **arrays,
    )
    found = stored_spot_features(adata, speaking, section="A1")
    assert (found.encoder, found.is_stand_in) == ("uni", True)
    with pytest.raises(UsageError, match="its encoder is uni, not conch"):
        stored_spot_features(adata, speaking, section="A1", encoder="conch")


def test_an_attribute_that_damage_made_a_list_is_refused(adata, tmp_path):
    """Reading it would end the process."""
    everyone = np.arange(20)
    path = write(
        tmp_path / "A1.h5", embeddings=vectors_of(everyone), barcode=names_of(everyone)
    )
    with h5py.File(path, "r+") as file:
        lists = h5py.vlen_dtype(np.dtype("u1"))
        values = np.empty(1, dtype=object)
        values[0] = np.array([1, 2], dtype="u1")
        file.attrs.create("encoder", values, dtype=lists)
    with pytest.raises(DataError, match="attribute encoder is no text and no number"):
        stored_spot_features(adata, path, section="A1")


def test_tokens_alone_give_their_mean_as_the_vector(adata, shuffled, tmp_path):
    path = write(
        tmp_path / "A1.h5",
        embeddings=vectors_of(shuffled, n=5),
        barcode=names_of(shuffled),
    )
    found = stored_spot_features(adata, path, section="A1")
    tokens = vectors_of(np.arange(20), n=5)
    np.testing.assert_array_equal(found.target, tokens)
    np.testing.assert_allclose(found.overview, tokens.mean(axis=1), rtol=1e-5)
    assert found.overview.dtype == np.float32


def test_obsm_holds_vectors_or_tokens_of_the_spots(adata):
    adata.obsm["uni"] = vectors_of(np.arange(20))
    adata.obsm["tokens"] = vectors_of(np.arange(20), n=5)
    found = obsm_spot_features(adata, "uni", section="A1")
    np.testing.assert_array_equal(found.overview, adata.obsm["uni"])
    assert (found.encoder, found.section, found.neighbors.shape) == (
        "uni", "A1", (20, 1, 6),
    )  # fmt: skip
    tokens = obsm_spot_features(adata, "tokens", section="A1")
    np.testing.assert_array_equal(tokens.target, adata.obsm["tokens"])
    with pytest.raises(UsageError, match=r'no obsm\["conch"\], it holds spatial, tok'):
        obsm_spot_features(adata, "conch", section="A1")
    adata.obsm["counts"] = np.ones((20, 2), dtype=int)
    with pytest.raises(DataError, match=r'obsm\["counts"\] must hold floats, got int'):
        obsm_spot_features(adata, "counts", section="A1")


@pytest.fixture
def features(adata):
    everyone = np.arange(20)
    mask = np.ones((20, 9), dtype=bool)
    mask[3, :3] = False
    return SpotFeatures(
        section="A1",
        spots=np.asarray(adata.obs_names, dtype=str),
        target=vectors_of(everyone, n=5),
        neighbors=vectors_of(everyone, n=9).astype(np.float64),
        neighbor_mask=mask,
        overview=vectors_of(everyone).astype(np.float16),
        grid=adata.obs[["array_row", "array_col"]].to_numpy(),
        encoder="models/uni: layer 8",
        is_stand_in=True,
    )


def assert_same(found, expected):
    for field in fields(SpotFeatures):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(one, other)
        if isinstance(one, np.ndarray) and one.dtype.kind != "U":
            assert one.dtype == other.dtype


def test_what_was_written_reads_back_as_it_was(adata, features, tmp_path):
    folder = write_spot_features(features, tmp_path / "emb", patch_um=112)
    # Of spots in any order, here the reverse: names decide.
    found = stored_spot_features(adata[::-1].copy(), folder, section="A1")
    back = found.grid[:, 0].size - 1 - np.arange(20)
    np.testing.assert_array_equal(found.target[back], features.target)
    assert_same(stored_spot_features(adata, folder, section="A1"), features)
    (file,) = (folder / "global").glob("*/A1.h5")
    with h5py.File(file) as held:
        assert held.attrs["patch_um"] == 112
        assert held.attrs["encoder"] == features.encoder
        assert held.attrs["is_stand_in"]


def test_vectors_replace_tokens_and_no_token_stays_behind(adata, features, tmp_path):
    write_spot_features(features, tmp_path)
    plain = replace(features, target=features.overview[:, None])
    write_spot_features(plain, tmp_path)
    assert_same(stored_spot_features(adata, tmp_path, section="A1"), plain)
    assert not list((tmp_path / "target").glob("*/*.h5"))


def test_the_same_features_make_the_same_bytes(features, tmp_path):
    folders = [write_spot_features(features, tmp_path / name) for name in "ab"]
    for file in folders[0].rglob("*.h5"):
        twin = folders[1] / file.relative_to(folders[0])
        assert file.read_bytes() == twin.read_bytes()


def test_parts_of_two_writings_are_not_read_together(adata, features, tmp_path):
    write_spot_features(features, tmp_path / "new")
    old = replace(features, neighbors=2 * features.neighbors)
    write_spot_features(old, tmp_path / "old")
    (file,) = (tmp_path / "old" / "neighbor").glob("*/A1.h5")
    # As after a kill between two files.
    file.replace(tmp_path / "new" / file.relative_to(tmp_path / "old"))
    with pytest.raises(DataError, match=r"not written together with .*write the feat"):
        stored_spot_features(adata, tmp_path / "new", section="A1")


def test_a_random_twin_does_not_replace_its_network(features, tmp_path):
    write_spot_features(replace(features, is_stand_in=False), tmp_path)
    with pytest.raises(UsageError, match="holds vectors of a trained network, these"):
        write_spot_features(features, tmp_path)


def test_values_that_are_no_finite_floats_are_refused(adata, features, tmp_path):
    everyone = np.arange(20)
    keys = {"barcode": names_of(everyone)}

    def refused(match, **arrays):
        path = write(tmp_path / "A1.h5", **{**keys, **arrays})
        with pytest.raises(DataError, match=match):
            stored_spot_features(adata, path, section="A1")

    nan = vectors_of(everyone)
    nan[4, 0] = np.nan
    refused(r"nan or infinity in 1 of 20 rows", embeddings=nan)
    refused("must hold floats, got int", embeddings=np.ones((20, 3), dtype=int))
    refused(r"must be \(n_spots, n_features\) or .*got \(20,\)",
            embeddings=np.ones(20))  # fmt: skip
    refused(
        "embeddings must be an array of numbers, got object",
        embeddings=names_of(everyone),
    )
    refused(r"embeddings is empty", embeddings=np.ones((20, 0)))
    refused("holds no embeddings, but barcode, tiles", tiles=nan)
    refused(
        r"names must be \(20,\), a row a spot, got \(19,\)",
        embeddings=vectors_of(everyone),
        barcode=names_of(everyone[:19]),
    )
    refused("the tiles around spots .mask_tb., not the spots",
            embeddings=vectors_of(everyone, n=9), mask_tb=np.ones((20, 9)))  # fmt: skip
    with pytest.raises(DataError, match="A1: overview holds nan"):
        write_spot_features(replace(features, overview=nan), tmp_path / "emb")
    (tmp_path / "A1.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(DataError, match="no readable HDF5"):
        stored_spot_features(adata, tmp_path / "A1.h5", section="A1")
    with pytest.raises(InputMissingError, match="no features at"):
        stored_spot_features(adata, tmp_path / "B1.h5", section="B1")


def test_a_mask_that_does_not_fit_is_named(adata, tmp_path):
    folder, everyone = tmp_path / "emb", np.arange(20)
    keys = {"barcodes": names_of(everyone)}
    write(folder / "global" / "uni" / "A1.h5", embeddings=vectors_of(everyone), **keys)
    for mask, match in (
        ({}, r"needs mask_tb.*\(20, 9\), got none"),
        ({"mask_tb": np.ones((20, 25))}, r"\(20, 9\), got \(20, 25\)"),
        ({"mask_tb": np.full((20, 9), 0.5)}, "0 and 1 alone"),
    ):
        write(
            folder / "neighbor" / "uni" / "A1.h5",
            embeddings=vectors_of(everyone, n=9),
            **keys,
            **mask,
        )
        with pytest.raises(DataError, match=match):
            stored_spot_features(adata, folder, section="A1")


class CornerColour:
    """Colour of the first pixel; tokens are the rows' first pixels."""

    name, dim, modality = "corner-colour", 3, "image"

    def __init__(self, kind="trained"):
        self.attrs = {"model": self.name, "kind": kind}
        self.batches = []

    def embed(self, stimuli):
        self.batches.append(len(stimuli))
        return np.stack([s[0, 0] for s in stimuli]).astype(np.float32)

    def tokens(self, stimuli):
        return [TokenStates(s[:, 0].astype(np.float32)) for s in stimuli]


def test_patches_of_hest_are_encoded_a_batch_at_a_time(adata, shuffled, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    path = write(
        tmp_path / "A1.h5",
        img=pictures[shuffled],
        coords=(adata.obsm["spatial"][shuffled] - 112).astype(int),
        barcode=names_of(shuffled),
    )
    told, backbone = [], CornerColour()
    cache = FeatureCache(tmp_path / "cache", part_rows=8)
    found = patch_file_features(
        adata, path, backbone, section="A1", cache=cache,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    np.testing.assert_array_equal(found.overview, pictures[:, 0, 0])
    assert found.neighbors.shape == (20, 1, 3)
    assert (found.encoder, found.is_stand_in) == ("corner-colour", False)
    assert backbone.batches == [8, 8, 4]
    assert told == [(8, 20), (16, 20), (20, 20)]
    again = CornerColour()
    kept = patch_file_features(adata, path, again, section="A1", cache=cache)
    np.testing.assert_array_equal(kept.overview, found.overview)
    assert not again.batches
    twin = patch_file_features(
        adata, path, CornerColour("random twin"), section="A1", patch_tokens=True
    )
    np.testing.assert_array_equal(twin.target, pictures[:, :, 0])
    assert twin.is_stand_in


def test_a_file_without_pictures_and_a_backbone_of_text_are_refused(adata, tmp_path):
    everyone = np.arange(20)
    keys = {"barcode": names_of(everyone)}
    for img, match in (
        ({}, "needs img, .*got none"),
        ({"img": np.zeros((20, 4, 4, 3))}, "got float64 of the shape"),
        ({"img": np.zeros((20, 4, 4), dtype=np.uint8)}, r"got uint8 of the shape \(20"),
    ):
        path = write(tmp_path / "A1.h5", **keys, **img)
        with pytest.raises(DataError, match=match):
            patch_file_features(adata, path, CornerColour(), section="A1")
    with pytest.raises(UsageError, match="a backbone of images, got hashed-text"):
        patch_file_features(adata, path, load_backbone("hashed-text"), section="A1")


def test_spots_without_a_place_in_the_array_are_refused(adata):
    adata.obsm["uni"] = vectors_of(np.arange(20))
    adata.obs["array_row"] = adata.obs["array_row"] + 0.5
    with pytest.raises(DataError, match="must be whole numbers"):
        obsm_spot_features(adata, "uni", section="A1")
    del adata.obs["array_row"]
    with pytest.raises(DataError, match=r'A1: has no obs\["array_row"\]'):
        obsm_spot_features(adata, "uni", section="A1")
