//! `mirror-read` and `check --data` of 4 GB of large files, cold, beside the device engine alone
//! reading the same file in order.

mod common;

use common::measure::{Sample, Spread};
use common::{Effort, engine, input, report};
use std::process::ExitCode;

/// The default of `--cache`.
const CACHE: usize = 64 << 20;

fn main() -> ExitCode {
    common::main("stream", whole)
}

fn whole(effort: Effort) {
    let input = input::large(effort);
    report::note(format!(
        "image of {} MiB, {} MiB of data in {} elements, written in full; O_DIRECT, nothing cached",
        input.size >> 20,
        input.data_bytes >> 20,
        input.elements
    ));
    report::note(format!("device: {}", engine::describe(&input.path)));
    report::note("baseline: device engine, in order, 1 MiB reads, 32 in flight");
    let path = input.path.display().to_string();
    let cache = CACHE.to_string();
    let raw = || common::sample("raw", std::slice::from_ref(&path));
    let mirror = [path.clone(), cache.clone(), "1".into()];
    let check = [path.clone(), cache, "1".into()];
    compare(
        effort,
        "mirror-read to /dev/null",
        || common::sample("mirror", &mirror),
        raw,
    );
    compare(
        effort,
        "check --data",
        || common::sample("check", &check),
        raw,
    );
}

fn compare(effort: Effort, what: &str, ours: impl FnMut() -> Sample, raw: impl FnMut() -> Sample) {
    let pairs = common::pairs(effort.pairs, ours, raw);
    let rate = |s: &Sample| s.rate() / 1e6;
    let of = |f: &dyn Fn(&(Sample, Sample)) -> f64| Spread::of(pairs.iter().map(f));
    report::figure(
        &format!("{what}: bytes a second"),
        of(&|(ours, _)| rate(ours)),
        "MB/s",
    );
    report::figure(
        "baseline: bytes a second",
        of(&|(_, raw)| rate(raw)),
        "MB/s",
    );
    let cpu = |s: &Sample| s.bytes as f64 * 1e3 / s.cpu_ns as f64;
    report::figure(
        &format!("{what}: bytes a user+sys second"),
        of(&|(ours, _)| cpu(ours)),
        "MB/s",
    );
    report::figure(
        "baseline: bytes a user+sys second",
        of(&|(_, raw)| cpu(raw)),
        "MB/s",
    );
    report::at_least(
        &format!("{what} / baseline"),
        of(&|(o, r)| o.rate() / r.rate()),
        0.85,
    );
    report::memory(
        what,
        pairs.iter().map(|(ours, _)| ours.peak_rss),
        CACHE as u64,
    );
}
