//! What Python sees of the native base: its class, methods and attributes.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyString, PyType};

use super::{
    CLASS, Loop, assigned, begin_running, by_hand, clock, construct, create_future, create_task, delegated,
    end_running, generators, get_debug, is_closed, is_running, registry, release, run_once, scheduling, stop,
    watching, write_to_self,
};
use crate::answers::{bool_object, object_or_none};
use crate::ffi::{ClassBuilder, Object, This};
use crate::{addresses, connecting, listeners, sockets, transports};

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    clock::watch(module.py())?;
    let base = module
        .py()
        .import("builtins")?
        .getattr("object")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<Loop>::new()
        .constructor(construct)
        .bare_method(c"call_soon", c"call_soon($self, /, callback, *args, context=None)\n--\n\nArrange for a callback to be called on the next turn.", scheduling::call_soon)
        .bare_method(c"call_soon_threadsafe", c"call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\nLike call_soon(), from any thread.", scheduling::call_soon_threadsafe)
        .bare_method(c"call_later", c"call_later($self, /, delay, callback, *args, context=None)\n--\n\nArrange for a callback to be called after a delay in seconds.", scheduling::call_later)
        .bare_method(c"call_at", c"call_at($self, /, when, callback, *args, context=None)\n--\n\nArrange for a callback to be called at a time of the loop's clock.", scheduling::call_at)
        .bare_no_args(c"time", c"time($self, /)\n--\n\nThe loop's time in seconds: a float, the same as time.monotonic().", clock::time)
        .bare_no_args(c"stop", c"stop($self, /)\n--\n\nEnd run_forever() after this turn.", stop)
        .bare_no_args(c"is_closed", c"is_closed($self, /)\n--\n\nWhether the loop was closed.", is_closed)
        .bare_no_args(c"is_running", c"is_running($self, /)\n--\n\nWhether the loop runs now.", is_running)
        .bare_no_args(c"get_debug", c"get_debug($self, /)\n--\n\nWhether the loop is in debug mode.", get_debug)
        .no_args(c"_run_once", c"_run_once($self, /)\n--\n\nRun one turn; inside run_forever(), all turns until stop().", run_once)
        .method(c"_wait_for_io", c"_wait_for_io($self, seconds, /)\n--\n\nWait, for whoever runs turns by hand; answer the handle that handles what was found.", by_hand::wait_for_io)
        .no_args(c"_run_io", c"_run_io($self, /)\n--\n\nHandle the I/O that was found.", by_hand::run_io)
        .no_args(c"_begin_running", c"_begin_running($self, /)\n--\n\nLet the next _run_once() go on until stop().", begin_running)
        .no_args(c"_end_running", c"_end_running($self, /)\n--\n\nUndo _begin_running() and send what is still gathered.", end_running)
        .bare_method(c"_timer_handle_cancelled", c"_timer_handle_cancelled($self, handle, /)\n--\n\nNotification that a TimerHandle was cancelled.", scheduling::timer_handle_cancelled)
        .method(c"_add_callback", c"_add_callback($self, handle, /)\n--\n\nAdd a Handle to the ready callbacks.", scheduling::add_callback)
        .method(c"_add_callback_signalsafe", c"_add_callback_signalsafe($self, handle, /)\n--\n\nLike _add_callback(), and wake the loop.", scheduling::add_callback_signalsafe)
        .no_args(c"_write_to_self", c"_write_to_self($self, /)\n--\n\nWake the loop.", write_to_self)
        .method(c"_watch_read", c"_watch_read($self, fd, handle, /)\n--\n\nHave a handle run while a descriptor is readable; answer the one it replaces.", watching::watch_read)
        .method(c"_watch_write", c"_watch_write($self, fd, handle, /)\n--\n\nHave a handle run while a descriptor is writable; answer the one it replaces.", watching::watch_write)
        .method(c"_unwatch_read", c"_unwatch_read($self, fd, /)\n--\n\nEnd _watch_read(); answer its handle or None.", watching::unwatch_read)
        .method(c"_unwatch_write", c"_unwatch_write($self, fd, /)\n--\n\nEnd _watch_write(); answer its handle or None.", watching::unwatch_write)
        .method(c"_wakes_only", c"_wakes_only($self, fd, /)\n--\n\nSay that a watched descriptor is there only to end waits; None: that there is no such one.", watching::wakes_only)
        .method(c"_watchers", c"_watchers($self, fd, /)\n--\n\nThe handles that watch a descriptor: reader and writer, each a handle or None.", watching::watchers)
        .no_args(c"_watched", c"_watched($self, /)\n--\n\nThe numbers of all watched descriptors, as a list.", watching::watched)
        .method(c"_use_driver", c"_use_driver($self, name, /)\n--\n\nPut the loop on the driver of that name, before it has anything to do.", delegated::use_driver)
        .no_args(c"_waker_fd", c"_waker_fd($self, /)\n--\n\nThe descriptor that a selector object waits for on behalf of other threads.", delegated::waker_fd)
        .no_args(c"_take_changes", c"_take_changes($self, /)\n--\n\nWhat a selector object is to be told, as a list: descriptor, events known, events wanted.", delegated::take_changes)
        .method(c"_refused", c"_refused($self, fd, /)\n--\n\nSay that a selector object does not know a descriptor.", delegated::refused)
        .method(c"_found", c"_found($self, fd, events, /)\n--\n\nSay which events a selector object has found.", delegated::found)
        .method(c"_new_handle", c"_new_handle($self, callback, args, context=None, /)\n--\n\nA Handle of this loop for a callback and a tuple of arguments.", scheduling::new_handle)
        .no_args(c"_ready_handles", c"_ready_handles($self, /)\n--\n\nThe ready callbacks, as a list.", by_hand::ready_handles)
        .no_args(c"_ready_count", c"_ready_count($self, /)\n--\n\nHow many callbacks are ready.", by_hand::ready_count)
        .no_args(c"_scheduled_handles", c"_scheduled_handles($self, /)\n--\n\nThe timers, as a list in heap order.", scheduling::scheduled_handles)
        .no_args(c"_ready_popleft", c"_ready_popleft($self, /)\n--\n\nTake the oldest ready callback, or None.", by_hand::ready_popleft)
        .method(c"_ready_appendleft", c"_ready_appendleft($self, handle, /)\n--\n\nPut a handle before all ready callbacks.", scheduling::ready_appendleft)
        .method(c"_clear_scheduled", c"_clear_scheduled($self, timers, /)\n--\n\nDrop all timers, or else all ready callbacks.", scheduling::clear_scheduled)
        .method(c"_try_recv", c"_try_recv($self, sock, nbytes, /)\n--\n\nReceive, or a future for it.", sockets::try_recv)
        .method(c"_try_recv_into", c"_try_recv_into($self, sock, buffer, /)\n--\n\nReceive into a buffer, or a future for it.", sockets::try_recv_into)
        .method(c"_try_sendall", c"_try_sendall($self, sock, data, /)\n--\n\nSend all of it, or a future for that.", sockets::try_sendall)
        .method(c"_try_sendfile", c"_try_sendfile($self, sock, file, offset, count, block, progress, /)\n--\n\nSend bytes of a file: how many, or a future for that.", sockets::try_sendfile)
        .method(c"_try_recvfrom", c"_try_recvfrom($self, sock, nbytes, /)\n--\n\nReceive a datagram and its sender, or a future for both.", sockets::try_recvfrom)
        .method(c"_try_recvfrom_into", c"_try_recvfrom_into($self, sock, buffer, nbytes, /)\n--\n\nReceive a datagram into a buffer, or a future for it.", sockets::try_recvfrom_into)
        .method(c"_try_sendto", c"_try_sendto($self, sock, data, address, /)\n--\n\nSend a datagram, or a future for that.", sockets::try_sendto)
        .method(c"_try_call", c"_try_call($self, sock, writing, method, /, *args)\n--\n\nWhat a method of the socket answers, or a future for it.", sockets::try_call)
        .method(c"_wait_connected", c"_wait_connected($self, sock, address, /)\n--\n\nA future for the end of a connection attempt.", sockets::wait_connected)
        .method(c"_forget_operation", c"_forget_operation($self, sock, /)\n--\n\nStop waiting for what was given up on a socket.", sockets::forget)
        .method(c"_literal_addresses", c"_literal_addresses($self, host, port, family, type, proto, flags, /)\n--\n\nWhat getaddrinfo() answers for an address literal, or None.", addresses::literal_addresses)
        .method(c"_listen", c"_listen($self, sock, handle, natively, factory, server, budget, context=None, /)\n--\n\nAccept on a listening socket; answer what watched it before.", listeners::listen)
        .method(c"_accept", c"_accept($self, fd, /)\n--\n\nA new descriptor and the address of its peer.", listeners::accept)
        .method(c"_connect", c"_connect($self, host, port, /)\n--\n\nBegin to connect to an address: a transport without a protocol and a future or None, or None.", connecting::connect)
        .method(c"_connect_unix", c"_connect_unix($self, path, /)\n--\n\nBegin to connect to a Unix socket, as _connect().", connecting::connect_unix)
        .bare_no_args(c"create_future", c"create_future($self, /)\n--\n\nA future of this loop.", create_future)
        .method(c"create_task", c"create_task($self, /, coro, **kwargs)\n--\n\nSchedule a coroutine, as a task.", create_task)
        .method(c"_asyncgen_firstiter_hook", c"_asyncgen_firstiter_hook($self, agen, /)\n--\n\nNote an asynchronous generator that begins.", generators::note_generator)
        .no_args(c"_release", c"_release($self, /)\n--\n\nLet go of the kernel and of everything scheduled, for good.", release)
        .method(c"_transport", c"_transport($self, fd, /)\n--\n\nThe native transport of a descriptor, or None.", registry::transport)
        .no_args(c"_live_transports", c"_live_transports($self, /)\n--\n\nThe native transports and their descriptors, as a list of pairs.", registry::live_transports)
        .method(c"_keep_transport", c"_keep_transport($self, fd, transport, /)\n--\n\nNote whose a descriptor is; answer whether the transport is a native one.", registry::keep_transport)
        .method(c"_forget_transport", c"_forget_transport($self, fd, /)\n--\n\nForget whose a descriptor is; answer whether it was known.", registry::forget_transport)
        .method(c"_open_stream", c"_open_stream($self, sock, protocol, waiter, extra, server, context=None, /)\n--\n\nA transport over a connected socket.", transports::open_stream)
        .method(c"_open_datagrams", c"_open_datagrams($self, sock, protocol, address, waiter, extra, /)\n--\n\nA transport over a datagram socket.", transports::open_datagrams)
        .method(c"_open_read_pipe", c"_open_read_pipe($self, pipe, protocol, waiter, extra, /)\n--\n\nA transport over what a pipe gives.", transports::open_read_pipe)
        .method(c"_open_write_pipe", c"_open_write_pipe($self, pipe, protocol, waiter, extra, /)\n--\n\nA transport over what a pipe takes.", transports::open_write_pipe)
        .property(c"_stopping", c"Whether the loop ends after this turn.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.stopping.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.stopping, value))
        .property(c"_closed", c"Whether the loop was closed.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.closed.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.closed, value))
        .property(c"_debug", c"Whether the loop is in debug mode.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.debug.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.debug, value))
        .property(c"_thread_id", c"The thread that runs the loop, or None.", |this| Ok(optional(this.py(), &this.thread)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_optional(&this.thread, value))
        .property(c"_task_factory", c"What makes tasks, or None.", |this| Ok(optional(this.py(), &this.task_factory)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_optional(&this.task_factory, value))
        .property(c"_asyncgens", c"The asynchronous generators that have begun and not ended.", |this| Ok(optional(this.py(), &this.generators)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_optional(&this.generators, value))
        .property(c"_asyncgens_shutdown_called", c"Whether shutdown_asyncgens() was called.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.generators_ended.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.generators_ended, value))
        .property(c"_foreign_transports", c"Transports that are not native, by descriptor, or None.", |this| Ok(optional(this.py(), &this.foreign)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_optional(&this.foreign, value))
        .property(c"_clock_resolution", c"In seconds: a timer due within it is due now.", |this| Ok(PyFloat::new(this.py(), this.resolution.get()).into_any()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| {
            this.resolution.set(value.extract()?);
            Ok(())
        })
        .property(c"_current_handle", c"What runs now, in debug mode.", |this| Ok(optional(this.py(), &this.current)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| {
            let old = this.current.replace((!value.is_none()).then(|| value.into()));
            drop(old);
            Ok(())
        })
        .assigned(assigned)
        .getter(c"driver", c"The name of the kernel facility that the loop runs on.", |this| Ok(PyString::new(this.py(), this.facility.get()).into_any()))
        .build(&base, &[], false)?;
    module.add("Loop", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

fn set_bool(cell: &Cell<bool>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    cell.set(value.is_truthy()?);
    Ok(())
}

fn set_optional(held: &RefCell<Option<Object>>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // Let go of only when the new one is in place: that may run foreign code.
    let old = held.replace((!value.is_none()).then(|| value.into()));
    drop(old);
    Ok(())
}

fn optional<'py>(py: Python<'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(py, held)
}
