"""Comparisons between event loops, with stock asyncio as the control: `python -m benchmarks --help`."""
