"""``neuromm COMMAND``: finds the command and hands over; loads nothing heavy."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from neuromm import __version__
from neuromm_pipelines.command_line import RESEARCH_USE, guarded

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "encode": "BIDS app: predict every voxel, sensor or contact from feature spaces",
    "merge": "join the chunks that a job array of `neuromm encode` has fitted",
    "express": "Gene-DML: expression of genes at spots of stained tissue",
    "segment": "IVD-Net: intervertebral discs in MRI, with centres and volumes",
    "demo": "simulate a data set with planted truth, encode it, and say what was found",
    "doctor": "say what is installed, and how to mend what is not",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        command, *rest = arguments
        module = importlib.import_module(f"neuromm_pipelines.{command}")
        return guarded(f"neuromm {command}", module.main, rest)
    build_parser().parse_args(arguments)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """Parser of the bare ``neuromm``: it knows help, version and the command names."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {job}" for name, job in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="neuromm",
        description=RESEARCH_USE,
        epilog="commands:\n" + "\n".join(lines) + "\n\n"
        "neuromm COMMAND --help explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="neuromm [--help] [--version] COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"neuromm {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=sorted(COMMANDS))
    return parser


if __name__ == "__main__":
    sys.exit(main())
