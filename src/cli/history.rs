//! Versions of a file, and what differs between two moments.

use super::args::{DiffArgs, HistoryArgs};
use super::{Context, Outcome};
use crate::error::Error;

/// `history`.
pub fn history(_: &HistoryArgs, _: &Context) -> Outcome {
    Err(Error::usage("history is not built yet").into())
}

/// `diff`.
pub fn diff(_: &DiffArgs, _: &Context) -> Outcome {
    Err(Error::usage("diff is not built yet").into())
}
