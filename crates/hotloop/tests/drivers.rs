//! The laws of `hotloop::driver`, one suite for every driver.
//!
//! A law is a function, generic over the [`World`](world::World) that the driver lives in; the lists below say which
//! worlds it holds in. What only a kernel has (closed and duplicated descriptors, threads, signals, real time) is
//! asked of the drivers over a kernel.

#[path = "drivers/datagrams.rs"]
mod datagrams;
#[path = "drivers/kernel.rs"]
mod kernel;
#[path = "drivers/operations.rs"]
mod operations;
#[path = "drivers/stale.rs"]
mod stale;
#[path = "drivers/wait.rs"]
mod wait;
#[path = "drivers/world.rs"]
mod world;

/// One test for each law, in one world.
macro_rules! hold {
    ($world:ty: $($laws:ident: $($law:ident)+;)+) => {
        $($(
            #[test]
            fn $law() -> std::io::Result<()> {
                crate::$laws::$law::<$world>()
            }
        )+)+
    };
}

/// The laws of every world.
macro_rules! hold_everywhere {
    ($world:ty) => {
        hold! {
            $world:
            operations:
                nothing_submitted_completes_nothing
                a_watched_descriptor_is_reported_as_long_as_it_is_readable
                a_watched_descriptor_is_reported_as_long_as_it_is_writable
                a_receive_gives_the_bytes_and_then_the_end
                a_send_is_reported_when_there_is_room_again
                a_send_takes_its_buffers_in_order
                a_shutdown_follows_what_was_sent
                the_reader_comes_before_the_writer
                a_second_operation_in_one_direction_is_refused
                a_cancelled_operation_has_one_last_completion
                a_cancelled_operation_that_was_ready_ends_all_the_same
                a_cancel_in_one_direction_leaves_the_other
                a_cancel_under_another_key_is_left_alone
                a_key_is_free_after_its_last_completion
                a_cancel_in_the_turn_of_another_leaves_it_ready
                what_is_submitted_in_a_turn_waits_for_the_next_wait
                a_replacement_ends_the_old_operation_and_begins_the_new
                a_replacement_in_a_turn_waits_for_the_next_wait
                nothing_to_replace_is_not_found
                what_a_turn_leaves_untaken_is_reported_again
                a_negative_descriptor_is_refused;
            datagrams:
                a_long_datagram_is_cut_to_the_buffer;
            wait:
                a_wake_before_a_wait_ends_it
                wakes_coalesce
                a_wake_takes_no_event_away
                a_waker_outlives_its_driver
                a_timeout_is_never_early
                a_pending_completion_ends_a_wait;
        }
    };
}

/// The laws of who takes several datagrams a call.
macro_rules! hold_with_batches {
    ($world:ty) => {
        hold! {
            $world:
            datagrams:
                datagrams_come_in_batches_with_their_senders
                a_batch_takes_no_more_than_it_is_asked_for
                datagrams_go_where_they_are_sent;
        }
    };
}

/// The laws that take a kernel.
macro_rules! hold_in_a_kernel {
    ($world:ty) => {
        hold! {
            $world:
            kernel:
                a_closed_descriptor_is_refused
                a_huge_descriptor_is_refused_without_a_table_of_its_size
                an_error_is_both_readable_and_writable
                a_reset_connection_is_an_error_of_receive
                a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal
                a_pipe_is_read_and_written_as_a_file
                a_write_that_nobody_reads_is_an_error
                an_accept_gives_each_connection_once
                an_accept_goes_on_beside_a_writer_and_after_a_reader;
            datagrams:
                a_refused_datagram_is_an_error_of_a_later_call
                a_datagram_that_fails_stops_those_behind_it
                many_datagrams_arrive_as_they_were_sent;
            wait:
                a_thread_ends_a_wait_without_end
                a_signal_ends_a_wait;
        }
    };
}

/// What epoll says of descriptors and the others do not: whose registrations live on in a duplicate, and which
/// files are always ready.
#[cfg(epoll)]
macro_rules! hold_with_registrations {
    ($world:ty) => {
        hold! {
            $world:
            kernel:
                a_regular_file_is_refused;
            stale:
                a_duplicate_of_a_closed_descriptor_is_not_reported_for_ever;
        }
    };
}

