//! The engine, borrowed.

use std::cell::RefMut;

use crate::host::Engine;

/// The engine, borrowed for one call into it.
///
/// What the engine has no use for any more is dropped after the borrow ends: a transport's finalizer runs Python code,
/// which may call the loop.
pub(crate) struct EngineGuard<'a>(pub(super) Option<RefMut<'a, Engine>>);

impl std::ops::Deref for EngineGuard<'_> {
    type Target = Engine;

    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("borrowed until dropped")
    }
}

impl std::ops::DerefMut for EngineGuard<'_> {
    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref_mut(&mut self) -> &mut Engine {
        self.0.as_mut().expect("borrowed until dropped")
    }
}

impl Drop for EngineGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut engine) = self.0.take() {
            let discarded = engine.take_discarded();
            drop(engine);
            drop(discarded);
        }
    }
}
