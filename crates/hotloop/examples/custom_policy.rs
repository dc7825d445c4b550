//! A policy of one's own: `cargo run --example custom_policy`. Its loops are proactors where the kernel has io_uring, and
//! all of them are in debug mode.

use std::io;
use std::sync::Arc;

use hotloop::asyncio::{
    AbstractEventLoopPolicy, BaseEventLoop, DefaultEventLoopPolicy, Error, ProactorEventLoop,
    get_running_loop, run, set_event_loop_policy,
};

struct Proactors;

impl AbstractEventLoopPolicy for Proactors {
    fn get_event_loop(&self) -> Result<BaseEventLoop, Error> {
        DefaultEventLoopPolicy.get_event_loop()
    }

    fn set_event_loop(&self, event_loop: Option<BaseEventLoop>) {
        DefaultEventLoopPolicy.set_event_loop(event_loop);
    }

    fn new_event_loop(&self) -> io::Result<BaseEventLoop> {
        let event_loop = match ProactorEventLoop::new() {
            Ok(proactor) => proactor.into(),
            Err(_) => DefaultEventLoopPolicy.new_event_loop()?,
        };
        event_loop.set_debug(true);
        Ok(event_loop)
    }
}

fn main() -> Result<(), Error> {
    set_event_loop_policy(Some(Arc::new(Proactors)));
    let debug = run(async { get_running_loop().map(|event_loop| event_loop.get_debug()) })??;
    println!("debug mode: {debug}");
    Ok(())
}
