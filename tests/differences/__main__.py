"""Measures the differences on the running Python, and writes docs/differences.md.

python tests/differences                                # measures, records, writes the page
python tests/differences --page                         # writes the page of what is on record
python tests/differences --measure selector [PROBE...]  # measures on one loop and prints it, as JSON
"""

import sys
from pathlib import Path

# The package and the tests' harness, in place of the folder that Python puts here.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse  # noqa: E402
import json  # noqa: E402

from differences import measure, page, record  # noqa: E402
from differences.entry import LOOPS  # noqa: E402
from differences.sections import probes  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--measure", choices=LOOPS)
    parser.add_argument("probes", nargs="*")
    options = parser.parse_args()
    if options.measure:
        chosen = [probe for probe in probes() if not options.probes or probe.name in options.probes]
        print(json.dumps(measure.outcomes(options.measure, chosen), indent=1))
        return
    if not options.page:
        record.write({loop: measure.outcomes(loop, probes()) for loop in LOOPS})
    page.PAGE.write_text(page.text())


if __name__ == "__main__":
    main()
