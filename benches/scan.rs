//! The TID scan of a tree that is in the cache, beside a plain pass over the same bytes that
//! computes the nodes' CRCs.

mod common;

use common::build::bulk::Changes;
use common::measure::Spread;
use common::{Effort, input, report};
use std::process::ExitCode;

/// Room for the whole tree.
const CACHE: usize = 128 << 20;

fn main() -> ExitCode {
    common::main("scan", whole)
}

fn whole(effort: Effort) {
    let input = input::million(effort, Changes::None, false);
    report::note(format!(
        "tree of {} elements in {} leaves and {} internal nodes, all in a cache of {} MiB",
        input.elements,
        input.leaves,
        input.internals,
        CACHE >> 20
    ));
    let path = input.path.display().to_string();
    let args = [path, CACHE.to_string(), effort.pairs.to_string()];
    let samples = common::child("scan", &args);
    let pairs: Vec<_> = samples
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    let million = |s: &common::measure::Sample| s.items_per_cpu() / 1e6;
    let scan = Spread::of(pairs.iter().map(|(scan, _)| million(scan)));
    let pass = Spread::of(pairs.iter().map(|(_, pass)| million(pass)));
    report::figure("TID scan, million elements a user+sys second", scan, "M/s");
    report::figure("CRC pass over the same nodes", pass, "M/s");
    let ratio = pairs
        .iter()
        .map(|(scan, pass)| pass.items_per_cpu() / scan.items_per_cpu());
    report::at_most("scan's time / CRC pass's time", Spread::of(ratio), 3.0);
}
