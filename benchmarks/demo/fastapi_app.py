"""A small FastAPI application, for uvicorn: it parses a path and a query, and answers with a model as JSON."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel


class Item(BaseModel):
    number: int
    name: str
    tags: list[str]


app = FastAPI()


@app.get("/items/{number}")
async def item(number: int, tag: str) -> Item:
    return Item(number=number, name=f"item {number}", tags=[tag])
