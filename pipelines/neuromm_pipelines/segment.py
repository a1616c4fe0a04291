"""``neuromm segment``: IVD-Net, from MRI on disk to discs with centres and volumes.

neuromm segment fit DATA MODEL_DIR         train a network
neuromm segment predict DATA OUTPUT_DIR    masks, centres, volumes, reports
neuromm segment evaluate DATA OUTPUT_DIR   what was predicted against a reference
"""

import importlib
import sys
from collections.abc import Sequence

from neuromm_pipelines.command_line import settings_of, start_logging
from neuromm_pipelines.segment_flags import build_parser

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one of the three, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    start_logging(args.verbose)
    module = importlib.import_module(f"neuromm_pipelines.segment_{args.job}")
    config = settings_of(module.Config, args, "neuromm segment " + " ".join(arguments))
    code: int = module.run(config)
    return code
