//! asyncio's event loop in Rust.
