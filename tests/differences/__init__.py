"""What differs from stock asyncio: each difference with its reason, its tests, and what programs measure of it."""
