//! What the fuzz targets do with their input. The targets below `fuzz/` call these functions under
//! libFuzzer; `tests/corpora.rs` calls them with every file of the corpora and with mutations of
//! them, on any compiler.
//!
//! A target takes any bytes. It fails by panicking, and that it must never do: neither in the
//! parser it drives nor in its own assertions, which say what holds for whatever a parser accepts.
//! Checksums stop most inputs early, so a target also looks at its input with the sums put right.

pub mod apply;
pub mod base;
pub mod image;
pub mod media;
pub mod probe;
pub mod questions;
pub mod stream;

/// A target: its name, which is also that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: &[Target] = &[
    ("volume_header", media::volume_header),
    ("node", media::node),
    ("fifo_record", media::fifo_record),
    ("leaf_data", media::leaf_data),
    ("stream", stream::stream),
    ("image", image::image),
    ("probe", probe::probe),
    ("apply", apply::apply),
    ("questions", questions::questions),
];

/// Versions that differ in how sums are read: CRC-32 only, and both kinds.
const VERSIONS: [u32; 2] = [6, 7];
