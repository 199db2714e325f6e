//! The table that a bench prints.

use super::Effort;
use super::measure::Spread;

/// Says what follows, how to get it again and on what kind of machine it was made.
pub fn heading(name: &str, effort: Effort) {
    let Effort { quick, pairs, .. } = effort;
    let variable = if quick { "MALLET_BENCH_QUICK=1 " } else { "" };
    println!("\n== {variable}cargo bench --bench {name}");
    if quick {
        note("QUICK: small inputs; the figures say nothing about the targets");
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    note(format!(
        "{cores} cores, load {load} at the start; median (least to greatest) of {pairs} pairs"
    ));
    note("inputs are made by the builder of tests/common/build, below target/bench");
}

/// A line about the input or the method.
pub fn note(text: impl std::fmt::Display) {
    println!("   {text}");
}

/// A figure without a target.
pub fn figure(what: &str, spread: Spread, unit: &str) {
    let Spread { median, .. } = spread;
    println!("   {what:<58} {median:>10.2} {unit:<5} {}", range(spread));
}

/// Least and greatest; nothing for a figure that was taken once.
fn range(Spread { min, max, .. }: Spread) -> String {
    if min == max {
        String::new()
    } else {
        format!("({min:.2} to {max:.2})")
    }
}

/// A figure that must be at least `target`.
pub fn at_least(what: &str, spread: Spread, target: f64) {
    judge(
        what,
        spread,
        spread.median >= target,
        &format!(">= {target}"),
    );
}

/// A figure that must be at most `target`.
pub fn at_most(what: &str, spread: Spread, target: f64) {
    judge(
        what,
        spread,
        spread.median <= target,
        &format!("<= {target}"),
    );
}

fn judge(what: &str, spread: Spread, met: bool, target: &str) {
    let Spread { median, .. } = spread;
    let range = range(spread);
    let verdict = if met { "met" } else { "MISSED" };
    println!("   {what:<58} {median:>10.3}       {range}  target {target}: {verdict}");
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Peak memory of some runs with a cache of `cache` bytes: all of it, and what is beyond the cache
/// (less than nothing where the cache did not fill).
pub fn memory(what: &str, peaks: impl IntoIterator<Item = u64>, cache: u64) {
    let peak = Spread::of(peaks.into_iter().map(mib));
    let cache = mib(cache);
    let beyond = Spread {
        median: peak.median - cache,
        min: peak.min - cache,
        max: peak.max - cache,
    };
    let what = format!("{what}: peak RSS - {cache} MiB cache");
    judge(
        &what,
        beyond,
        beyond.max <= 128.0,
        &format!("<= 128 MiB ({:.1} in all)", peak.max),
    );
}
