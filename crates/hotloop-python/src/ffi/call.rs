//! Calls in (what Python passes to a native method) and out (what the loop calls).

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

use super::Object;

/// The arguments of a vectorcall, still on the caller's stack.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a, 'py> {
    py: Python<'py>,
    /// Positional arguments, then the values of the keyword ones.
    pub(super) arguments: &'a [*mut ffi::PyObject],
    pub(super) positional: usize,
    /// A tuple of names, or null.
    pub(super) names: *mut ffi::PyObject,
}

impl<'a, 'py> Call<'a, 'py> {
    /// # Safety
    /// The pointers are what a METH_FASTCALL | METH_KEYWORDS function was called with.
    pub(super) unsafe fn new(
        py: Python<'py>,
        arguments: *const *mut ffi::PyObject,
        positional: isize,
        names: *mut ffi::PyObject,
    ) -> Self {
        let keywords = if names.is_null() {
            0
        } else {
            // SAFETY: `names` is a tuple.
            unsafe { ffi::PyTuple_GET_SIZE(names) }
        };
        let count = (positional + keywords).unsigned_abs();
        // The pointer may be null when there are no arguments.
        let arguments = if count == 0 {
            &[]
        } else {
            // SAFETY: the caller passes that many arguments.
            unsafe { std::slice::from_raw_parts(arguments, count) }
        };
        Self {
            py,
            arguments,
            positional: positional.unsigned_abs(),
            names,
        }
    }

