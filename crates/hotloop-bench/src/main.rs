//! What scheduling costs on the loops of the crate, beside tokio's current-thread runtime: `cargo run --release -p
//! hotloop-bench`.
//!
//! All of them take turns in one process, in as many rounds as the command line says (9), so that a slow moment strikes
//! all. A figure is the median of its rounds, in nanoseconds an operation of wall time; a ratio is tokio's figure divided
//! by the loop's, the median of the rounds: above 1 the loop is ahead.

#![forbid(unsafe_code)]

mod on_hotloop;
mod on_tokio;

use std::process::ExitCode;
use std::time::Duration;

/// What is counted: how long so many of them take.
struct Row {
    name: &'static str,
    count: usize,
    tokio: fn(usize) -> Duration,
    hotloop: fn(&on_hotloop::EventLoop, usize) -> Duration,
}

const ROWS: [Row; 4] = [
    Row {
        name: "a callback scheduled and run (tokio: a task)",
        count: 1_000_000,
        tokio: on_tokio::tasks,
        hotloop: on_hotloop::callbacks,
    },
    Row {
        name: "a task made and run",
        count: 1_000_000,
        tokio: on_tokio::tasks,
        hotloop: on_hotloop::tasks,
    },
    Row {
        name: "a timer of 100,000, set and awaited by a task",
        count: 100_000,
        tokio: on_tokio::timers,
        hotloop: on_hotloop::timers,
    },
    Row {
        name: "from another thread to the loop and back",
        count: 20_000,
        tokio: on_tokio::round_trips,
        hotloop: on_hotloop::round_trips,
    },
];

/// When the timers are due: so late that all are set before, and as far apart as timers of one moment are.
fn due(index: usize, count: usize) -> Duration {
    // In an order that is not that in which they are set: the factor is a prime number and divides no count.
    Duration::from_millis(1) + Duration::from_nanos((index * 7919 % count) as u64)
}

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Ok(9), |rounds| rounds.parse());
    let Some(rounds) = rounds.ok().filter(|&rounds: &usize| rounds > 0) else {
        eprintln!("usage: hotloop-bench [ROUNDS]");
        return ExitCode::from(2);
    };
    let loops = on_hotloop::all();
    println!("nanoseconds an operation, medians of {rounds} rounds; in brackets tokio's as a multiple\n");
    let columns: String = loops
        .iter()
        .map(|event_loop| format!(" {} |", event_loop.name))
        .collect();
    println!("| | tokio |{columns}");
    println!("|---|---:|{}", "---:|".repeat(loops.len()));
    for row in &ROWS {
        let mut tokio = Vec::new();
        let mut ours = vec![Vec::new(); loops.len()];
        for _ in 0..rounds {
            tokio.push(nanoseconds((row.tokio)(row.count), row.count));
            for (figures, event_loop) in ours.iter_mut().zip(&loops) {
                figures.push(nanoseconds((row.hotloop)(event_loop, row.count), row.count));
            }
        }
        let cells: String = ours
            .iter()
            .map(|figures| {
                let ratios = tokio.iter().zip(figures).map(|(tokio, ours)| tokio / ours);
                format!(
                    " {:.0} ({:.2}) |",
                    median(figures),
                    median(&ratios.collect::<Vec<_>>())
                )
            })
            .collect();
        println!("| {} | {:.0} |{cells}", row.name, median(&tokio));
    }
    ExitCode::SUCCESS
}

fn nanoseconds(taken: Duration, count: usize) -> f64 {
    taken.as_secs_f64() * 1e9 / count as f64
}

/// The middle figure, of an even number the upper one.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_runs_on_every_loop_and_takes_time() {
        let loops = on_hotloop::all();
        assert!(loops.iter().any(|event_loop| event_loop.name == "selector"));
        for row in &ROWS {
            assert!((row.tokio)(100) > Duration::ZERO, "{}", row.name);
            for event_loop in &loops {
                assert!((row.hotloop)(event_loop, 100) > Duration::ZERO, "{}", row.name);
            }
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
    }
}
