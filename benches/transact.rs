//! The time that a small transaction takes, beside that of the three writes and flushes that it
//! cannot do without, on the same file.
//!
//! A checkpoint makes its log stable, then what it changed, then the header that says so: three
//! flushes, one after another. The baseline is three times a write of 16 KiB past the page cache and
//! fdatasync, to space behind the volume's end in the same image file. Both take turns in one
//! process; the file is written in full, so that the host allocates nothing for either.

mod common;

use common::build::bulk::Changes;
use common::measure::{Sample, Spread};
use common::{Effort, input, report, store};
use std::process::ExitCode;

/// The default of `--cache`.
const CACHE: usize = 64 << 20;
/// Transactions for one median.
const TURNS: usize = 41;

fn main() -> ExitCode {
    common::main("transact", whole)
}

fn whole(effort: Effort) {
    let input = input::million(effort, Changes::None, false);
    report::note(format!(
        "tree of {} elements; a figure is the median of {TURNS} transactions",
        input.elements
    ));
    let path = store::working_copy(&input, "transact.img");
    let groups = |kind: u32| -> Vec<Vec<(Sample, Sample)>> {
        let path = path.display().to_string();
        let args = [path, CACHE.to_string(), TURNS.to_string(), kind.to_string()];
        let group = || {
            let samples = common::child("transact", &args);
            let pairs = samples.chunks_exact(2).map(|pair| (pair[0], pair[1]));
            pairs.collect()
        };
        (0..effort.pairs).map(|_| group()).collect()
    };
    let records = groups(0);
    figures("one record", &records);
    report::at_most(
        "one record / 3 x (16 KiB written + fdatasync)",
        Spread::of(records.iter().map(|group| median(group, ratio))),
        1.3,
    );
    let files = groups(1);
    figures("a new file", &files);
    report::figure(
        "a new file / 3 x (16 KiB written + fdatasync)",
        Spread::of(files.iter().map(|group| median(group, ratio))),
        "",
    );
    let _ = std::fs::remove_file(path);
}

type Pair = (Sample, Sample);

fn ratio((ours, plain): &Pair) -> f64 {
    ours.wall_ns as f64 / plain.wall_ns as f64
}

fn median(group: &[Pair], of: fn(&Pair) -> f64) -> f64 {
    Spread::of(group.iter().map(of)).median
}

fn figures(what: &str, groups: &[Vec<Pair>]) {
    let figure = |name: &str, of: fn(&Pair) -> f64, unit: &str| {
        let spread = Spread::of(groups.iter().map(|group| median(group, of)));
        report::figure(&format!("{what}: {name}"), spread, unit);
    };
    figure("time", |(ours, _)| ours.wall_ns as f64 / 1e3, "us");
    figure(
        "of it waiting for writes and flushes",
        |(ours, _)| ours.flush_ns as f64 / 1e3,
        "us",
    );
    figure("processor time", |(ours, _)| ours.cpu_ns as f64 / 1e3, "us");
    figure("flushes", |(ours, _)| ours.items as f64, "");
    figure("written", |(ours, _)| ours.written as f64 / 1024.0, "KiB");
    figure("of it log", |(ours, _)| ours.bytes as f64 / 1024.0, "KiB");
    figure(
        "baseline: time",
        |(_, plain)| plain.wall_ns as f64 / 1e3,
        "us",
    );
}
