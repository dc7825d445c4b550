"""Lines for a test that waits for them."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line by one call of the system: workers share their standard output, and `print` writes the end of a line by itself."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
