"""Folders of DICOM files give the discs of the same scan in NIfTI."""

import nibabel
import numpy as np
import pandas as pd
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from neuromm.models import IVDNet, IVDNetConfig, predict_volume
from neuromm.simulate import make_dixon_spines
from neuromm_pipelines.segment_settings import SegmentSettings

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(folder, values, affine):
    """One file a sagittal slice, the first axis; rows run down, columns to the back."""
    folder.mkdir(parents=True)
    lps = LPS_TO_RAS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    unit = lps[:3, :3] / steps
    n_slices, n_front, n_up = values.shape
    for number in range(n_slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
        data.SeriesInstanceUID, data.SeriesNumber = "1.2.3", 1
        data.Modality, data.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
        corner = lps @ [number, n_front - 1, n_up - 1, 1]
        data.ImagePositionPatient = [f"{one:.6f}" for one in corner[:3]]
        turn = [*-unit[:, 1], *-unit[:, 2]]
        data.ImageOrientationPatient = [f"{one:.6f}" for one in turn]
        data.PixelSpacing = [f"{steps[2]:.6f}", f"{steps[1]:.6f}"]
        data.SliceThickness = f"{steps[0]:.6f}"
        data.InstanceNumber = n_slices - number
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = 0
        data.Rows, data.Columns = n_up, n_front
        picture = values[number, ::-1, ::-1].T
        data.PixelData = np.ascontiguousarray(picture).astype("<u2").tobytes()
        data.save_as(folder / f"IM{number:03d}", enforce_file_format=True)
    assert pydicom.dcmread(folder / "IM000").Rows == n_up


def test_dicom_and_nifti_give_the_same_discs(neuromm, tmp_path):
    (spine,) = make_dixon_spines(1, shape=(8, 64, 64), spacing_mm=(8.0, 2.0, 2.0))
    data = tmp_path / "data"
    for name in ("fat", "wat"):
        values = spine.images[name].clip(0)
        write_series(data / "dicom" / name, values, spine.affine)
        (data / "nifti").mkdir(exist_ok=True)
        image = nibabel.Nifti1Image(values, spine.affine)
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, data / "nifti" / f"{name}.nii.gz")
    # Not trained: what it takes for discs hangs on every voxel.
    torch.manual_seed(3)
    model = IVDNet(IVDNetConfig(n_modalities=2, width=2))
    model.train()
    with torch.no_grad():
        model(torch.rand(2, 2, 64, 64))  # the range of training
    model.eval()
    volume = np.stack([spine.images[name] for name in ("fat", "wat")])
    p = predict_volume(model, volume)
    with torch.no_grad():  # a hundredth of the voxels become disc
        model.head.bias[1] += float(np.quantile(np.log(p[0] / p[1]), 0.01))
    model.save_pretrained(tmp_path / "model")
    SegmentSettings(
        modalities=("fat", "wat"),
        classes={"disc": [[1, 1]]},
        may_lack=False,
        flips=False,
        spacing_mm=(2.0, 2.0),
    ).write(tmp_path / "model")
    ran = neuromm("segment", "predict", data, tmp_path / "out", "--model",
                  tmp_path / "model", "--smallest-mm3", "0")  # fmt: skip
    assert ran.code == 0, ran.err
    tables = [
        pd.read_csv(
            tmp_path / "out" / f"sub-{name}" / "anat"
            / f"sub-{name}_space-orig_desc-disc_regions.tsv",
            sep="\t",
        )
        for name in ("dicom", "nifti")
    ]  # fmt: skip
    assert len(tables[1]) > 0
    # Pieces at one height may be numbered in either order.
    by_place = ["n_voxels", "centre_z", "centre_y", "centre_x"]
    found, expected = (
        table.round(3).sort_values(by_place, ignore_index=True).drop(columns="label")
        for table in tables
    )
    pd.testing.assert_frame_equal(found, expected, atol=2e-3)
