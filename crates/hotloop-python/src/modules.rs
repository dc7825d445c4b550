//! Python modules that native code looks things up in or calls: imported once, and held to the end.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::ffi::Object;

/// `asyncio.futures`.
pub(crate) static FUTURES: Module = Module::new("asyncio.futures");
/// `asyncio.tasks`.
pub(crate) static TASKS: Module = Module::new("asyncio.tasks");
/// `asyncio.base_events`.
pub(crate) static BASE_EVENTS: Module = Module::new("asyncio.base_events");
/// `asyncio.protocols`.
pub(crate) static PROTOCOLS: Module = Module::new("asyncio.protocols");

/// `asyncio.constants`.
pub(crate) static CONSTANTS: Module = Module::new("asyncio.constants");
/// `asyncio.sslproto`.
pub(crate) static SSLPROTO: Module = Module::new("asyncio.sslproto");

/// `socket`.
pub(crate) static SOCKET: Module = Module::new("socket");

/// `hotloop._reports`.
pub(crate) static REPORTS: Module = Module::new("hotloop._reports");
/// `hotloop._transports`.
pub(crate) static TRANSPORTS: Module = Module::new("hotloop._transports");
/// `hotloop._writing`.
pub(crate) static WRITING: Module = Module::new("hotloop._writing");

/// Imports what finalizers may need at the end of the interpreter, when nothing can be imported any more.
///
/// # Errors
/// What the imports raise.
pub(crate) fn import_own(py: Python<'_>) -> PyResult<()> {
    for module in [&REPORTS, &TRANSPORTS, &WRITING] {
        module.module(py)?;
    }
    Ok(())
}

/// A module that is imported once: the import machinery costs more than a future does, or a connection's class check.
pub(crate) struct Module {
    name: &'static str,
    /// Filled by the first look-up.
    module: PyOnceLock<Py<PyModule>>,
}

impl Module {
    const fn new(name: &'static str) -> Self {
        let module = PyOnceLock::new();
        Self { name, module }
    }

    /// The module.
    ///
    /// # Errors
    /// What its first import raises.
    #[inline]
    pub(crate) fn module<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyModule>> {
        let import = || Ok::<_, PyErr>(py.import(self.name)?.unbind());
        Ok(self.module.get_or_try_init(py, import)?.bind(py))
    }

    /// What the module calls `name` now: looked up anew each time, as in Python, where a test may have put another
    /// thing in its place.
    ///
    /// # Errors
    /// `AttributeError` if there is no such thing, and what the import raises.
    #[inline]
    pub(crate) fn get<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let module = self.module(py)?;
        // Where nearly all names are, without the look at the class that comes before in a getattr.
        match module.dict().get_item(name)? {
            Some(found) => Ok(found),
            None => module.getattr(name),
        }
    }
}

/// A method as the module of its class defines it; `None` in the place of what a tool had put there before hotloop was
/// imported, so that nothing is taken for the original.
///
/// # Errors
/// `AttributeError` if there is no such method.
pub(crate) fn own_method(class: &Bound<'_, PyAny>, name: &str) -> PyResult<Object> {
    let py = class.py();
    let found = class.getattr(name)?;
    let module = py.import(class.getattr("__module__")?.cast_into::<PyString>()?)?;
    let is_own = found
        .getattr_opt("__globals__")?
        .is_some_and(|globals| globals.is(module.dict()));
    Ok(if is_own { found } else { py.None().into_bound(py) }.into())
}
