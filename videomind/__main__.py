"""`python -m videomind` is the `videomind` command."""

import sys

from videomind.cli import main

if __name__ == "__main__":
    sys.exit(main())
