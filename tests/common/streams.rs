//! Reading streams in tests.

use mallet::btree::{good_data, lookup};
use mallet::error::{Class, Error, Result};
use mallet::format::record::{PfsData, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::io::{OpenOptions, open};
use mallet::mirror::read::Output;
use mallet::mirror::wire::{Records, Sink};
use mallet::mirror::{Clock, Edge, Event, Report, Request, SourcePfs, run};
use mallet::progress::{Progress, Status};
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};
use std::path::Path;
use std::time::Duration;

/// Time stands still.
pub struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

/// Ends an operation at a call.
pub struct After(pub u64);

impl Progress for After {
    fn at(&mut self, _: &Status) -> Result<()> {
        self.0 = match self.0 {
            0 => return Err(Error::new(Class::Interrupted, "enough")),
            left => left - 1,
        };
        Ok(())
    }
}

pub fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// PFS `id` as a source that gives everything up to `end`.
pub fn source<F: Fetch>(view: &mut F, id: u16, end: Tid) -> SourcePfs {
    let lo = Localization::new(0, Localization::MISC);
    let key = Key::first_version(lo, ROOT_OBJ, rt::PFS, PfsData::record_key(id));
    let leaf = lookup(view, key, Tid::MAX).expect("a readable tree");
    let bytes = good_data(view, &leaf.expect("a PFS")).expect("its record");
    SourcePfs {
        id,
        data: PfsData::from_bytes(&bytes),
        end,
        committed: end,
    }
}

pub fn edge<T>(progress: &mut dyn Progress, work: impl FnOnce(&mut Edge<'_>) -> T) -> T {
    work(&mut Edge {
        clock: &mut Still,
        progress,
        events: &mut |_: &Event<'_>| {},
    })
}

/// Reads a stream into memory.
pub fn stream<F: Fetch>(
    view: &mut F,
    request: &Request,
    progress: &mut dyn Progress,
) -> (Vec<u8>, Report) {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, None);
    let report = edge(progress, |edge| run(view, request, &mut sink, edge)).expect("a stream");
    assert_eq!(sink.bytes(), report.counts.stream_bytes);
    (out, report)
}

/// The records of a stream, without padding.
pub fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Records::new(bytes);
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("a sound stream") {
        records.push(record.bytes.to_vec());
    }
    records
}
