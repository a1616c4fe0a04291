"""How many subjects have a site at a voxel, on the glass brain."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from neuromm.report.figures.canvas import colour_bar, colour_map, style
from neuromm.report.figures.site_drawing import Drawing, counted, finish, titled_canvas

__all__ = ["share_glass"]

_PLACE = (0.0, 0.02, 0.9, 0.86)  # of the brains
_BAR = (0.915, 0.2, 0.012, 0.5)


def share_glass(
    image: Any,
    table: pd.DataFrame,
    *,
    n_subjects: int,
    multimodal: str = "joint",
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Share of subjects with a site at each voxel, highest along each line of sight.

    Parameters
    ----------
    image : nibabel image, 3-D, in MNI space
        Share in [0, 1]; 0 is not drawn.
    table : DataFrame
        The numbers of the image, a row a voxel: ``n_sites`` among others.
    n_subjects : int
        Subjects that 1 stands for.
    multimodal : str
        Whose sites they are.
    attrs : mapping, optional
        As for `contact_sites`: a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        With ``table`` as given.
    """
    import nibabel as nib
    from nilearn import plotting

    values = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    limits = (0.0, 1.0)
    most = int(table["n_sites"].max()) if len(table) else 0
    with style():
        title = f"Subjects with a site of {multimodal}"
        figure = titled_canvas(9.6, 2.5, title, attrs, constrained=False)
        with warnings.catch_warnings():
            # Without any site the brain is empty, which is meant.
            warnings.filterwarnings("ignore", "empty mask")
            plotting.plot_glass_brain(
                nib.Nifti1Image(values, image.affine),
                figure=figure,
                axes=_PLACE,
                display_mode="lyrz",
                plot_abs=False,
                vmin=limits[0],
                vmax=limits[1],
                cmap=colour_map(),
                threshold=1e-6,  # 0 is background
                colorbar=False,
            )
        colour_bar(figure, limits, "share of subjects", place=_BAR, cmap=colour_map())
    n_voxels = int((table["n_sites"] > 0).sum())
    told = f"{counted(n_voxels, 'voxels')} with a site in at least one of "
    told += counted(n_subjects, "subjects")
    return finish(
        figure,
        table,
        alt=f"Glass brain from the left, behind, the right and above: {told}; at most "
        f"{most} at one voxel.",
        caption=f"Share of subjects with a site, highest along the line of sight: "
        f"{told}; at most {most} at one voxel. A subject in whom a voxel was not "
        "tested counts as one without a site.",
        attrs=attrs,
    )