    /// The interpreter lock's token.
    #[inline]
    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    /// How many positional arguments there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.positional
    }

    /// Whether there is any keyword argument.
    #[inline]
    pub(crate) fn has_keywords(&self) -> bool {
        self.arguments.len() > self.positional
    }

    /// Whether every keyword argument has one of these names.
    #[inline]
    pub(crate) fn has_only(&self, names: &[&str]) -> bool {
        !self.has_keywords()
            || self
                .keywords()
                .all(|(given, _)| names.iter().any(|name| given == *name))
    }

    /// A positional argument.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        if index >= self.positional {
            return None;
        }
        // SAFETY: the caller keeps its arguments alive during the call.
        Some(unsafe { Borrowed::from_ptr(self.py, self.arguments[index]) })
    }

    /// The positional arguments from `start` on, as a tuple: the shared empty one if there are none.
    #[inline]
    pub(crate) fn rest(&self, start: usize) -> Object {
        let rest = self.arguments.get(start..self.positional).unwrap_or_default();
        // SAFETY: a new tuple is filled with new references before anybody sees it. Of an empty one, CPython hands
        // out a shared instance; it cannot fail for that. Out of memory is fatal in PyO3 too.
        unsafe {
            let tuple = ffi::PyTuple_New(rest.len().cast_signed());
            assert!(!tuple.is_null(), "out of memory");
            for (index, &item) in rest.iter().enumerate() {
                ffi::Py_INCREF(item);
                ffi::PyTuple_SET_ITEM(tuple, index.cast_signed(), item);
            }
            Object::from_owned(tuple)
        }
    }

    /// A parameter that may be given by position or by name.
    #[inline]
    pub(crate) fn named(&self, index: usize, name: &str) -> Option<Borrowed<'a, 'py, PyAny>> {
        match self.get(index) {
            None if self.has_keywords() => self.by_name(name),
            argument => argument,
        }
    }

    /// The value of the keyword-only parameter `name`, if it was given and is not `None`. Besides it, `function` has
    /// the parameters `positional`, which may be given by name too.
    ///
    /// # Errors
    /// `TypeError` for any other keyword and for a parameter given twice, in the words that a Python function has.
    #[inline]
    pub(crate) fn keyword(
        &self,
        function: &str,
        positional: &[&str],
        name: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        if !self.has_keywords() {
            return Ok(None);
        }
        if let Some(value) = self.only_keyword(name) {
            return Ok(Some(value).filter(|value| !value.is_none()));
        }
        self.check_keywords(function, positional, name)?;
        Ok(self.by_name(name).filter(|value| !value.is_none()))
    }

    /// The `TypeError` of a function without parameters that was given some, in the words that a Python function has.
    #[cold]
    pub(crate) fn unwanted(&self, function: &str) -> PyErr {
        let message = match self.keywords().next() {
            Some((name, _)) if self.positional == 0 => {
                let name = name.repr().map(|name| name.to_string()).unwrap_or_default();
                format!("{function}() got an unexpected keyword argument {name}")
            }
            _ => format!(
                "{function}() takes 1 positional argument but {} were given",
                self.positional + 1
            ),
        };
        PyTypeError::new_err(message)
    }

    /// The one parameter of a function, by position or by name.
    ///
    /// # Errors
    /// `TypeError` if it is missing, or if there is more than it.
    pub(crate) fn only(&self, function: &str, name: &str) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        self.check_keywords(function, &[name], name)?;
        if self.positional > 1 {
            let given = self.positional + 1;
            let message = format!("{function}() takes 2 positional arguments but {given} were given");
            return Err(PyTypeError::new_err(message));
        }
        self.named(0, name).ok_or_else(|| {
            PyTypeError::new_err(format!(
                "{function}() missing 1 required positional argument: '{name}'"
            ))
        })
    }

    /// The value of the only keyword argument, if its name is this very string: callers in C and literal names in Python have
    /// interned ones.
    #[inline]
    pub(crate) fn only_interned(&self, name: &Bound<'py, PyString>) -> Option<Borrowed<'a, 'py, PyAny>> {
        if self.arguments.len() != self.positional + 1 {
            return None;
        }
        // SAFETY: there is a keyword argument, so there is a tuple of names; the caller keeps its arguments alive during the
        // call.
        unsafe {
            let is_it = ffi::PyTuple_GET_ITEM(self.names, 0) == name.as_ptr();
            is_it.then(|| Borrowed::from_ptr(self.py, self.arguments[self.positional]))
        }
    }

    /// The value of the only keyword argument, if it has this name: the usual case, without a detour.
    #[inline]
    fn only_keyword(&self, name: &str) -> Option<Borrowed<'a, 'py, PyAny>> {
        if self.arguments.len() != self.positional + 1 {
            return None;
        }
        // SAFETY: there is a keyword argument, so there is a tuple of names, and its one item is a string.
        let given = unsafe { Borrowed::from_ptr(self.py, ffi::PyTuple_GET_ITEM(self.names, 0)) };
        let is_it = given
            .cast::<PyString>()
            .is_ok_and(|given| given.to_str().is_ok_and(|given| given == name));
        // SAFETY: the caller keeps its arguments alive during the call.
        is_it.then(|| unsafe { Borrowed::from_ptr(self.py, self.arguments[self.positional]) })
    }

    /// Calls `callee` with the same arguments and one more, by name.
    ///
    /// # Errors
    /// What the call raises.
    pub(crate) fn forward_with(
        &self,
        callee: &Bound<'py, PyAny>,
        name: &Name,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let single = name.tuple(self.py)?;
        let joined;
        let names = if self.has_keywords() {
            joined = self.names_and(single);
            joined.pointer()
        } else {
            single.as_ptr()
        };
        let given = self.arguments.len();
        let mut few = [std::ptr::null_mut(); 6];
        let mut many;
        let values = if given < few.len() {
            &mut few[..=given]
        } else {
            many = vec![std::ptr::null_mut(); given + 1];
            &mut many[..]
        };
        values[..given].copy_from_slice(self.arguments);
        values[given] = value.as_ptr();
        // SAFETY: as many values behind the positional ones as there are names, all alive during the call.
        unsafe {
            let result = ffi::PyObject_Vectorcall(callee.as_ptr(), values.as_ptr(), self.positional, names);
            Bound::from_owned_ptr_or_err(self.py, result)
        }
    }

    /// The names of the keyword arguments, of which there are some, and the one of `single`.
    fn names_and(&self, single: &Bound<'py, PyTuple>) -> Object {
        let count = self.arguments.len() - self.positional;
        // SAFETY: a new tuple is filled with new references before anybody sees it; the names are a tuple of as many as
        // there are values of keyword arguments. Out of memory is fatal in PyO3 too.
        unsafe {
            let joined = ffi::PyTuple_New(count.cast_signed() + 1);
            assert!(!joined.is_null(), "out of memory");
            for index in 0..=count.cast_signed() {
                let (from, place) = if index.unsigned_abs() < count {
                    (self.names, index)
                } else {
                    (single.as_ptr(), 0)
                };
                let name = ffi::PyTuple_GET_ITEM(from, place);
                ffi::Py_INCREF(name);
                ffi::PyTuple_SET_ITEM(joined, index, name);
            }
            Object::from_owned(joined)
        }
    }

    /// The names and values of the keyword arguments.
    #[inline]
    fn keywords(&self) -> impl Iterator<Item = (Borrowed<'a, 'py, PyString>, *mut ffi::PyObject)> {
        let (py, names) = (self.py, self.names);
        let values = self.arguments[self.positional..].iter().copied().enumerate();
        values.filter_map(move |(index, value)| {
            // SAFETY: there is a name for each of these values, in a tuple that the caller keeps during the call.
            let name = unsafe { Borrowed::from_ptr(py, ffi::PyTuple_GET_ITEM(names, index.cast_signed())) };
            // Of a call by vector they all are strings.
            Some((name.cast::<PyString>().ok()?, value))
        })
    }

    fn by_name(&self, name: &str) -> Option<Borrowed<'a, 'py, PyAny>> {
        let (_, value) = self.keywords().find(|(given, _)| given == name)?;
        // SAFETY: as in `get`.
        Some(unsafe { Borrowed::from_ptr(self.py, value) })
    }

    fn check_keywords(&self, function: &str, positional: &[&str], name: &str) -> PyResult<()> {
        for (given, _) in self.keywords() {
            let known = positional.iter().position(|positional| given == *positional);
            if known.is_none() && given != name {
                let message = format!(
                    "{function}() got an unexpected keyword argument {}",
                    given.repr()?
                );
                return Err(PyTypeError::new_err(message));
            }
            if known.is_some_and(|index| index < self.positional) {
                let message = format!("{function}() got multiple values for argument {}", given.repr()?);
                return Err(PyTypeError::new_err(message));
            }
        }
        Ok(())
    }

    /// All arguments again, for a call of `callee` with them.
    ///
    /// # Errors
    /// What the call raises.
    pub(crate) fn forward(&self, callee: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the arguments and names are those of a vectorcall, passed on unchanged.
        unsafe {
            let result = ffi::PyObject_Vectorcall(
                callee.as_ptr(),
                self.arguments.as_ptr(),
                self.positional,
                self.names,
            );
            Bound::from_owned_ptr_or_err(self.py, result)
        }
    }
}

