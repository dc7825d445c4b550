//! Callbacks that are ready to run: with their handle, or without one where nobody has kept it.

use pyo3::prelude::*;

use super::{Context, blank, handles};
use crate::ffi::{self, Object};

/// A callback that waits for its turn.
#[derive(Clone)]
pub(crate) enum Scheduled {
    /// By its handle, which somebody may have.
    Handle(Object),
    /// By what its handle had in it: whoever scheduled it has dropped that, as most do.
    Bare(Bare),
}

/// What was in a handle that nobody has.
#[derive(Clone)]
pub(crate) struct Bare {
    pub(super) function: Object,
    /// A tuple.
    pub(super) arguments: Object,
    pub(super) context: Object,
    /// Whether the context is a snapshot, see [`Context::Snapshot`].
    pub(super) deferred: bool,
    /// Whether the handle was one for calls from any thread.
    threadsafe: bool,
}

impl From<Object> for Scheduled {
    fn from(handle: Object) -> Self {
        Self::Handle(handle)
    }
}

impl Scheduled {
    /// The handle, if there is one: a watcher always has.
    pub(crate) fn handle(&self) -> Option<&Object> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Bare(_) => None,
        }
    }

    /// The same, for who owns it.
    pub(crate) fn into_handle(self) -> Option<Object> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Bare(_) => None,
        }
    }

    /// The objects that it holds for itself.
    pub(crate) fn visit(&self, visit: &mut ffi::Visit) {
        match self {
            Self::Handle(handle) => visit.owned(handle),
            Self::Bare(bare) => visit.objects([&bare.function, &bare.arguments, &bare.context]),
        }
    }

    /// Lets the collector see it, if it has a handle that somebody keeps beyond the loop.
    pub(crate) fn done(&self) {
        if let Self::Handle(handle) = self {
            super::done(handle);
        }
    }
}

impl Bare {
    /// A handle for it, as it was before.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn into_handle(self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> PyResult<Object> {
        let place = blank(py, self.threadsafe)?;
        self.fill(py, &place, event_loop)?;
        Ok(place)
    }

    /// Fills a [`blank`] one of its kind. Nothing is allocated.
    ///
    /// # Errors
    /// None, outside of debug mode.
    fn fill(self, py: Python<'_>, place: &Object, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let handles = handles();
        let context = if self.deferred {
            Context::Snapshot(self.context)
        } else {
            Context::Given(self.context)
        };
        let deferred = handles.of(self.threadsafe).deferred;
        handles.fill(
            py,
            deferred,
            place,
            event_loop,
            self.function,
            self.arguments,
            context,
            false,
        )
    }

    /// Whether a handle's methods are what asyncio defines, so that it may be run without one.
    #[inline]
    pub(crate) fn is_original(&self, py: Python<'_>) -> bool {
        let handles = handles();
        handles.handle.is_original(py) && (!self.threadsafe || handles.of(true).is_original(py))
    }
}

/// Handles with nothing in them, for callbacks that have none: made before the engine is borrowed, since an allocation may
/// run foreign code.
#[derive(Default)]
pub(crate) struct Blanks {
    plain: Vec<Object>,
    threadsafe: Vec<Object>,
}

impl Blanks {
    /// How many callbacks have no handles, of each kind.
    pub(crate) fn count<'a>(ready: impl Iterator<Item = &'a Scheduled>) -> (usize, usize) {
        ready.fold((0, 0), |(plain, threadsafe), scheduled| match scheduled {
            Scheduled::Bare(bare) if bare.threadsafe => (plain, threadsafe + 1),
            Scheduled::Bare(_) => (plain + 1, threadsafe),
            Scheduled::Handle(_) => (plain, threadsafe),
        })
    }

    /// So many of each kind.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(py: Python<'_>, (plain, threadsafe): (usize, usize)) -> PyResult<Self> {
        Ok(Self {
            plain: (0..plain).map(|_| blank(py, false)).collect::<PyResult<_>>()?,
            threadsafe: (0..threadsafe)
                .map(|_| blank(py, true))
                .collect::<PyResult<_>>()?,
        })
    }

    /// Gives callbacks their handles, as long as there are some.
    ///
    /// # Errors
    /// As of [`Bare::fill`].
    pub(crate) fn give<'a>(
        &mut self,
        event_loop: &Bound<'_, PyAny>,
        ready: impl Iterator<Item = &'a mut Scheduled>,
    ) -> PyResult<()> {
        for scheduled in ready {
            let Scheduled::Bare(bare) = scheduled else {
                continue;
            };
            let blanks = if bare.threadsafe {
                &mut self.threadsafe
            } else {
                &mut self.plain
            };
            let Some(place) = blanks.pop() else { continue };
            bare.clone().fill(event_loop.py(), &place, event_loop)?;
            *scheduled = Scheduled::Handle(place);
        }
        Ok(())
    }
}

/// Parts a callback from its handle, if nobody but the loop has that. Answers the handle, emptied for
/// [`new_in`](super::new_in). It must be of the kind asked for, and as one is that was just made.
#[inline]
pub(crate) fn part(place: &mut Scheduled, event_loop: &Bound<'_, PyAny>, threadsafe: bool) -> Option<Object> {
    let (py, handles) = (event_loop.py(), handles());
    let Scheduled::Handle(handle) = &*place else {
        return None;
    };
    let kind = handles.of(threadsafe);
    let is_new = kind.is_of(handle)
        && ffi::is_unshared(handle)
        && handles.cancelled.holds(handle, &handles.false_.bind(py))
        && handles.traceback.holds(handle, &handles.none.bind(py))
        && handles.repr.holds(handle, &handles.none.bind(py))
        && handles.event_loop.holds(handle, event_loop)
        && handles
            .lock
            .is_none_or(|lock| !threadsafe || !lock.is_filled(handle))
        && handles.is_whole(handle);
    if !is_new {
        return None;
    }
    let deferred = kind.deferred.get(handle);
    kind.deferred.set(handle, false);
    drop(handles.event_loop.take(handle));
    let bare = Bare {
        function: handles.callback.take(handle)?,
        arguments: handles.arguments.take(handle)?,
        context: handles.context.take(handle)?,
        deferred,
        threadsafe,
    };
    std::mem::replace(place, Scheduled::Bare(bare)).into_handle()
}
