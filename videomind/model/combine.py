"""Write one folder that holds several roles, in the published layout."""

import argparse
import sys
from collections.abc import Sequence

from videomind.files import labelled_paths
from videomind.logger import run_command
from videomind.start_up import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Run `videomind combine OUT grounder=DIR verifier=DIR ...`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="videomind combine", description=__doc__)
    parser.add_argument("out", help="folder to write")
    parser.add_argument("roles", nargs="+", metavar="ROLE=DIR", help="e.g. grounder=work_dirs/grounder")
    return run_command(lambda: parser.parse_args(argv), run)


def run(args: argparse.Namespace) -> None:
    """Combine what the command line names."""
    with importing():
        from videomind.model.assembly import combine

    combine(labelled_paths(args.roles), args.out)


if __name__ == "__main__":
    sys.exit(main())
