//! Is it whole.

use super::args::CheckArgs;
use super::{Context, Outcome};
use crate::error::Error;

/// `check`.
pub fn check(_: &CheckArgs, _: &Context) -> Outcome {
    Err(Error::usage("check is not built yet").into())
}
