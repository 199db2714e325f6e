//! `put` of a disk image of 4 GB, and again after a thousandth of its blocks has changed: what the
//! second one writes.
//!
//! It may write 1.1 × the changed blocks, and 24 KiB for every metadata buffer that it touches. As
//! many buffers as there are in one checkpoint are all different ones; the bench needs the second
//! `put` to be one checkpoint.

mod common;

use common::host::Tree;
use common::measure::{Sample, Spread};
use common::{Effort, input, report, store};
use std::process::ExitCode;

/// The default of `--cache`.
const CACHE: usize = 64 << 20;

fn main() -> ExitCode {
    common::main("put", whole)
}

fn whole(effort: Effort) {
    // One file of it is the disk image.
    let disk = Tree {
        files: 1,
        size: if effort.quick { 256 << 20 } else { 4 << 30 },
    };
    let folder = input::folder().join("disk");
    disk.write(&folder);
    let image = folder.join("f00000000");
    let volume = store::target(disk.size);
    store::fresh(&volume);
    let args = [
        volume.display().to_string(),
        CACHE.to_string(),
        image.display().to_string(),
        "/disk".to_owned(),
    ];
    disk.forget(&folder);
    let first = common::sample("put", &args);
    report::note(format!(
        "put of a disk image of {} MiB, into a fresh volume",
        disk.size >> 20
    ));
    figures(&first);
    report::figure("bytes a second", once(first.rate() / 1e6), "MB/s");
    disk.change(&folder, 2);
    disk.forget(&folder);
    let second = common::sample("put", &args);
    report::note("");
    report::note(format!(
        "again, after {} blocks of 64 KiB have changed",
        disk.changed()
    ));
    figures(&second);
    report::figure("metadata buffers", once(second.items as f64), "");
    assert_eq!(second.bytes, disk.changed() << 16, "only what has changed");
    let allowed = 1.1 * second.bytes as f64 + (24 << 10) as f64 * second.items as f64;
    report::at_most(
        "written / allowed",
        once(second.written as f64 / allowed),
        1.0,
    );
    report::memory("put", [first.peak_rss, second.peak_rss], CACHE as u64);
    let _ = std::fs::remove_dir_all(folder);
    let small = many(effort, &volume);
    report::memory("put, small files", [small.peak_rss], CACHE as u64);
    let _ = std::fs::remove_file(volume);
}

/// `put` of a tree of small files.
fn many(effort: Effort, volume: &std::path::Path) -> Sample {
    let tree = Tree {
        files: if effort.quick { 1000 } else { 50_000 },
        size: 1024,
    };
    let folder = input::folder().join("small");
    tree.write_unstable(&folder);
    store::fresh(volume);
    let args = [
        volume.display().to_string(),
        CACHE.to_string(),
        folder.display().to_string(),
        "/small".to_owned(),
    ];
    let sample = common::sample("put", &args);
    report::note("");
    report::note(format!("put of {} files of 1 KiB", tree.files));
    figures(&sample);
    let rate = tree.files as f64 * 1e9 / sample.cpu_ns as f64 / 1e3;
    report::figure("thousand files a user+sys second", once(rate), "");
    let _ = std::fs::remove_dir_all(folder);
    sample
}

fn once(value: f64) -> Spread {
    Spread::of([value])
}

fn figures(sample: &Sample) {
    report::figure("time", once(sample.wall_ns as f64 / 1e6), "ms");
    report::figure(
        "of it waiting for flushes",
        once(sample.flush_ns as f64 / 1e6),
        "ms",
    );
    report::figure("user+sys time", once(sample.cpu_ns as f64 / 1e6), "ms");
    report::figure("blocks written", once(report::mib(sample.bytes)), "MiB");
    report::figure("written in all", once(report::mib(sample.written)), "MiB");
}
