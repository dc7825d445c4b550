"""OpenTelemetry's instrumentation of asyncio: the spans that a program leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os

os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "outer,inner,failing,echo"
os.environ["OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE"] = "computed"
os.environ["OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED"] = "true"

from chosen import answer, package_of, run
from opentelemetry import trace
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
AsyncioInstrumentor().instrument()
tracer = trace.get_tracer("program")


async def inner() -> None:
    await asyncio.sleep(0.001)


async def outer() -> None:
    await asyncio.gather(inner(), asyncio.create_task(inner()))


async def failing() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError


def computed() -> int:
    return 42


async def echo(host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"traced")
    writer.write_eof()
    assert await reader.read() == b"traced"
    writer.close()
    await writer.wait_closed()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def main() -> str:
    loop = asyncio.get_running_loop()
    with tracer.start_as_current_span("program"):
        await asyncio.create_task(outer())
        await asyncio.wait_for(inner(), 60)
        async with asyncio.TaskGroup() as group:
            group.create_task(inner())
        assert await asyncio.to_thread(computed) == 42
        with contextlib.suppress(ZeroDivisionError):
            await asyncio.create_task(failing())
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, None)
        await asyncio.ensure_future(future)
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            await asyncio.create_task(echo(*server.sockets[0].getsockname()))
    return package_of(loop)


loop = run(main())
spans = exporter.get_finished_spans()
names = {span.context.span_id: span.name for span in spans}
said = [
    (span.name, names.get(span.parent.span_id) if span.parent else None, span.status.status_code.name) for span in spans
]
answer({"loop": loop, "spans": sorted(said, key=repr)})
