"""Regions of targets, from an atlas in the same space."""

from pathlib import Path

from neuromm.core import TargetSpace, UsageError

__all__ = ["target_regions"]

_DEFAULT = "desikan_killiany"


def target_regions(
    targets: TargetSpace, atlas: str, max_distance_mm: float
) -> tuple[list[str] | None, list[str]]:
    """Name the region of each target.

    Parameters
    ----------
    targets : TargetSpace
    atlas : str
        A name, the path of a label image, ``"none"``, or ``"auto"``: Desikan-Killiany
        where positions are in an MNI space, else none.
    max_distance_mm : float
        Farthest label that still names a target.

    Returns
    -------
    regions : list of str of length n_targets, or None
        ``"n/a"`` where no label is near enough.
    notes : list of str
        Why there are no regions, for the report.
    """
    from neuromm.atlas import load_atlas

    if atlas == "none":
        return None, []
    coords = targets.coords()
    positions = coords[["x", "y", "z"]].to_numpy(float)
    automatic = atlas == "auto"
    try:
        chosen = load_atlas(_DEFAULT if automatic else _name_or_path(atlas))
        labels = chosen.label(
            positions, max_distance_mm=max_distance_mm, frame=targets.coordinate_frame
        )
    except UsageError as error:
        if not automatic:
            raise
        return None, [f"Targets carry no regions: {error}"]
    note = labels.attrs.get("note")
    return [str(name) for name in labels["region"]], [note] if note else []


def _name_or_path(atlas: str) -> str | Path:
    path = Path(atlas)
    return path if path.exists() else atlas
