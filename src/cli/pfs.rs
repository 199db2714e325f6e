//! PFSs and snapshots.

use super::args::SpecArgs;
use super::{Context, Outcome};
use crate::error::Error;

/// `pfs-status`.
pub fn status(_: &SpecArgs, _: &Context) -> Outcome {
    Err(Error::usage("pfs-status is not built yet").into())
}

/// `snapls`.
pub fn snapshots(_: &SpecArgs, _: &Context) -> Outcome {
    Err(Error::usage("snapls is not built yet").into())
}
