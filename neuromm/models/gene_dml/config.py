"""Settings of Gene-DML, and the three data sets that they were published for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from neuromm.core import UsageError

__all__ = ["SCALES", "GeneDMLConfig"]

SCALES = ("target", "neighbor", "global")
"""Patch of the spot, tiles around it, whole section."""

Readout = Literal["scale_mean", "token_mean"]
GroupSpace = Literal["projected", "paper"]
GroupMethod = Literal["kmeans", "spectral", "sinkhorn"]
Preset = Literal["corrected", "as_released"]

# Encoders of each data set: neighbour, global, groups of a batch.
_DATA_SETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "her2st": {
            "neighbor_depth": 4, "neighbor_heads": 4, "neighbor_mlp": 4096,
            "global_depth": 5, "global_heads": 8, "global_mlp": 4096,
            "global_dropout": 0.3, "n_groups": 18,
        },
        "stnet": {
            "neighbor_depth": 4, "neighbor_heads": 8, "neighbor_mlp": 4096,
            "global_depth": 3, "global_heads": 8, "global_mlp": 2048,
            "global_dropout": 0.1, "n_groups": 90,
        },
        "skinst": {
            "neighbor_depth": 4, "neighbor_heads": 16, "neighbor_mlp": 1024,
            "global_depth": 2, "global_heads": 16, "global_mlp": 1024,
            "global_dropout": 0.1, "n_groups": 25,
        },
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneDMLConfig:
    """Settings of `GeneDML`; defaults after Song et al. (2026), their HER2ST.

    Parameters
    ----------
    n_features : int
        Length of the vectors of the frozen patch encoder (1024 of UNI).
    n_genes : int
    dim : int
        Of the space in which scales and genes meet.
    scales : tuple of str
        Of ``target``, ``neighbor`` and ``global``; target is always one.
    n_tiles : int
        Tiles of a side of the neighbourhood.
    neighbor_depth, neighbor_heads, neighbor_mlp, neighbor_dropout
        Transformer over the tiles around a spot.
    global_depth, global_heads, global_mlp, global_dropout
        Transformer over all spots of a section.
    fusion_mlp, fusion_dropout
        The layer over the tokens of all scales, and what follows it.
    head_width : int
        Of the prediction's hidden layer.
    readout : {"scale_mean", "token_mean"}
        What is predicted from: each scale counts alike, or each token does, as
        released. Of the latter a target of 197 tokens takes 88 %.
    scale_heads : bool
        A head for each scale, as released: they are in no loss, so their predictions
        are those of untrained heads. They are not part of the output.
    temperature : float
        Of the instance-level loss.
    group_temperature : float
    n_groups : int
        Groups of a batch; fewer in a batch that is smaller.
    group_method : {"kmeans", "spectral", "sinkhorn"}
    group_space : {"projected", "paper"}
        Where instances meet groups. ``projected``: both projected, of norm 1, and so
        are the centres. ``paper``, as released: the fused token, neither projected nor
        of norm 1, and the gene embedding, against projected centres.
    instance_weight, group_weight : float
        Of the two contrastive losses beside the prediction's.
    """

    n_features: int = 1024
    n_genes: int = 250
    dim: int = 512
    scales: tuple[str, ...] = SCALES
    n_tiles: int = 5
    neighbor_depth: int = 4
    neighbor_heads: int = 4
    neighbor_mlp: int = 4096
    neighbor_dropout: float = 0.3
    global_depth: int = 5
    global_heads: int = 8
    global_mlp: int = 4096
    global_dropout: float = 0.3
    fusion_mlp: int = 1024
    fusion_dropout: float = 0.1
    head_width: int = 1536
    gene_dropout: float = 0.3
    readout: Readout = "scale_mean"
    scale_heads: bool = False
    temperature: float = 0.07
    group_temperature: float = 0.1
    n_groups: int = 18
    group_method: GroupMethod = "kmeans"
    group_space: GroupSpace = "projected"
    instance_weight: float = 1.0
    group_weight: float = 1.0

    def __post_init__(self) -> None:
        counts = (
            "n_features", "n_genes", "dim", "n_tiles", "neighbor_depth", "head_width",
            "neighbor_heads", "neighbor_mlp", "global_depth", "global_heads",
            "global_mlp", "fusion_mlp", "n_groups",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.n_tiles % 2 == 0:
            raise UsageError(
                f"n_tiles must be odd, so that the spot is the middle one, got "
                f"{self.n_tiles}"
            )
        for name in ("neighbor_heads", "global_heads"):
            if self.n_features % getattr(self, name):
                raise UsageError(
                    f"{name} must divide n_features={self.n_features}, got "
                    f"{getattr(self, name)}"
                )
        for name in ("neighbor", "global", "fusion", "gene"):
            if not 0 <= getattr(self, f"{name}_dropout") < 1:
                raise UsageError(f"{name}_dropout must be in [0, 1)")
        for name in ("temperature", "group_temperature"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("instance_weight", "group_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be 0 or above")
        self._check_choices()

    def _check_choices(self) -> None:
        in_order = tuple(scale for scale in SCALES if scale in self.scales)
        if self.scales != in_order or "target" not in self.scales:
            raise UsageError(
                f"scales must be target and any of neighbor and global, in this order, "
                f"got {self.scales}"
            )
        for name, allowed in (
            ("readout", get_args(Readout)),
            ("group_space", get_args(GroupSpace)),
            ("group_method", get_args(GroupMethod)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} must be one of {', '.join(allowed)}, got "
                    f"{getattr(self, name)!r}"
                )

    @classmethod
    def preset(cls, name: Preset = "corrected", data: str = "her2st") -> Self:
        """Settings of a data set, with the defects of the released code or without.

        Parameters
        ----------
        name : {"corrected", "as_released"}
            ``as_released`` reads out by tokens, compares unlike spaces in the group
            loss, and keeps three heads that are never trained.
        data : {"her2st", "stnet", "skinst"}
            Depth, heads and groups. `dataclasses.replace` changes the others.

        Raises
        ------
        UsageError
            If there is no such preset or data set.
        """
        if name not in get_args(Preset) or data not in _DATA_SETS:
            raise UsageError(
                f"preset must be one of {', '.join(get_args(Preset))} and data one of "
                f"{', '.join(_DATA_SETS)}, got {name!r} and {data!r}"
            )
        settings: dict[str, Any] = dict(_DATA_SETS[data])
        if name == "as_released":
            settings |= {
                "readout": "token_mean",
                "group_space": "paper",
                "scale_heads": True,
            }
        return cls(**settings)
