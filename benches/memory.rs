//! Peak memory of everything that is measured, of a check of a million inodes with a small cache,
//! and of copies and `put` as the program does them.

mod common;

use common::build::bulk::Changes;
use common::input::Input;
use common::{Effort, input, report, store};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::main("memory", whole)
}

fn whole(effort: Effort) {
    report::note("VmHWM of a process for each case, once");
    let large = input::large(effort);
    let million = input::million(effort, Changes::None, false);
    let changed = input::million(effort, Changes::Spread(1000), false);
    let inodes = input::inodes(effort);
    let begin = changed.changed_at.0;
    let count = inodes.elements;
    case("scan, cached", "scan", &million.path, 128, 0);
    case(
        "mirror-read, 4 GB of large files",
        "mirror",
        &large.path,
        64,
        1,
    );
    case(
        "mirror-read, 4 GB of large files",
        "mirror",
        &large.path,
        16,
        1,
    );
    case("mirror-read, 1 M elements", "mirror", &million.path, 16, 1);
    case(
        "mirror-read, 1000 changed leaves",
        "mirror",
        &changed.path,
        16,
        begin,
    );
    case(
        "check --data, 4 GB of large files",
        "check",
        &large.path,
        64,
        1,
    );
    case(
        "check --data, 4 GB of large files",
        "check",
        &large.path,
        16,
        1,
    );
    report::note(format!("check of 1 M inodes: {count} elements"));
    case("check, 1 M inodes", "check", &inodes.path, 16, 0);
    case("check --data, 1 M inodes", "check", &inodes.path, 16, 1);
    let pfs = format!("{}#1", large.path.display());
    program(&large.path, &["mirror-read", "--cache", "16M", &pfs]);
    let volume = inodes.path.display().to_string();
    program(&inodes.path, &["check", "--cache", "16M", &volume]);
    writing(&large, &input::small(effort));
}

/// Into a file system that is made anew for each.
fn writing(large: &Input, small: &Input) {
    let target = store::target(large.size);
    let slave = format!("{}#1", target.display());
    for (what, input) in [("4 GB of large files", large), ("50 000 files", small)] {
        report::note(format!("mirror-copy of {what}"));
        store::fresh(&target);
        let source = format!("{}#1", input.path.display());
        let words = ["mirror-copy", "-y", "--cache", "16M", &source, &slave];
        program(&input.path, &words);
    }
    report::note("put of an image of 4 GB");
    store::fresh(&target);
    let (volume, image) = (
        target.display().to_string(),
        large.path.display().to_string(),
    );
    program(
        &target,
        &["put", "--cache", "16M", &volume, &image, "/image"],
    );
    let _ = std::fs::remove_file(target);
}

/// Runs a case once; `argument` is what follows path and cache.
fn case(what: &str, name: &str, path: &Path, cache_mib: u64, argument: u64) {
    let cache = cache_mib << 20;
    let args = [
        path.display().to_string(),
        cache.to_string(),
        argument.to_string(),
    ];
    let sample = common::sample(name, &args);
    report::memory(what, [sample.peak_rss], cache);
    report::note(format!(
        "  {:.2} s, {:.0} MiB from the device",
        sample.wall_ns as f64 / 1e9,
        report::mib(sample.device_bytes)
    ));
}

/// Runs the program itself once, with a cache of 16 MiB.
fn program(path: &Path, words: &[&str]) {
    let image = path.display().to_string();
    let args = std::iter::once(image.as_str()).chain(words.iter().copied());
    let args: Vec<String> = args.map(str::to_owned).collect();
    let sample = common::sample("program", &args);
    let what = format!("mallet {} (the program)", words[0]);
    report::memory(&what, [sample.peak_rss], 16 << 20);
    report::note(format!("  {:.2} s", sample.wall_ns as f64 / 1e9));
}
