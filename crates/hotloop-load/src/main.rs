//! The load generator behind hotloop's demo and benchmarks.
//!
//! Closed-loop clients: each of N connections sends a request, waits for the whole answer, checks every byte of it and
//! sends the next. All connections live on one thread, so that the generator costs one core and the server another. The
//! server's own CPU time is read from `/proc` at both ends of the measured window, because CPU a request says more than
//! wall time on a machine that others use too.
//!
//! One JSON object goes to standard output, anything else to standard error. Exit status: 0 when every answer was right,
//! 1 when one was wrong or none came, 2 when the run could not start.

#![forbid(unsafe_code)]

mod client;
mod cpu;
mod download;
mod echo;
mod exchange;
mod http;
mod load;
mod options;
mod report;
mod socket;
mod tls;
mod websocket;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::Options::from_command_line() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    match load::run(&options) {
        Ok(report) => {
            println!("{}", report.to_json());
            if let Some(error) = report.first_error() {
                eprintln!("hotloop-load: {error}");
            }
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("hotloop-load: {error}");
    ExitCode::from(2)
}
