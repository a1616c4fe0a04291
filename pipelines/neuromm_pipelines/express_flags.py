"""Flags of ``neuromm express``."""

import argparse
from pathlib import Path

from neuromm_pipelines.command_line import (
    RESEARCH_USE,
    QuietAliases,
    add_device,
    add_flag,
)

__all__ = ["build_parser"]

_DATA_TEXT = """\
what DATA may be:
  a table    sections.tsv with the columns section, spots, slide, patient (and
             microns_per_pixel, scale, features), or a folder that holds it
  HEST-1k    a folder with st/NAME.h5ad, wsis/ or patches/
  HER2ST …   a folder with counts/NAME.tsv.gz or ST-cnts/, and pictures beside it
  a section  a Visium folder, .h5ad or count table; its picture with --slide
  a slide    .svs, .tif, …: predict alone, with --grid-um
"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the three jobs."""
    parser = argparse.ArgumentParser(
        prog="neuromm express",
        description=f"Predict gene expression from H&E sections. {RESEARCH_USE}",
        formatter_class=QuietAliases,
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, build, text in (
        ("fit", _fit, "train a model, and score it on patients left out"),
        ("predict", _predict, "predict expression at spots, or over a slide"),
        ("evaluate", _evaluate, "compare what was predicted with counts"),
    ):
        job = jobs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {RESEARCH_USE}",
            epilog=_DATA_TEXT,
            formatter_class=QuietAliases,
        )
        build(job)
        _common(job)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    add_flag(data, "--section-label", nargs="+", metavar="NAME",
             help="sections to take; all if left out")  # fmt: skip
    add_flag(data, "--slide", type=Path, metavar="FILE",
             help="picture of the one section that DATA is")  # fmt: skip
    add_flag(data, "--slide-scale", type=float, metavar="X",
             help="size of pictures in that of the full-resolution ones, in whose "
             "pixels spots have their places (1)")  # fmt: skip
    add_flag(data, "--microns-per-pixel", type=float, metavar="UM",
             help="of the full-resolution pictures, where files do not state "
             "it")  # fmt: skip
    parser.add_argument("-v", "--verbose", action="count", default=0)
    add_flag(parser, "--debug", switch=True, help="show tracebacks of errors")


def _features(parser: argparse._ActionsContainer, default: str) -> None:
    add_flag(parser, "--backbone", metavar="NAME|FOLDER",
             help=f"patch encoder: a built-in name or a local folder{default}"
             )  # fmt: skip
    add_flag(parser, "--features", metavar="FOLDER|FILE|obsm:KEY",
             help="vectors that were computed before: emb/ of HEST and TRIPLEX, an "
             ".h5, or a key of the AnnData")  # fmt: skip
    add_flag(parser, "--encoder", metavar="NAME",
             help="of several in --features, or of files that do not name theirs"
             )  # fmt: skip
    add_flag(parser, "--cache", type=Path, metavar="FOLDER",
             help="where vectors are kept (NEUROMM_CACHE_DIR, or the user's cache "
             "folder)")  # fmt: skip


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    features = parser.add_argument_group("features")
    _features(features, " (colorstats, a stand-in without a network)")
    add_flag(features, "--patch-um", type=float, default=112.0, metavar="UM",
             help="side of a patch on the tissue (112)")  # fmt: skip
    add_flag(features, "--tiles", type=int, default=5, metavar="N",
             help="tiles along a side of the neighbourhood (5)")  # fmt: skip
    add_flag(features, "--patch-tokens", switch=True,
             help="keep all tokens of a spot's own patch, as published, not its one "
             "vector")  # fmt: skip
    add_flag(features, "--stain-normalise", switch=True,
             help="show every slide in the stains of the first section (Macenko)"
             )  # fmt: skip
    genes = parser.add_argument_group("genes")
    add_flag(genes, "--genes", type=int, default=250, metavar="N",
             help="in the panel (250)")  # fmt: skip
    add_flag(genes, "--panel", choices=("mean", "variable", "mean-variance"),
             default="mean", help="how they are chosen, on training spots alone "
             "(mean)")  # fmt: skip
    add_flag(genes, "--gene-list", nargs="+", metavar="GENE",
             help="these genes instead")  # fmt: skip
    add_flag(genes, "--library", choices=("panel", "all"), default="panel",
             help="counts that a spot is normalised by (panel, as published)"
             )  # fmt: skip
    add_flag(genes, "--log-base", choices=("e", "2", "10"), default="e",
             help="of log(1 + x); errors differ by it, correlations do not (e)"
             )  # fmt: skip
    add_flag(genes, "--smooth-training", switch=True,
             help="train on means with neighbouring spots; scores are of spots as "
             "they are")  # fmt: skip
    _network(parser.add_argument_group("network"))
    _scoring(parser.add_argument_group("scoring"))
    add_flag(parser, "--overwrite", switch=True, help="compute finished folds again")
    add_device(parser)


