"""How event loops keep asyncio's semantics: `python -m benchmarks.conduct`.

A figure compares loops only where they do the same. Each *check of conduct* is a short program with one claim about
what asyncio documents or stock asyncio does, and the rows of the benchmarks to which it matters: those whose figure may
be lower for a loop that does not keep it. Stock asyncio is the oracle, and keeps all of them.
"""
