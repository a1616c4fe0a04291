"""``neuromm segment fit``: train IVD-Net on labelled scans, and baselines beside it."""

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from neuromm.core.errors import DataError, UsageError
from neuromm.core.files import atomic_path
from neuromm_pipelines.segment_scans import (
    Scan,
    Values,
    open_scans,
    parsed_classes,
)

__all__ = ["FitConfig", "config_of", "run"]

logger = logging.getLogger(__name__)

_VALIDATION = 0.2
# Weights of the loss for rare classes, if none are given: not above this.
_HEAVIEST = 8.0


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What ``neuromm segment fit`` was asked to do."""

    data: Path
    model_dir: Path
    layout: str = "auto"
    modalities: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    participant_label: tuple[str, ...] | None = None
    labels: Path | None = None
    resample_to: str | None = None
    persons: Path | None = None
    width: int = 8
    dimension: Literal[2, 3] = 2
    fusion: Literal["hyperdense", "early", "late"] = "hyperdense"
    dropout: float = 0.0
    epochs: int = 60
    batch_size: int = 4
    learning_rate: float = 3e-3
    class_weights: tuple[float, ...] | None = None
    modality_dropout: float = 0.0
    flips: bool = False
    augmentation: bool = True
    folds: int | None = None
    fold: int = 0
    baseline: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    nthreads: int | None = None
    command_line: str = field(default="", compare=False)


def config_of(args: argparse.Namespace, command_line: str) -> FitConfig:
    """Settings of a parsed command line."""
    given = dict(vars(args))
    for name in ("job", "verbose", "debug"):
        given.pop(name)
    given["augmentation"] = not given.pop("no_augmentation")
    listed = ("modalities", "classes", "participant_label", "class_weights", "baseline")
    for name in listed:
        given[name] = None if given[name] is None else tuple(given[name])
    if given["dimension"] not in (2, 3):
        raise UsageError(f"--dimension takes 2 or 3, got {given['dimension']}")
    return FitConfig(**given, command_line=command_line)


def run(config: FitConfig) -> int:
    """Train, write the model folder, and print what it scores.

    Returns
    -------
    exit_code : int

    Raises
    ------
    neuromm.core.NeurommError
        If data or settings are wrong.
    """
    import torch

    from neuromm.io import mri
    from neuromm_pipelines.devices import chosen_device
    from neuromm_pipelines.segment_slices import check_scan, written_slices

    _check(config)
    _, cuda = chosen_device(config.device, "torch")
    device = torch.device(cuda or "cpu")
    if config.nthreads:
        torch.set_num_threads(config.nthreads)
    scans, modalities, layout = open_scans(
        config.data,
        layout=config.layout,
        modalities=config.modalities,
        participant_label=config.participant_label,
        labels=config.labels,
        resample_to=config.resample_to,
        persons=config.persons,
    )
    if layout == "ivdm3seg" and config.persons is None:
        logger.warning(
            "each set of %s counts as a person of its own, though IVDM3Seg has two "
            "scans of each person. Name them with --persons, or a split may have one "
            "person on both sides",
            config.data,
        )
    classes = parsed_classes(config.classes, layout)
    training, test = _parts(scans, config)
    for scan in test:  # rather now than after the training
        check_scan(scan, modalities, may_lack=config.modality_dropout > 0)
        mri.load_labels(scan.load())
    from neuromm.models import IVDNet, IVDNetConfig

    network = IVDNetConfig(
        n_modalities=len(modalities),
        n_classes=len(classes) + 1,
        width=config.width,
        spatial_dims=config.dimension,
        fusion=config.fusion,
        dropout=config.dropout,
    )
    torch.manual_seed(config.seed)
    model = IVDNet(network).to(device)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"neuromm segment fit: {len(training)} scans of "
        f"{len({scan.subject for scan in training})} patients, "
        f"{', '.join(modalities)}; {n_parameters:,} parameters"
    )
    work = config.model_dir / "work"
    slices = written_slices(
        training,
        modalities,
        classes,
        network,
        work,
        may_lack=config.modality_dropout > 0,
    )
    patients = [training[number].subject for number in slices.scan]
    task = _task(config, slices, len(classes) + 1)
    result = _trained(model, slices, patients, task, config, "training")
    model.save_pretrained(config.model_dir)
    held = {patients[row] for row in result.validation}
    _write_settings(config, modalities, classes, slices, training, test, held)
    scored = "the last one, as one patient leaves none to choose by"
    if held:
        scored = (
            f"with Dice {result.best_score:.3f} on {len(held)} patients within the "
            "training"
        )
    print(f"neuromm segment fit: epoch {result.best_epoch} is kept, {scored}")
    if test:
        _compare(config, model, slices, patients, task, test, modalities, classes)
    shutil.rmtree(work, ignore_errors=True)
    print(f"neuromm segment fit: wrote {config.model_dir}")
    return 0


def _check(config: FitConfig) -> None:
    if config.folds is not None and not 0 <= config.fold < config.folds:
        raise UsageError(
            f"--fold takes 0 to {config.folds - 1} of --folds {config.folds}, got "
            f"{config.fold}"
        )
    if config.folds is not None and config.folds < 2:
        raise UsageError(f"--folds takes 2 or more, got {config.folds}")
    if config.baseline and config.folds is None:
        raise UsageError(
            "--baseline compares on patients that no network has seen: add --folds 5"
        )


def _parts(scans: Sequence[Scan], config: FitConfig) -> tuple[list[Scan], list[Scan]]:
    """Training and test scans; a patient is in one of them."""
    names = sorted({scan.subject for scan in scans})
    if config.folds is None:
        return list(scans), []
    if len(names) < config.folds + 1:
        raise UsageError(
            f"--folds {config.folds} needs more patients than {len(names)}"
        )
    order = np.random.default_rng([config.seed, 1]).permutation(len(names))
    held = {names[place] for place in order[config.fold :: config.folds]}
    training = [scan for scan in scans if scan.subject not in held]
    return training, [scan for scan in scans if scan.subject in held]


def _task(config: FitConfig, slices: Any, n_classes: int) -> Any:
    from neuromm.training import SegmentationTask

    weights = config.class_weights
    if weights is None:
        counts = np.zeros(n_classes)
        for mask in slices.labels:
            counts += np.bincount(mask[mask >= 0].ravel(), minlength=n_classes)
        rarity = np.sqrt(counts[0] / np.maximum(counts, 1))
        weights = tuple(float(w) for w in np.clip(rarity, 1.0, _HEAVIEST))
    if len(weights) != n_classes:
        raise UsageError(
            f"--class-weights takes {n_classes} numbers, background first, got "
            f"{len(weights)}"
        )
    return SegmentationTask(n_classes=n_classes, class_weights=weights)


def _trained(
    model: Any,
    slices: Any,
    patients: Sequence[str],
    task: Any,
    config: FitConfig,
    folder: str,
) -> Any:
    """Train one network, with a bar; a run that was stopped goes on."""
    from tqdm import tqdm

    from neuromm.training import TrainingConfig, fit

    training = TrainingConfig(
        n_epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule="cosine",
        validation_fraction=_VALIDATION if len(set(patients)) > 1 else 0.0,
        monitor="dice",
        higher_is_better=True,
        seed=config.seed,
    )
    with tqdm(total=1, unit="step", desc=folder, disable=None) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return fit(
            model,
            slices,
            training,
            task=task,
            groups=list(patients),
            augmentations=_augmentations(config),
            folder=config.model_dir / folder,
            progress=told,
        )


def _augmentations(config: FitConfig) -> list[Any]:
    from neuromm.training import ModalityDropout, MonaiAugmentation

    found: list[Any] = []
    transforms = _transforms(config)
    if transforms:
        from monai.transforms import Compose

        found.append(MonaiAugmentation(Compose(transforms)))
    if config.modality_dropout:
        found.append(ModalityDropout(config.modality_dropout))
    return found


def _transforms(config: FitConfig) -> list[Any]:
    from monai.transforms import RandAffined, RandFlipd, RandScaleIntensityd

    keys = ["images", "labels"]
    found: list[Any] = []
    if config.augmentation:
        # Turned within the sagittal plane; in 3-D that is about the first axis.
        turns = (0.15,) if config.dimension == 2 else (0.15, 0.0, 0.0)
        found += [
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=turns,
                scale_range=0.12,
                translate_range=8,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd(["images"], factors=0.2, prob=0.5),
        ]
    if config.flips:
        last = (0, 1) if config.dimension == 2 else (1, 2)
        found += [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in last]
    return found


def _write_settings(
    config: FitConfig,
    modalities: Sequence[str],
    classes: Mapping[str, Values],
    slices: Any,
    training: Sequence[Scan],
    test: Sequence[Scan],
    held: set[str],
) -> None:
    from neuromm_pipelines.segment_settings import SegmentSettings

    across, up = np.median(slices.spacing_mm, axis=0)
    part = {scan.subject: "test" for scan in test}
    for scan in training:
        part[scan.subject] = "validation" if scan.subject in held else "training"
    SegmentSettings(
        modalities=tuple(modalities),
        classes={
            name: [list(pair) for pair in pairs] for name, pairs in classes.items()
        },
        may_lack=config.modality_dropout > 0,
        flips=config.flips,
        spacing_mm=(float(across), float(up)),
        patients=dict(sorted(part.items())),
        notice=_notice(config.data),
    ).write(config.model_dir)
    rows = [{"subject": name, "part": where} for name, where in sorted(part.items())]
    _write_table(config.model_dir / "split.tsv", pd.DataFrame(rows))


def _notice(data: Path) -> str:
    """What makers of data say of them in dataset_description.json, if simulated."""
    from neuromm.core.files import read_json

    path = data / "dataset_description.json"
    try:
        name = str(read_json(path).get("Name", "")) if path.is_file() else ""
    except DataError:
        return ""
    is_made = "simulat" in name.lower()
    return f"Trained on simulated scans ({name})." if is_made else ""


def _compare(
    config: FitConfig,
    model: Any,
    slices: Any,
    patients: Sequence[str],
    task: Any,
    test: Sequence[Scan],
    modalities: Sequence[str],
    classes: Mapping[str, Values],
) -> None:
    """Dice of the network and its baselines on the patients of the fold."""
    from neuromm_pipelines import segment_baselines

    networks: dict[str, Any] = {"IVD-Net": segment_baselines.of_network(model)}
    if "unet" in config.baseline:
        peer = segment_baselines.unet_like(model, config.seed)
        _trained(peer, slices, patients, task, config, "training-unet")
        networks["U-Net (MONAI)"] = segment_baselines.of_peer(peer)
    if "logistic" in config.baseline:
        networks["logistic regression"] = segment_baselines.logistic(
            slices, len(classes) + 1, config.seed
        )
    table = segment_baselines.compared(networks, test, modalities, classes, model)
    _write_table(config.model_dir / "comparison.tsv", table)
    n_patients = len({scan.subject for scan in test})
    print(f"neuromm segment fit: Dice on {n_patients} patients left out", flush=True)
    print(table.to_string(index=False, float_format="%.3f"), file=sys.stdout)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(
            temporary, sep="\t", index=False, na_rep="n/a", float_format="%.6g"
        )
