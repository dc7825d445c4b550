//! The one place of the binding where unsafe code lives: everything here has a safe face.
//!
//! PyO3's own classes are not used for the hot types, because three things are needed that they do not offer: a native
//! subtype of a class written in Python (`asyncio.Handle`, `asyncio.Transport`), methods called by vectorcall with
//! their arguments still on the caller's stack, and state read at a fixed offset.
#![expect(
    unsafe_code,
    reason = "the C interface of CPython; every block says why it is sound"
)]

mod buffer;
mod call;
mod class;
mod context;
mod object;
mod option_cell;
mod registry;
mod slots;
mod spare;
mod watch;
mod window;

pub(crate) use buffer::{
    Bytes, ReadBuffer, WriteBuffer, append, filled, receive_append, receive_bytes, received_bytes,
};
pub(crate) use call::{
    Call, Name, call_method, call_no_args, call_one, call_tuple, call_two, call_with_keyword, is_method_of,
    no_arguments, plain_number,
};
pub(crate) use class::{
    Class, ClassBuilder, Finalize, Flag, Instance, Layout, PlainClass, This, Visit, alloc_plain, is_unshared,
    track, track_if_shared, version_of, version_of_class,
};
pub(crate) use context::{
    copy_context, copy_of, enter, exit, gil_is_held, has_current_variables, same_variables,
};
pub(crate) use object::Object;
pub(crate) use option_cell::OptionCell;
pub(crate) use registry::{Entry, Registry};
pub(crate) use slots::{Slot, same_type};
pub(crate) use spare::Spare;
pub(crate) use watch::{changes, watch, watched};
pub(crate) use window::Window;
