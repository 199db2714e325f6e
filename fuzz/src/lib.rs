//! What the fuzz targets share: the functions that `tests/corpora.rs` runs too.

#[path = "../../tests/common/targets/mod.rs"]
pub mod targets;
#[path = "../../tests/common/unpack.rs"]
mod unpack;
#[allow(dead_code)]
#[path = "../../tests/common/victim.rs"]
mod victim;
