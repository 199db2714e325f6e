//! What the measurements share: inputs made once, cases that run in a process of their own,
//! alternating pairs, a table with ratios.
//!
//! A bench is its own main program. Started by cargo it is the parent: it makes the inputs, starts
//! itself once for every measurement (`--case NAME ARGUMENT...`) and prints what comes out. So the
//! memory of one case does not count for another.
//!
//! `MALLET_BENCH_QUICK=1` takes small inputs and few pairs, to try things out;
//! `MALLET_BENCH_PAIRS=N` sets the number of pairs; `MALLET_BENCH_ALONE=1` leaves other programs out,
//! which need several GB more for their copies.
#![allow(dead_code)]

#[path = "../../tests/common/build/mod.rs"]
pub mod build;
pub mod cases;
pub mod engine;
pub mod host;
pub mod input;
pub mod links;
pub mod measure;
pub mod plain;
#[path = "../../tests/common/raw.rs"]
pub mod raw;
pub mod report;
pub mod store;
pub mod writes;

use measure::Sample;
use std::process::{Command, ExitCode, Stdio};

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Small inputs, figures that mean nothing.
    pub quick: bool,
    /// Alternating pairs for every ratio.
    pub pairs: usize,
    /// No other programs beside.
    pub alone: bool,
}

impl Effort {
    fn from_environment() -> Effort {
        let is_set = |name| std::env::var_os(name).is_some_and(|v| v != "0");
        let quick = is_set("MALLET_BENCH_QUICK");
        let pairs = std::env::var("MALLET_BENCH_PAIRS")
            .ok()
            .and_then(|v| v.parse().ok());
        Effort {
            quick,
            pairs: pairs.unwrap_or(if quick { 3 } else { 7 }),
            alone: is_set("MALLET_BENCH_ALONE"),
        }
    }
}

/// Runs a bench called `name`: one of the cases if the command line says so, else the whole of it.
pub fn main(name: &str, whole: fn(Effort)) -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--case") => {
            let case = args.next().expect("a case's name");
            let args: Vec<String> = args.collect();
            cases::run(&case, &args);
            ExitCode::SUCCESS
        }
        // What `cargo bench` passes; anything else is `cargo test` looking for tests.
        Some("--bench") => {
            let effort = Effort::from_environment();
            report::heading(name, effort);
            whole(effort);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("run by `cargo bench --bench {name}`");
            ExitCode::SUCCESS
        }
    }
}

/// Runs a case in a process of its own and gives its samples.
pub fn child(case: &str, args: &[String]) -> Vec<Sample> {
    let own = std::env::current_exe().expect("the path of this program");
    let output = Command::new(own)
        .arg("--case")
        .arg(case)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .expect("a process for the case");
    assert!(output.status.success(), "case {case} {args:?} failed");
    let text = String::from_utf8(output.stdout).expect("samples as text");
    text.lines().map(Sample::parse).collect()
}

/// Runs a case that gives one sample.
pub fn sample(case: &str, args: &[String]) -> Sample {
    let samples = child(case, args);
    assert_eq!(samples.len(), 1, "one sample of {case}");
    samples[0]
}

/// Runs two cases in turn, `pairs` times each, the first one first in every other pair.
pub fn pairs(
    pairs: usize,
    mut first: impl FnMut() -> Sample,
    mut second: impl FnMut() -> Sample,
) -> Vec<(Sample, Sample)> {
    (0..pairs)
        .map(|n| {
            if n % 2 == 0 {
                let first = first();
                (first, second())
            } else {
                let second = second();
                (first(), second)
            }
        })
        .collect()
}
