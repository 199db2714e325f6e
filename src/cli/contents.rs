//! Reading files and directories.

use super::args::{GetArgs, LsArgs, PathArgs};
use super::{Context, Outcome};
use crate::error::Error;

/// `ls`.
pub fn ls(_: &LsArgs, _: &Context) -> Outcome {
    Err(Error::usage("ls is not built yet").into())
}

/// `stat`.
pub fn stat(_: &PathArgs, _: &Context) -> Outcome {
    Err(Error::usage("stat is not built yet").into())
}

/// `cat`.
pub fn cat(_: &PathArgs, _: &Context) -> Outcome {
    Err(Error::usage("cat is not built yet").into())
}

/// `get`.
pub fn get(_: &GetArgs, _: &Context) -> Outcome {
    Err(Error::usage("get is not built yet").into())
}