/// What kqueue, poll and select say otherwise than epoll.
macro_rules! hold_without_registrations {
    ($world:ty) => {
        hold! {
            $world:
            kernel:
                a_regular_file_is_always_ready;
            stale:
                a_duplicate_of_a_closed_descriptor_is_not_heard_of;
        }
    };
}

/// The laws of descriptors that are closed behind the driver's back.
macro_rules! hold_with_stale_numbers {
    ($world:ty) => {
        hold! {
            $world:
            stale:
                a_cancel_after_the_close_ends_the_operation
                a_stale_registration_leaves_the_others_alone
                a_reused_number_is_submitted_anew
                a_reused_number_is_replaced_anew
                a_reused_number_takes_the_other_direction_too
                an_old_key_does_not_end_the_operation_of_a_reused_number;
        }
    };
}

/// What all but select do: tell a writer that the other end of a pipe is gone, and watch any number.
macro_rules! hold_but_for_select {
    ($world:ty) => {
        hold! {
            $world:
            kernel:
                a_hang_up_is_both_readable_and_writable
                many_ready_descriptors_are_all_reported;
        }
    };
}

mod selector {
    hold_everywhere!(crate::world::Kernel<crate::world::Readiness>);
    #[cfg(linux)]
    hold_with_batches!(crate::world::Kernel<crate::world::Readiness>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Readiness>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Readiness>);
    #[cfg(epoll)]
    hold_with_registrations!(crate::world::Kernel<crate::world::Readiness>);
    #[cfg(kqueue)]
    hold_without_registrations!(crate::world::Kernel<crate::world::Readiness>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Readiness>);
}

mod poll {
    hold_everywhere!(crate::world::Kernel<crate::world::Polled>);
    #[cfg(linux)]
    hold_with_batches!(crate::world::Kernel<crate::world::Polled>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Polled>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Polled>);
    hold_without_registrations!(crate::world::Kernel<crate::world::Polled>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Polled>);
}

mod select {
    hold_everywhere!(crate::world::Kernel<crate::world::Selected>);
    #[cfg(linux)]
    hold_with_batches!(crate::world::Kernel<crate::world::Selected>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Selected>);
    hold_without_registrations!(crate::world::Kernel<crate::world::Selected>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Selected>);
    hold! {
        crate::world::Kernel<crate::world::Selected>:
        kernel:
            a_number_beyond_the_sets_is_refused;
    }
}

#[cfg(io_uring)]
mod proactor {
    hold_everywhere!(crate::world::Kernel<crate::world::Completing>);
    hold_with_batches!(crate::world::Kernel<crate::world::Completing>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Completing>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Completing>);
    hold_with_registrations!(crate::world::Kernel<crate::world::Completing>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Completing>);
}

#[cfg(io_uring)]
mod entering_proactor {
    hold_everywhere!(crate::world::Kernel<crate::world::Entering>);
    hold_with_batches!(crate::world::Kernel<crate::world::Entering>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Entering>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Entering>);
    hold_with_registrations!(crate::world::Kernel<crate::world::Entering>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Entering>);
}

#[cfg(io_uring)]
mod polling_proactor {
    hold_everywhere!(crate::world::Kernel<crate::world::Polling>);
    hold_with_batches!(crate::world::Kernel<crate::world::Polling>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Polling>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Polling>);
    hold_with_registrations!(crate::world::Kernel<crate::world::Polling>);
    hold_with_stale_numbers!(crate::world::Kernel<crate::world::Polling>);
}

#[cfg(io_uring)]
mod eager_proactor {
    hold_everywhere!(crate::world::Kernel<crate::world::Eager>);
    hold_with_batches!(crate::world::Kernel<crate::world::Eager>);
    hold_in_a_kernel!(crate::world::Kernel<crate::world::Eager>);
    hold_but_for_select!(crate::world::Kernel<crate::world::Eager>);
    hold! {
        crate::world::Kernel<crate::world::Eager>:
        kernel:
            a_regular_file_is_refused;
    }
}

mod sim {
    hold_everywhere!(crate::world::Simulated);
    hold_with_batches!(crate::world::Simulated);
}
