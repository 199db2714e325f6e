//! The volumes that are measured: made once below `target/bench/`, made anew when what is wanted
//! of them has changed.

use super::Effort;
use super::build::Options;
use super::build::bulk::{Bulk, Changes};
use mallet::format::Tid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Counts changes of the builder that change what it builds.
const REVISION: u32 = 3;

/// A volume to measure.
#[derive(Clone, Debug)]
pub struct Input {
    /// The image.
    pub path: PathBuf,
    /// Records.
    pub elements: u64,
    /// Leaves.
    pub leaves: u64,
    /// Internal nodes.
    pub internals: u64,
    /// Bytes of record data.
    pub data_bytes: u64,
    /// Size of the image in bytes.
    pub size: u64,
    /// TID of the changes, 0 if there are none.
    pub changed_at: Tid,
    /// Leaves changed.
    pub changed_leaves: u64,
}

/// 4 GB of large files.
pub fn large(effort: Effort) -> Input {
    let (files, size) = if effort.quick {
        (8, 32 << 20)
    } else {
        (64, 64 << 20)
    };
    let bulk = Bulk {
        files,
        files_per_dir: 64,
        sizes: size..=size,
        changes: Changes::None,
        scattered: false,
    };
    make("large", effort, &bulk)
}

/// 4 GB of large files, of which about one block in a thousand was changed by the last transaction.
pub fn large_changed(effort: Effort) -> Input {
    let (files, size, changed) = if effort.quick {
        (8, 32 << 20, 8)
    } else {
        (64, 64 << 20, 65)
    };
    let bulk = Bulk {
        files,
        files_per_dir: 64,
        sizes: size..=size,
        changes: Changes::Spread(changed),
        scattered: false,
    };
    make("large-changed", effort, &bulk)
}

/// 50 000 files of 1 KiB.
pub fn small(effort: Effort) -> Input {
    let bulk = Bulk {
        files: if effort.quick { 5000 } else { 50_000 },
        files_per_dir: 1000,
        sizes: 1024..=1024,
        changes: Changes::None,
        scattered: false,
    };
    make("small", effort, &bulk)
}

/// A million elements: inodes, entries and short files in equal numbers.
pub fn million(effort: Effort, changes: Changes, scattered: bool) -> Input {
    let files = if effort.quick { 33_000 } else { 333_000 };
    let bulk = Bulk {
        files,
        files_per_dir: 1000,
        sizes: 1..=1024,
        changes,
        scattered,
    };
    let name = match changes {
        Changes::None => "million".to_owned(),
        Changes::Spread(n) => format!("million-spread-{n}"),
        Changes::Together(n) => format!("million-together-{n}"),
    };
    let name = if scattered {
        format!("{name}-scattered")
    } else {
        name
    };
    make(&name, effort, &bulk)
}

/// A million inodes, their entries and short data.
pub fn inodes(effort: Effort) -> Input {
    let files = if effort.quick { 100_000 } else { 1_000_000 };
    let bulk = Bulk {
        files,
        files_per_dir: 1000,
        sizes: 0..=256,
        changes: Changes::None,
        scattered: false,
    };
    make("inodes", effort, &bulk)
}

/// Where all this is.
pub fn folder() -> PathBuf {
    // Cargo's directory for test files lies beside it.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("bench")
}

fn make(name: &str, effort: Effort, bulk: &Bulk) -> Input {
    let folder = folder();
    fs::create_dir_all(&folder).expect("a folder for inputs");
    let name = if effort.quick {
        format!("quick-{name}")
    } else {
        name.to_owned()
    };
    let path = folder.join(format!("{name}.img"));
    let record = folder.join(format!("{name}.json"));
    let mut options = Options::new(&path, 7, 0);
    options.full = true;
    options.undo_bytes = 64 << 20;
    options.volumes[0].1 = bulk.needs(&options).1;
    let wanted = format!("{REVISION} {bulk:?} {options:?}");
    if let Some(input) = recorded(&record, &wanted, &path) {
        return input;
    }
    // An image without its record is made anew, whatever interrupts this.
    let _ = fs::remove_file(&record);
    let start = Instant::now();
    eprintln!(
        "   making {} ({} MiB)",
        path.display(),
        options.volumes[0].1 >> 20
    );
    let made = bulk.build(&options);
    let text = json!({
        "wanted": wanted,
        "elements": made.built.elements,
        "leaves": made.built.leaves,
        "internals": made.built.internals,
        "data_bytes": made.built.data_bytes,
        "changed_at": made.changed_at.0,
        "changed_leaves": made.changed_leaves,
    });
    fs::write(&record, text.to_string()).expect("the input's record");
    eprintln!("   made in {:.1} s", start.elapsed().as_secs_f64());
    recorded(&record, &wanted, &path).expect("the input just made")
}

fn recorded(record: &Path, wanted: &str, path: &Path) -> Option<Input> {
    let record: Value = serde_json::from_str(&fs::read_to_string(record).ok()?).ok()?;
    if record["wanted"] != wanted {
        return None;
    }
    let number = |field: &str| record[field].as_u64();
    Some(Input {
        path: path.to_owned(),
        elements: number("elements")?,
        leaves: number("leaves")?,
        internals: number("internals")?,
        data_bytes: number("data_bytes")?,
        size: fs::metadata(path).ok()?.len(),
        changed_at: Tid(number("changed_at")?),
        changed_leaves: number("changed_leaves")?,
    })
}

/// Takes the file out of the page cache.
pub fn drop_cached(path: &Path) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let file = File::open(path).expect("the image");
    // Only clean pages can be dropped.
    file.sync_all().expect("a stable image");
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advice");
}
