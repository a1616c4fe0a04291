"""``neuromm express``: Gene-DML, from stained sections to expression of genes.

neuromm express fit DATA MODEL_DIR         train, and score on patients left out
neuromm express predict DATA OUTPUT_DIR    expression at spots, or over a slide
neuromm express evaluate DATA OUTPUT_DIR   what was predicted against counts
"""

import importlib
import sys
from collections.abc import Sequence

from neuromm_pipelines.command_line import settings_of, start_logging
from neuromm_pipelines.express_flags import build_parser

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one of the three, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    start_logging(args.verbose)
    module = importlib.import_module(f"neuromm_pipelines.express_{args.job}")
    config = settings_of(module.Config, args, "neuromm express " + " ".join(arguments))
    code: int = module.run(config)
    return code
