//! `mirror-copy` from one image to another on one disk: 4 GB of large files beside the device engine
//! alone copying as much, 50 000 small files by processor time, and what an incremental copy moves
//! after a thousandth has changed, beside other programs that do such a thing.
//!
//! Targets are files that were written in full before and get a fresh file system for every copy, so
//! that the host allocates nothing on either side of a ratio.

mod common;

use common::host::{self, Btrfs, Took, Tree};
use common::input::{self, Input};
use common::measure::{Sample, Spread};
use common::{Effort, report, store};
use std::path::Path;
use std::process::ExitCode;

/// The default of `--cache`.
const CACHE: usize = 64 << 20;

fn main() -> ExitCode {
    common::main("copy", whole)
}

fn whole(effort: Effort) {
    let large = input::large_changed(effort);
    let target = store::target(large.size);
    let rate = full(effort, &large, &target);
    let ours = incremental(effort, &large, &target);
    small(effort, &target);
    let _ = std::fs::remove_file(&target);
    let tree = match effort.quick {
        true => Tree {
            files: 8,
            size: 32 << 20,
        },
        false => Tree {
            files: 64,
            size: 64 << 20,
        },
    };
    report::note("");
    if effort.alone {
        return report::note("other programs: left out (MALLET_BENCH_ALONE)");
    }
    beside_files(tree, ours);
    if let Err(why) = beside_btrfs(tree, rate, ours) {
        report::note(format!("btrfs send | btrfs receive: left out: {why}"));
    }
}

fn copy(from: &Input, to: &Path, until: u64, warm: bool) -> Sample {
    let args = [
        from.path.display().to_string(),
        to.display().to_string(),
        CACHE.to_string(),
        until.to_string(),
        u64::from(warm).to_string(),
    ];
    common::sample("copy", &args)
}

/// Gives bytes of data a second.
fn full(effort: Effort, input: &Input, target: &Path) -> f64 {
    report::note(format!(
        "full copy: {} MiB of data in {} records; both images written in full, O_DIRECT",
        input.data_bytes >> 20,
        input.elements
    ));
    report::note(
        "baseline: device engine, 1 MiB reads and writes, 32 of each in flight, fdatasync",
    );
    let plain = [
        input.path.display().to_string(),
        target.display().to_string(),
    ];
    let ours = || {
        store::fresh_slave(target, input);
        copy(input, target, 0, false)
    };
    let pairs = common::pairs(effort.pairs, ours, || common::sample("plain-copy", &plain));
    let of = |f: &dyn Fn(&(Sample, Sample)) -> f64| Spread::of(pairs.iter().map(f));
    let rate = of(&|(ours, _)| ours.rate() / 1e6);
    report::figure("mirror-copy: bytes of data a second", rate, "MB/s");
    report::figure(
        "baseline: bytes a second",
        of(&|(_, p)| p.rate() / 1e6),
        "MB/s",
    );
    let cpu = |s: &Sample| s.bytes as f64 * 1e3 / s.cpu_ns as f64;
    let figure = of(&|(ours, _)| cpu(ours));
    report::figure("mirror-copy: bytes a user+sys second", figure, "MB/s");
    report::figure(
        "baseline: bytes a user+sys second",
        of(&|(_, p)| cpu(p)),
        "MB/s",
    );
    let waits = of(&|(ours, _)| ours.flush_ns as f64 / 1e9);
    report::figure("mirror-copy: of it waiting for flushes", waits, "s");
    let ratio = of(&|(ours, plain)| ours.rate() / plain.rate());
    report::at_least("mirror-copy / baseline", ratio, 0.85);
    let peaks = pairs.iter().map(|(ours, _)| ours.peak_rss);
    report::memory("mirror-copy, large files", peaks, CACHE as u64);
    rate.median
}

/// Gives the median sample by time.
fn incremental(effort: Effort, input: &Input, target: &Path) -> Sample {
    report::note("");
    report::note("incremental copy after one block in a thousand has changed");
    store::fresh_slave(target, input);
    let mut samples = Vec::new();
    for _ in 0..effort.pairs.min(3) {
        store::fresh_slave(target, input);
        copy(input, target, input.changed_at.0 - 1, false);
        samples.push(copy(input, target, 0, false));
    }
    let of = |f: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(f));
    report::figure("records sent", of(&|s| s.items as f64), "");
    report::figure("time", of(&|s| s.wall_ns as f64 / 1e6), "ms");
    report::figure("user+sys time", of(&|s| s.cpu_ns as f64 / 1e6), "ms");
    report::figure("data that changed", of(&|s| report::mib(s.bytes)), "MiB");
    report::figure(
        "read at the source",
        of(&|s| report::mib(s.device_bytes)),
        "MiB",
    );
    report::figure(
        "written at the slave",
        of(&|s| report::mib(s.written)),
        "MiB",
    );
    samples.sort_by_key(|s| s.wall_ns);
    samples[samples.len() / 2]
}

