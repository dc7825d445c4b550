//! The extension module `_hotloop`: the engine with Python as its host.
//!
//! It offers native bases; the classes that programs see are put together in `python/hotloop`. Whatever runs per
//! callback or per packet is here, whatever runs per connection or per loop is asyncio's own Python.

mod addresses;
mod allocator;
mod answers;
mod children;
mod connecting;
mod dispatch;

mod errors;
mod event_loop;
mod ffi;
mod files;
mod handles;
mod host;
mod listeners;
mod modules;
mod peers;
mod sockets;
mod tls;
mod transports;
mod writing;

use pyo3::prelude::*;

// The interpreter lock is relied upon: `gil_used = false` will be declared once every entry holds a critical section.
#[pymodule(gil_used = true)]
fn _hotloop(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    handles::add_to(module)?;
    event_loop::add_to(module)?;
    sockets::add_to(module)?;
    transports::add_to(module)?;
    listeners::add_to(module)?;
    files::add_to(module)?;
    children::add_to(module)?;
    tls::add_to(module)
}
