"""uvicorn's worker class for gunicorn, with the loop that the environment names."""

from __future__ import annotations

import os

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": os.environ["LOOP"], "http": "httptools", "lifespan": "on"}  # noqa: RUF012
