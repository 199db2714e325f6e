//! What a stream would hold (`mirror-plan`): the same session and the same scan, with an output
//! that only counts. No data is read.

use super::read::{Edge, Output, Report, Request, run};
use super::session::Message;
use super::source::Item;
use super::throttle::Clock;
use crate::error::Result;
use crate::store::Fetch;

/// Counts and forgets.
#[derive(Debug, Default)]
struct Counter {
    bytes: u64,
}

impl Output for Counter {
    fn wants_data(&self) -> bool {
        false
    }

    fn message(&mut self, message: &Message) -> Result<()> {
        self.bytes += message.stream_bytes();
        Ok(())
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        self.bytes += item.stream_bytes();
        Ok(())
    }

    fn flush(&mut self, _: &mut dyn Clock, _: bool) -> Result<()> {
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Finds out what the stream that `request` asks for would hold: the report that [`run`] would
/// give, but for damage that only reading data shows.
pub fn plan<F: Fetch + ?Sized>(
    fetch: &mut F,
    request: &Request,
    edge: &mut Edge<'_>,
) -> Result<Report> {
    run(fetch, request, &mut Counter::default(), edge)
}
