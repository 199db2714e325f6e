//! Arguments of mirroring commands that change nothing.

use super::super::size;
use super::super::spec::Spec;
use super::{RemoteArgs, spec};
use crate::format::Tid;
use clap::Args;

/// Arguments of `mirror-read`.
#[derive(Args, Clone, Debug)]
pub struct MirrorReadArgs {
    /// The source.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The first TID of the window; everything if not given.
    #[arg(value_name = "BEGTID", value_parser = size::tid)]
    pub begin: Option<Tid>,
    /// The last TID of the window; the last committed one if not given.
    #[arg(long, value_name = "TID", value_parser = size::tid)]
    pub end_tid: Option<Tid>,
}

/// Arguments of `mirror-write`.
#[derive(Args, Clone, Debug)]
pub struct MirrorWriteArgs {
    /// The slave; one that is named by a number and does not exist is made on request (-y).
    #[arg(value_parser = spec())]
    pub spec: Spec,
}

/// Arguments of `mirror-read-stream`.
#[derive(Args, Clone, Debug)]
pub struct MirrorReadStreamArgs {
    /// The source. Somebody else may be writing to it.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The first TID of the stream; everything if not given.
    #[arg(value_name = "BEGTID", value_parser = size::tid)]
    pub begin: Option<Tid>,
}

/// Arguments of `mirror-plan`.
#[derive(Args, Clone, Debug)]
pub struct MirrorPlanArgs {
    /// The source.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// A slave: what a copy to it would do.
    #[arg(value_parser = spec(), value_name = "DST")]
    pub target: Option<Spec>,
    /// The first TID of the window; everything if not given.
    #[arg(long, value_name = "TID", value_parser = size::tid)]
    pub from: Option<Tid>,
    /// The last TID of the window; the last committed one if not given.
    #[arg(long, value_name = "TID", value_parser = size::tid)]
    pub end_tid: Option<Tid>,
}

/// Arguments of `mirror-status`.
#[derive(Args, Clone, Debug)]
pub struct MirrorStatusArgs {
    /// The PFSs; a slave's lag is known where its master is among them.
    #[arg(value_parser = spec(), value_name = "SPEC", required = true)]
    pub specs: Vec<Spec>,
    /// How other machines are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// Arguments of `mirror-verify`.
#[derive(Args, Clone, Debug)]
pub struct MirrorVerifyArgs {
    /// The source: a master, or a slave that has what the other has.
    #[arg(value_parser = spec(), value_name = "SRC")]
    pub source: Spec,
    /// The slave. Left out with -2: questions about SRC are answered then.
    #[arg(value_parser = spec(), value_name = "DST")]
    pub target: Option<Spec>,
    /// Read all data on both sides; else the CRCs that records carry stand for it where they can.
    #[arg(long)]
    pub data: bool,
    /// How other machines are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
