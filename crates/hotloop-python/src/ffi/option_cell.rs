//! A place in a native object for something of Python's, or for nothing.

use std::cell::Cell;

use super::Object;

/// What a `RefCell<Option<T>>` is, in half the room: as nothing is lent out of it, no loans are counted. Objects that there
/// are thousands of have several.
pub(crate) struct OptionCell<T = Object>(Cell<Option<T>>);

impl<T> OptionCell<T> {
    pub(crate) const fn new(value: Option<T>) -> Self {
        Self(Cell::new(value))
    }

    /// Another reference to what is there.
    #[inline]
    pub(crate) fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.look(|value| value.cloned())
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.look(|value| value.is_some())
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        !self.is_some()
    }

    /// Puts something in its place, or nothing. Answers what was there, which the caller drops when it is safe to run
    /// what that may run.
    #[inline]
    pub(crate) fn replace(&self, value: Option<T>) -> Option<T> {
        self.0.replace(value)
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        self.0.take()
    }

    /// Shows what is there. For as long as `look` runs there is nothing, and what it put there would be dropped: it is to
    /// run none of Python's code.
    #[inline]
    pub(crate) fn look<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let value = self.0.take();
        let answer = look(value.as_ref());
        self.0.set(value);
        answer
    }
}

impl<T> Default for OptionCell<T> {
    fn default() -> Self {
        Self::new(None)
    }
}
