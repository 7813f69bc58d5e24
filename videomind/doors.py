"""Old names of modules that have moved: commands and imports by them keep working."""

import importlib
import sys


def lead_to(target: str, name: str) -> None:
    """Make the module of an old name the one that it is today.

    Run as a script or by `python -m`, it runs that module's `main` and ends with its exit code.

    Args:
        target: today's full name.
        name: `__name__` of the old module.
    """
    module = importlib.import_module(target)
    if name == "__main__":
        sys.exit(module.main())
    sys.modules[name] = module
