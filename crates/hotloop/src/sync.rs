//! What the [`inbox`](crate::inbox) shares between threads is made of. The inbox takes it from here so that its tests can
//! put in its place what tries every order of threads.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use crossbeam_queue::SegQueue;
