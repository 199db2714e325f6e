//! How far a long operation is: a value handed upwards. The library neither prints nor knows a
//! terminal.

use crate::error::{Class, Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// How far a long operation is. Numbers never go backwards within one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Items done: records, nodes or objects, by operation.
    pub items: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all, where that is known before the end.
    pub bytes_total: Option<u64>,
    /// The object being worked on; 0 if there is none.
    pub object: i64,
}

/// Takes notice of how far an operation is, and can end it at a safe point.
pub trait Progress {
    /// Called at every safe point. An error ends the operation with that error.
    fn at(&mut self, status: &Status) -> Result<()>;
}

/// Nobody looks.
impl Progress for () {
    fn at(&mut self, _: &Status) -> Result<()> {
        Ok(())
    }
}

/// Ends an operation once the flag is set, say by a signal handler.
impl Progress for &AtomicBool {
    fn at(&mut self, _: &Status) -> Result<()> {
        if self.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Interrupted, "interrupted"));
        }
        Ok(())
    }
}
