"""Real programs, unchanged, on stock asyncio (the oracle) and on hotloop.

A test here is written once and parametrised over the loops. Servers that are programs (uvicorn, gunicorn, a script)
run as processes of their own; clients, and servers that are libraries, run on the loop under test in this process.
"""