fn small(effort: Effort, target: &Path) {
    let input = input::small(effort);
    report::note("");
    report::note(format!(
        "full copy of small files: {} records; source in the page cache",
        input.elements
    ));
    let mut samples = Vec::new();
    for _ in 0..effort.pairs {
        store::fresh_slave(target, &input);
        samples.push(copy(&input, target, 0, true));
    }
    let of = |f: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(f));
    report::figure("time", of(&|s| s.wall_ns as f64 / 1e6), "ms");
    report::figure(
        "of it waiting for flushes",
        of(&|s| s.flush_ns as f64 / 1e6),
        "ms",
    );
    report::figure("user+sys time", of(&|s| s.cpu_ns as f64 / 1e6), "ms");
    report::at_least(
        "thousand records a user+sys second",
        of(&|s| s.items_per_cpu() / 1e3),
        300.0,
    );
    let peaks = samples.iter().map(|s| s.peak_rss);
    report::memory("mirror-copy, small files", peaks, CACHE as u64);
}

fn beside(what: &str, took: Took, ours: Sample) {
    let once = |value: f64| Spread::of([value]);
    report::figure(&format!("{what}: time"), once(took.seconds * 1e3), "ms");
    report::figure(
        &format!("{what}: user+sys time"),
        once(took.cpu * 1e3),
        "ms",
    );
    let (read, written) = took.io;
    report::figure(&format!("{what}: read"), once(report::mib(read)), "MiB");
    report::figure(
        &format!("{what}: written"),
        once(report::mib(written)),
        "MiB",
    );
    let ratio = took.seconds * 1e9 / ours.wall_ns as f64;
    report::figure(&format!("{what}'s time / mirror-copy's"), once(ratio), "");
}

fn beside_files(tree: Tree, ours: Sample) {
    let (rsync, casync) = (host::has("rsync"), host::has("casync"));
    for (name, found) in [("rsync", rsync), ("casync", casync)] {
        if !found {
            report::note(format!("{name}: left out: not installed"));
        }
    }
    if !rsync && !casync {
        return;
    }
    let folder = input::folder().join("files");
    let (a, b) = (folder.join("a"), folder.join("b"));
    tree.write(&a);
    tree.write(&b);
    let (from, to, store) = (a.display(), b.display(), folder.display());
    if rsync {
        tree.change(&a, 2);
        tree.forget(&a);
        tree.forget(&b);
        let took = host::shell(&format!(
            "rsync -rt --inplace --no-whole-file '{from}/' '{to}/' && sync -f '{to}'"
        ));
        report::note("rsync --inplace --no-whole-file of as large a tree and change, cold");
        beside("rsync", took, ours);
    }
    if casync {
        let part = Tree {
            files: tree.files.div_ceil(8),
            ..tree
        };
        let _ = std::fs::remove_dir_all(&folder);
        part.write(&a);
        part.write(&b);
        let make = |number: u32| {
            format!("casync make --store='{store}/store' '{store}/{number}.caidx' '{from}'")
        };
        host::shell(&make(1));
        part.change(&a, 2);
        part.forget(&a);
        part.forget(&b);
        let took = host::shell(&format!(
            "{} && casync extract --store='{store}/store' --seed='{to}' '{store}/2.caidx' '{to}' && \
             sync -f '{to}'",
            make(2)
        ));
        report::note(
            "casync make, and extract with the old tree as seed, cold, of an eighth of that",
        );
        beside("casync, an eighth", took, ours);
    }
    let _ = std::fs::remove_dir_all(&folder);
}

fn beside_btrfs(tree: Tree, rate: f64, ours: Sample) -> Result<(), String> {
    let size = tree.bytes() + tree.bytes() / 8 + (512 << 20);
    let from = Btrfs::mount(&input::folder(), "from", size)?;
    let to = Btrfs::mount(&input::folder(), "to", size)?;
    let (a, b) = (from.folder.display(), to.folder.display());
    host::shell(&format!("btrfs -q subvolume create '{a}/tree'"));
    tree.write(&from.folder.join("tree"));
    host::shell(&format!(
        "btrfs -q subvolume snapshot -r '{a}/tree' '{a}/one' && sync -f '{a}'"
    ));
    tree.forget(&from.folder.join("one"));
    let took = host::shell(&format!(
        "btrfs -q send '{a}/one' | btrfs -q receive '{b}' && sync -f '{b}'"
    ));
    report::note(
        "btrfs send | btrfs receive of as large a tree, cold, on loopback files written in full",
    );
    let once = |value: f64| Spread::of([value]);
    let theirs = tree.bytes() as f64 / 1e6 / took.seconds;
    report::figure("btrfs, all: bytes of data a second", once(theirs), "MB/s");
    report::figure("mirror-copy's rate / btrfs's", once(rate / theirs), "");
    tree.change(&from.folder.join("tree"), 2);
    host::shell(&format!(
        "btrfs -q subvolume snapshot -r '{a}/tree' '{a}/two' && sync -f '{a}'"
    ));
    tree.forget(&from.folder.join("two"));
    let took = host::shell(&format!(
        "btrfs -q send -p '{a}/one' '{a}/two' | btrfs -q receive '{b}' && sync -f '{b}'"
    ));
    beside("btrfs send -p", took, ours);
    Ok(())
}
