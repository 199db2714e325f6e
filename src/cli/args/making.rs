//! Arguments of the commands that make and change file systems and PFSs.

use super::super::newfs;
use super::super::size;
use super::super::spec::{Local, Spec};
use super::spec;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use std::ffi::OsString;

/// Arguments of `newfs`.
#[derive(Args, Clone, Debug)]
pub struct NewfsArgs {
    /// The label, up to 63 bytes.
    #[arg(short = 'L', value_name = "LABEL")]
    pub label: OsString,
    /// The file system's version.
    #[arg(short = 'V', value_name = "VERSION", default_value_t = 7, value_parser = clap::value_parser!(u32).range(4..=7))]
    pub version: u32,
    /// Make image files that do not exist, sparse, and let every volume be so large, in bytes with
    /// k, m, g, t; the whole file or device if not given.
    #[arg(long, value_name = "SIZE", value_parser = size::some_bytes)]
    pub size: Option<u64>,
    /// Size of the UNDO FIFO, 8m to 1g; a sixteenth of the first volume up to 512m if not given.
    #[arg(short = 'u', value_name = "SIZE", value_parser = size::some_bytes)]
    pub undo: Option<u64>,
    /// Overwrite what is there already.
    #[arg(short = 'f')]
    pub overwrite: bool,
    /// The volumes, the first one the root volume.
    #[arg(required = true, value_name = "VOL", value_parser = volumes())]
    pub volumes: Vec<Local>,
}

fn volumes() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|text: OsString| newfs::volumes(&text))
        .into()
}

/// Arguments of `pfs-master` and `pfs-slave`.
#[derive(Args, Clone, Debug)]
pub struct PfsNewArgs {
    /// The file system, with the new PFS's number; the first free one if not given.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// What its record is to say, key=value each: shared-uuid, unique-uuid, label, sync-beg-tid,
    /// sync-end-tid, snapshots, prune-min.
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<OsString>,
    /// Make a symlink to it in the root PFS.
    #[arg(long, value_name = "PATH")]
    pub link: Option<OsString>,
}

/// Arguments of `pfs-update`.
#[derive(Args, Clone, Debug)]
pub struct PfsUpdateArgs {
    /// The PFS.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// What its record is to say, key=value each: shared-uuid, unique-uuid, label, sync-beg-tid,
    /// sync-end-tid, snapshots, prune-min; and snapshots-clear.
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<OsString>,
}

/// Arguments of `pfs-destroy`.
#[derive(Args, Clone, Debug)]
pub struct PfsDestroyArgs {
    /// The PFS.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// Remove this symlink to it, in the root PFS.
    #[arg(long, value_name = "PATH")]
    pub link: Option<OsString>,
}