def _network(network: argparse._ActionsContainer) -> None:
    add_flag(network, "--model", choices=("GeneDML", "TRIPLEX"), default="GeneDML",
             help="(GeneDML)")  # fmt: skip
    add_flag(network, "--size", choices=("small", "her2st", "stnet", "skinst"),
             default="small", help="small, for a CPU and hundreds of spots, or as "
             "published for a data set (small)")  # fmt: skip
    add_flag(network, "--preset", choices=("corrected", "as_released"),
             default="corrected", help="without the defects of the released code, or "
             "with them (corrected)")  # fmt: skip
    add_flag(network, "--groups", choices=("kmeans", "spectral", "sinkhorn"),
             default="kmeans", help="how a batch is grouped (kmeans)")  # fmt: skip
    add_flag(network, "--contrastive-weight", type=float, metavar="X",
             help="of both contrastive losses (0.03; 1, as published, with "
             "as_released)")  # fmt: skip
    add_flag(network, "--epochs", type=int, default=60, metavar="N",
             help="at most; the best one is kept (60)")  # fmt: skip
    add_flag(network, "--batch-size", type=int, default=128, metavar="N",
             help="spots (128)")  # fmt: skip
    add_flag(network, "--learning-rate", type=float, default=2e-3, metavar="X",
             help="falls to 0 along a cosine (0.002)")  # fmt: skip
    add_flag(network, "--seed", type=int, default=0, metavar="N", help="(0)")


def _scoring(scoring: argparse._ActionsContainer) -> None:
    add_flag(scoring, "--folds", choices=("patients", "blocks", "random", "none"),
             help="what is left out to score: whole patients (where there are two), "
             "blocks of tissue (where there is one), or random spots, which leak"
             )  # fmt: skip
    add_flag(scoring, "--n-folds", type=int, metavar="K",
             help="folds (as many as patients; 4 of blocks and random)")  # fmt: skip
    add_flag(scoring, "--fold", type=int, metavar="I",
             help="this fold alone, from 0 on, for job arrays; the last one trains on "
             "all")  # fmt: skip
    add_flag(scoring, "--also-random", switch=True,
             help="score random spots too, to show the leak")  # fmt: skip


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    add_flag(parser, "--model", type=Path, metavar="MODEL_DIR",
             help="folder that fit wrote (needed)")  # fmt: skip
    _features(parser, ", if its folder has moved since the training")
    add_flag(parser, "--grid-um", type=float, metavar="UM",
             help="lay a square grid of this pitch over a slide without "
             "spots")  # fmt: skip
    add_flag(parser, "--overwrite", switch=True,
             help="compute finished sections again")  # fmt: skip
    add_device(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    add_flag(parser, "--include-trained", switch=True,
             help="score patients that the model was trained on, too")  # fmt: skip
    add_flag(parser, "--smooth-truth", switch=True,
             help="score against means with neighbouring spots, as published "
             "evaluations do")  # fmt: skip
