"""Imported by every interpreter that a suite starts, before anything else: the suite's own and those it spawns."""

import os

if "HOTLOOP_SUITES_LOOP" in os.environ:
    import hotloop_suites

    hotloop_suites.install()
