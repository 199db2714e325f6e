//! Mirroring streams.

use super::args::{MirrorDumpArgs, MirrorPlanArgs, MirrorReadArgs};
use super::{Context, Outcome};
use crate::error::Error;

/// `mirror-read`.
pub fn read(_: &MirrorReadArgs, _: &Context) -> Outcome {
    Err(Error::usage("mirror-read is not built yet").into())
}

/// `mirror-dump`.
pub fn dump(_: &MirrorDumpArgs, _: &Context) -> Outcome {
    Err(Error::usage("mirror-dump is not built yet").into())
}

/// `mirror-plan`.
pub fn plan(_: &MirrorPlanArgs, _: &Context) -> Outcome {
    Err(Error::usage("mirror-plan is not built yet").into())
}
