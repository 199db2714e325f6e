//! What an incremental `mirror-read` reads from the device after a small change in a tree of a
//! million elements.
//!
//! It may read 2 × (changed data + 16 KiB × metadata buffers on the changed paths) + 256 KiB. What
//! has changed is found by a reader of its own ([`Raw`]): the buffers of zone 8 that hold a node on
//! the way to a changed leaf, those of zone 9 that hold a changed record's data, and the bytes of
//! changed file data. Changed data lies where the kernel would have put it: behind what was there
//! before, together.

mod common;

use common::build::bulk::Changes;
use common::input::Input;
use common::measure::Spread;
use common::raw::Raw;
use common::{Effort, input, report};
use mallet::format::{BUFFER, Offset, Zone};
use std::collections::BTreeSet;
use std::process::ExitCode;

/// The default of `--cache`.
const CACHE: usize = 64 << 20;

fn main() -> ExitCode {
    common::main("incremental", whole)
}

fn whole(effort: Effort) {
    let (some, most) = if effort.quick {
        (100, 1000)
    } else {
        (1000, 10_000)
    };
    for changes in [
        Changes::Spread(1),
        Changes::Spread(some),
        Changes::Spread(most),
        Changes::Together(some),
    ] {
        let input = input::million(effort, changes, false);
        measure(&input, &format!("{changes:?}"));
    }
    report::note("");
    report::note(
        "beyond what is asked: changed data lying singly among old data, as after a reblock",
    );
    for changes in [Changes::Spread(some), Changes::Together(some)] {
        let input = input::million(effort, changes, true);
        measure(&input, &format!("{changes:?}, scattered"));
    }
}

/// What the changes touch.
#[derive(Default)]
struct Changed {
    nodes: u64,
    leaves: u64,
    node_buffers: BTreeSet<Offset>,
    meta_buffers: BTreeSet<Offset>,
    /// Bytes of changed records' data: zone 9, and file data.
    meta_bytes: u64,
    data_bytes: u64,
}

fn changed(input: &Input) -> Changed {
    let mut changed = Changed::default();
    Raw::open(&[&input.path]).walk(input.changed_at, &mut |at, node| {
        changed.nodes += 1;
        changed.leaves += u64::from(node.is_leaf());
        changed.node_buffers.insert(at.buffer());
        for leaf in node.leaves() {
            let (at, len) = (leaf.data_offset(), leaf.data_len.get() as u64);
            if leaf.base.create_tid() < input.changed_at || len == 0 {
                continue;
            }
            if at.zone() == Zone::META {
                changed.meta_buffers.insert(at.buffer());
                changed.meta_bytes += len;
            } else {
                changed.data_bytes += len;
            }
        }
    });
    changed
}

fn measure(input: &Input, what: &str) {
    let changed = changed(input);
    assert_eq!(changed.leaves, input.changed_leaves);
    report::note(format!(
        "{what}: {} elements, {} changed leaves, {} nodes in {} buffers; data of changed \
         records: {} bytes in zone 9 in {} buffers, {} bytes of files",
        input.elements,
        changed.leaves,
        changed.nodes,
        changed.node_buffers.len(),
        changed.meta_bytes,
        changed.meta_buffers.len(),
        changed.data_bytes
    ));
    let path = input.path.display().to_string();
    let args = [path, CACHE.to_string(), input.changed_at.0.to_string()];
    // Counted, not timed: once is enough.
    let sample = common::sample("mirror", &args);
    let buffers = (changed.node_buffers.len() + changed.meta_buffers.len()) as u64;
    let allowed = 2 * (changed.data_bytes + BUFFER as u64 * buffers) + (256 << 10);
    let once = |value: f64| Spread::of([value]);
    report::figure("records sent", once(sample.items as f64), "");
    report::figure(
        "read from the device",
        once(sample.device_bytes as f64 / 1024.0),
        "KiB",
    );
    report::figure("allowed", once(allowed as f64 / 1024.0), "KiB");
    report::figure("time, cold", once(sample.wall_ns as f64 / 1e6), "ms");
    let ratio = sample.device_bytes as f64 / allowed as f64;
    report::at_most("read / allowed", once(ratio), 1.0);
    // The strictest reading of the rule: record data of zone 9 counts as bytes, not as buffers.
    let node_buffers = changed.node_buffers.len() as u64;
    let data = changed.data_bytes + changed.meta_bytes;
    let strict = 2 * (data + BUFFER as u64 * node_buffers) + (256 << 10);
    let ratio = sample.device_bytes as f64 / strict as f64;
    report::figure(
        "read / allowed, zone 9 counted by the byte",
        once(ratio),
        "",
    );
    report::memory("mirror-read", [sample.peak_rss], CACHE as u64);
}
