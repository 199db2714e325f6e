//! The golden data: volumes, streams and listings made by DragonFly's own code.
//!
//! Found at `../shared/golden` beside the project, or where `MALLET_GOLDEN` says. Images are
//! unpacked once, sparse and read-only, below cargo's directory for test files.

use super::unpack;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The directory of golden data; `None`, said aloud, if there is none on this machine.
pub fn dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("MALLET_GOLDEN") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
    };
    if dir.is_dir() {
        return Some(dir);
    }
    // Not by a macro that the test runner captures: a skip is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: no golden data at {} (set MALLET_GOLDEN)",
        dir.display()
    );
    None
}

/// The unpacked form of `name` (`small/small-v7.img`), a file that must not be written to.
pub fn file(golden: &Path, name: &str) -> PathBuf {
    let packed = golden.join(format!("{name}.zst"));
    unpack(
        &packed,
        &Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("golden")
            .join(name),
    );
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("golden")
        .join(name)
}

/// Unpacks a packed file of `testdata/`.
pub fn testdata(name: &str) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(format!("{name}.zst"));
    let to = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("testdata")
        .join(name);
    unpack(&packed, &to);
    to
}

/// The contents of a golden file, unpacked if it is packed.
pub fn bytes(golden: &Path, name: &str) -> Vec<u8> {
    let plain = golden.join(name);
    let path = if plain.exists() {
        plain
    } else {
        file(golden, name)
    };
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of the golden files in `folder` that end in `suffix`, without `.zst`, sorted.
pub fn names(golden: &Path, folder: &str, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(golden.join(folder)).expect("a folder of golden data");
    let mut names: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .map(|n| n.strip_suffix(".zst").unwrap_or(&n).to_owned())
        .filter(|n| n.ends_with(suffix))
        .map(|n| format!("{folder}/{n}"))
        .collect();
    names.sort();
    names
}

fn unpack(packed: &Path, to: &Path) {
    if to.exists() {
        return;
    }
    let parent = to.parent().expect("a file in a folder");
    fs::create_dir_all(parent).expect("a folder for unpacked files");
    // Tests run side by side: unpack under a name of one's own, then rename.
    let mut own = tempfile::NamedTempFile::new_in(parent).expect("a file to unpack to");
    unpack::sparse(packed, own.as_file_mut());
    let mut permissions = own
        .as_file()
        .metadata()
        .expect("its metadata")
        .permissions();
    permissions.set_readonly(true);
    own.as_file()
        .set_permissions(permissions)
        .expect("read-only");
    own.persist(to).expect("its name");
}
