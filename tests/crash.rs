//! Power cuts at every write and flush of a set of scenarios: whatever part of the writes since the
//! last flush survives, the volumes are in the state before or after the operation, by the kernel's
//! rules of recovery (the oracle) and by the library's, and nothing acknowledged is lost.

mod common;

use common::crash::scenario::{self, Scenario};
use common::crash::timeline::Plan;
use common::crash::trial::{Effort, Tally, crash};
use std::io::Write as _;

const MIB: u64 = 1 << 20;

fn effort(seed: u64) -> Effort {
    let plan = Plan {
        singles: 8,
        subsets: 8,
        torn: 12,
        seed,
    };
    let again = Plan {
        singles: 2,
        subsets: 1,
        torn: 2,
        seed,
    };
    Effort {
        plan,
        again,
        nested: 40,
    }
}

/// Tries a scenario for some seeds, and says how much that was.
fn try_all(name: &str, seeds: u64, make: impl Fn(u64) -> Scenario) {
    let mut tally = Tally::default();
    let count = common::soak(seeds);
    let start = std::time::Instant::now();
    for seed in 1..=count {
        tally += crash(&make(seed), effort(seed));
    }
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "crash {name}: {count} seeds, {} flushes, {} states, {} within recovery, {} committed states in full, {:.1?}",
        tally.flushes,
        tally.states,
        tally.nested,
        tally.committed,
        start.elapsed(),
    );
    assert!(tally.states > 0);
}

#[test]
fn records() {
    try_all("records", 4, |seed| {
        let version = [7, 4, 6, 3][seed as usize % 4];
        scenario::records(version, &[104 * MIB], seed, 12)
    });
}

#[test]
fn records_on_several_volumes() {
    try_all("records on several volumes", 2, |seed| {
        scenario::records(7, &[72 * MIB, 48 * MIB, 40 * MIB], seed, 12)
    });
}