/// What an `int` or a `float` is as one, if it is of no class below them and finite enough.
#[inline]
pub(crate) fn plain_number(object: &Bound<'_, PyAny>) -> Option<f64> {
    // SAFETY: the object is alive; its class is compared before its value is read.
    unsafe {
        if ffi::PyFloat_CheckExact(object.as_ptr()) != 0 {
            return Some(ffi::PyFloat_AS_DOUBLE(object.as_ptr()));
        }
        if ffi::PyLong_CheckExact(object.as_ptr()) == 0 {
            return None;
        }
        let number = ffi::PyLong_AsDouble(object.as_ptr());
        if number == -1.0 && !ffi::PyErr_Occurred().is_null() {
            // Beyond all floats: whoever asked finds the words.
            ffi::PyErr_Clear();
            return None;
        }
        Some(number)
    }
}

/// The empty tuple.
#[inline]
pub(crate) fn no_arguments(py: Python<'_>) -> Object {
    PyTuple::empty(py).into_any().into()
}

/// Calls `callee` with the items of a tuple.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_tuple<'py>(
    py: Python<'py>,
    callee: &Object,
    arguments: &Object,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both are alive; `arguments` is checked to be a tuple, which cannot change its length.
    unsafe {
        if ffi::PyTuple_Check(arguments.pointer()) == 0 {
            return Err(PyTypeError::new_err("the arguments of a handle must be a tuple"));
        }
        let result = match ffi::PyTuple_GET_SIZE(arguments.pointer()) {
            0 => ffi::PyObject_CallNoArgs(callee.pointer()),
            _ => ffi::PyObject_Call(callee.pointer(), arguments.pointer(), std::ptr::null_mut()),
        };
        Bound::from_owned_ptr_or_err(py, result)
    }
}

