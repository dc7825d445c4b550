//! The extension module `_hotloop`.
