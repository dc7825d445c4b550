"""Two real servers on each loop: `python -m benchmarks.demo`."""
