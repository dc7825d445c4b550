"""asyncio's event loop, implemented in Rust."""