/// Calls `callee` with nothing.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_no_args<'py>(callee: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the object is alive.
    unsafe { Bound::from_owned_ptr_or_err(callee.py(), ffi::PyObject_CallNoArgs(callee.as_ptr())) }
}

/// Calls `callee` with one argument.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_one<'py>(
    callee: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both are alive during the call.
    unsafe {
        let result = ffi::PyObject_CallOneArg(callee.as_ptr(), argument.as_ptr());
        Bound::from_owned_ptr_or_err(callee.py(), result)
    }
}

/// Calls `callee` with two arguments.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_two<'py>(
    callee: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let stack = [first.as_ptr(), second.as_ptr()];
    // SAFETY: both are alive during the call.
    unsafe {
        let result = ffi::PyObject_Vectorcall(callee.as_ptr(), stack.as_ptr(), 2, std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(callee.py(), result)
    }
}

/// Calls a method by name with up to three arguments, without making a bound method.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_method<'py, const N: usize>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    const { assert!(N <= 3) };
    let mut stack = [std::ptr::null_mut(); 4];
    stack[0] = object.as_ptr();
    for (slot, argument) in stack[1..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    // SAFETY: the first `N + 1` entries of the stack are alive during the call.
    unsafe {
        let result =
            ffi::PyObject_VectorcallMethod(name.as_ptr(), stack.as_ptr(), N + 1, std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Calls `callee` with one keyword argument and nothing else.
///
/// # Errors
/// What the call raises.
#[inline]
pub(crate) fn call_with_keyword<'py>(
    callee: &Bound<'py, PyAny>,
    name: &Name,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let names = name.tuple(callee.py())?;
    let stack = [value.as_ptr()];
    // SAFETY: one value for one name, all alive during the call.
    unsafe {
        let result = ffi::PyObject_Vectorcall(callee.as_ptr(), stack.as_ptr(), 0, names.as_ptr());
        Bound::from_owned_ptr_or_err(callee.py(), result)
    }
}

/// The name of a keyword argument, as a call wants it: a tuple that is made once.
pub(crate) struct Name {
    name: &'static str,
    tuple: PyOnceLock<Py<PyTuple>>,
}

impl Name {
    pub(crate) const fn new(name: &'static str) -> Self {
        let tuple = PyOnceLock::new();
        Self { name, tuple }
    }

    #[inline]
    fn tuple<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, PyTuple>> {
        let made = || Ok::<_, PyErr>(PyTuple::new(py, [PyString::intern(py, self.name)])?.unbind());
        Ok(self.tuple.get_or_try_init(py, made)?.bind(py))
    }
}

// Parts of CPython's public interface that PyO3 does not name.
unsafe extern "C" {
    static mut PyMethod_Type: ffi::PyTypeObject;
    fn PyMethod_Function(method: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Whether a bound method is that of `function`.
#[inline]
pub(crate) fn is_method_of(method: &Bound<'_, PyAny>, function: &Object) -> bool {
    // SAFETY: the type is checked before the method's function is asked for, which is a borrowed reference.
    unsafe {
        ffi::Py_TYPE(method.as_ptr()) == &raw mut PyMethod_Type
            && PyMethod_Function(method.as_ptr()) == function.pointer()
    }
}
