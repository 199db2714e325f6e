//! The link between the two ends of a copy within one process: a thread reads the source ahead and
//! hands over items in portions, so that one device reads while the other one writes.

use super::source::{Item, Source};
use crate::error::{Class, Error, Result};
use crate::store::Fetch;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes of data in one portion, about.
const BYTES: usize = 1 << 20;
/// Items in one portion.
const ITEMS: usize = 512;
/// Portions that may wait. With those at work on either end they bound the memory.
const WAITING: usize = 4;

/// What comes over the link.
pub(super) enum Portion {
    /// The next items, in key order.
    Items(Vec<Item>),
    /// Nothing yet.
    Quiet,
    /// That was all of it.
    End,
}

/// The end that writes.
pub(super) struct Link {
    from: Receiver<Result<Option<Vec<Item>>>>,
}

impl Link {
    /// The next portion. Errors: those of the source.
    pub fn next(&mut self, wait: Duration) -> Result<Portion> {
        match self.from.recv_timeout(wait) {
            Ok(Ok(Some(items))) => Ok(Portion::Items(items)),
            Ok(Ok(None)) => Ok(Portion::End),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(Portion::Quiet),
            // It says so if it ends.
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(
                Class::Other,
                "the thread that reads the source is gone",
            )),
        }
    }
}

/// The two ends of a link.
pub(super) fn link() -> (SyncSender<Result<Option<Vec<Item>>>>, Link) {
    let (to, from) = sync_channel(WAITING);
    (to, Link { from })
}

/// Reads `source` to its end into a link. Ends early if nobody takes anything from it any more.
pub(super) fn read<F: Fetch + ?Sized>(
    fetch: &mut F,
    source: &mut Source,
    to: &SyncSender<Result<Option<Vec<Item>>>>,
) {
    loop {
        let items = gather(fetch, source, BYTES);
        let over = !matches!(items, Ok(Some(_)));
        if to.send(items).is_err() || over {
            return;
        }
    }
}

/// The next items, with about [`BYTES`] of data; `None` at the end.
fn gather<F: Fetch + ?Sized>(
    fetch: &mut F,
    source: &mut Source,
    bytes: usize,
) -> Result<Option<Vec<Item>>> {
    let mut items = Vec::new();
    let mut size = 0;
    while size < bytes && items.len() < ITEMS {
        match source.next(fetch) {
            Ok(Some(item)) => {
                size += item.payload();
                items.push(item);
            }
            Ok(None) => break,
            Err(error) if items.is_empty() => return Err(error),
            // What is whole comes first; the next one says it again.
            Err(_) => break,
        }
    }
    Ok((!items.is_empty()).then_some(items))
}

/// The next items of a source that is left then, with about `bytes` of data: everything that it has
/// read ahead. None at the end.
pub(super) fn portion<F: Fetch + ?Sized>(
    fetch: &mut F,
    source: &mut Source,
    bytes: usize,
) -> Result<Vec<Item>> {
    const MOST: usize = 16 << 10;
    let mut items = Vec::new();
    let mut size = 0;
    while size < bytes && items.len() < MOST {
        let Some(item) = source.next(fetch)? else {
            return Ok(items);
        };
        size += item.payload();
        items.push(item);
    }
    while let Some(item) = source.take(fetch)? {
        items.push(item);
    }
    Ok(items)
}
