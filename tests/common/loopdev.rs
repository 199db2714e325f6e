//! Loop devices, which need root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device over a file; detached when dropped.
pub struct Loop(pub PathBuf);

impl Loop {
    /// `None`, said aloud, where that is not possible.
    pub fn new(file: &Path, sector: usize, read_only: bool) -> Option<Loop> {
        if !nix::unistd::geteuid().is_root() {
            // Not by a macro that the test runner captures: a skip is to be seen.
            let _ = writeln!(std::io::stderr(), "skipped: loop devices need root");
            return None;
        }
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", "-b", &sector.to_string()]);
        if read_only {
            command.arg("--read-only");
        }
        let output = match command.arg(file).output() {
            Ok(output) if output.status.success() => output,
            other => {
                // Not by a macro that the test runner captures: a skip is to be seen.
                let _ = writeln!(std::io::stderr(), "skipped: no loop device: {other:?}");
                return None;
            }
        };
        let name = String::from_utf8(output.stdout).expect("a path");
        Some(Loop(PathBuf::from(name.trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.0).status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} stays behind", self.0.display());
        }
    }
}
