//! Arguments of what copies a PFS to slaves.

use super::super::spec::Spec;
use super::{RemoteArgs, spec};
use clap::Args;

/// Arguments of `mirror-copy`.
#[derive(Args, Clone, Debug)]
pub struct MirrorCopyArgs {
    /// The source: a master, or a slave as of what it has.
    #[arg(value_parser = spec(), value_name = "SRC")]
    pub source: Spec,
    /// The slaves.
    #[arg(value_parser = spec(), value_name = "DST", required = true)]
    pub targets: Vec<Spec>,
    /// How other machines are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// Arguments of `mirror-stream`.
#[derive(Args, Clone, Debug)]
pub struct MirrorStreamArgs {
    /// The source: a master, or a slave as of what it has. Somebody else may be writing to it.
    #[arg(value_parser = spec(), value_name = "SRC")]
    pub source: Spec,
    /// The slaves.
    #[arg(value_parser = spec(), value_name = "DST", required = true)]
    pub targets: Vec<Spec>,
    /// How other machines are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
