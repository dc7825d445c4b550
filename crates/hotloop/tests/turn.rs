//! The laws of a turn, on the simulated driver and a clock that moves only while the loop waits.

#[path = "turn/datagrams.rs"]
mod datagrams;
#[path = "turn/ends.rs"]
mod ends;
#[path = "turn/faults.rs"]
mod faults;
#[path = "turn/order.rs"]
mod order;
#[path = "turn/pipes.rs"]
mod pipes;
#[path = "turn/posts.rs"]
mod posts;
#[path = "turn/program.rs"]
mod program;
#[path = "turn/sends.rs"]
mod sends;
#[path = "turn/signals.rs"]
mod signals;
#[path = "turn/waits.rs"]
mod waits;
#[path = "turn/watchers.rs"]
mod watchers;
#[path = "turn/writes.rs"]
mod writes;
