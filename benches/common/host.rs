//! Other programs that copy what has changed, where they are installed: rsync, casync, btrfs.

use super::build::pattern;
use super::input::drop_cached;
use super::measure::cpu_ns_of_children;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Bytes of a block of file data.
const BLOCK: u64 = 64 << 10;

/// A tree of large files, as the volumes of [`super::input::large_changed`] hold.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Files.
    pub files: u64,
    /// Bytes of each.
    pub size: u64,
}

impl Tree {
    /// Bytes of all.
    pub fn bytes(self) -> u64 {
        self.files * self.size
    }

    /// Blocks that are changed: one in a thousand, at least one.
    pub fn changed(self) -> u64 {
        (self.bytes() / BLOCK).div_ceil(1000)
    }

    /// Writes the tree into the folder `at`, and makes it stable.
    pub fn write(self, at: &Path) {
        self.write_unstable(at);
        for number in 0..self.files {
            let file = File::open(self.file(at, number)).expect("a file of the tree");
            file.sync_all().expect("a stable file");
        }
    }

    /// Writes the tree into the folder `at`.
    pub fn write_unstable(self, at: &Path) {
        fs::create_dir_all(at).expect("a folder");
        let mut piece = vec![0; self.size.min(1 << 20) as usize];
        for number in 0..self.files {
            let file = File::create(self.file(at, number)).expect("a file");
            for start in (0..self.size).step_by(piece.len()) {
                pattern::fill(1, number as i64 + 1, start, &mut piece);
                file.write_all_at(&piece, start).expect("room for a file");
            }
        }
    }

    /// Changes blocks, spread evenly; what they become follows from the seed (that of the first
    /// contents is 1).
    pub fn change(self, at: &Path, seed: u64) {
        let (blocks, changed) = (self.bytes() / BLOCK, self.changed());
        let mut block = vec![0; BLOCK as usize];
        for n in 0..changed {
            let place = (n * blocks / changed + blocks / changed / 2) * BLOCK;
            let (number, start) = (place / self.size, place % self.size);
            let file = fs::OpenOptions::new()
                .write(true)
                .open(self.file(at, number))
                .expect("a file of the tree");
            pattern::fill(seed, number as i64 + 1, start, &mut block);
            file.write_all_at(&block, start).expect("a changed block");
            file.sync_all().expect("a stable file");
        }
    }

    /// Takes the tree out of the page cache.
    pub fn forget(self, at: &Path) {
        (0..self.files).for_each(|number| drop_cached(&self.file(at, number)));
    }

    fn file(self, at: &Path, number: u64) -> PathBuf {
        at.join(format!("f{number:08}"))
    }
}

/// What another program took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Wall time in seconds.
    pub seconds: f64,
    /// User and system time in seconds.
    pub cpu: f64,
    /// Bytes read from and written to devices, as the host counts them for these processes.
    pub io: (u64, u64),
}

/// Whether a program can be started.
pub fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Runs a line of shell, which must succeed.
pub fn shell(line: &str) -> Took {
    let (cpu, io) = (cpu_ns_of_children(), io_of_children());
    let start = Instant::now();
    let output = Command::new("sh")
        .args(["-c", line])
        .output()
        .expect("a shell");
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}");
    let after = io_of_children();
    Took {
        seconds,
        cpu: (cpu_ns_of_children() - cpu) as f64 / 1e9,
        io: (after.0 - io.0, after.1 - io.1),
    }
}

fn io_of_children() -> (u64, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the children's usage");
    let bytes = |blocks: i64| blocks.cast_unsigned() * 512;
    (bytes(usage.block_reads()), bytes(usage.block_writes()))
}

/// A file system of btrfs in an image file, mounted on a folder beside it for as long as this lives.
pub struct Btrfs {
    image: PathBuf,
    /// Where it is mounted.
    pub folder: PathBuf,
}

impl Btrfs {
    /// Of `size` bytes below `folder`. Where that is not possible, says why.
    pub fn mount(folder: &Path, name: &str, size: u64) -> Result<Btrfs, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".into());
        }
        if !has("btrfs") || !has("mkfs.btrfs") {
            return Err("btrfs-progs are not installed".into());
        }
        let made = Btrfs {
            image: folder.join(format!("{name}.btrfs")),
            folder: folder.join(format!("{name}.mount")),
        };
        super::store::full_file(&made.image, size);
        fs::create_dir_all(&made.folder).map_err(|e| e.to_string())?;
        let (image, folder) = (made.image.display(), made.folder.display());
        let line = format!("mkfs.btrfs -q -f '{image}' && mount -o loop '{image}' '{folder}'");
        let output = Command::new("sh")
            .args(["-c", &line])
            .output()
            .map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(made),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg(&self.folder)
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::remove_file(&self.image);
    }
}
