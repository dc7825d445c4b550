//! What only a ring can do wrong: operations that go on by themselves, buffers and queues that are full, threads, forks.
#![cfg(io_uring)]

#[path = "ring/forks.rs"]
mod forks;
#[path = "ring/looking.rs"]
mod looking;
#[path = "ring/loops.rs"]
mod loops;
#[path = "ring/receiving.rs"]
mod receiving;
#[path = "ring/refusals.rs"]
mod refusals;
#[path = "ring/sending.rs"]
mod sending;
#[path = "ring/sparing.rs"]
mod sparing;
#[path = "ring/surroundings.rs"]
mod surroundings;
