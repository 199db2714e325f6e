//! What a stream says of a PFS: scan steps become REC, PASS and SKIP (mirroring.md §4.3–4.4).
//!
//! Data is read ahead in two batches. While the elements of one are given out, in key order, the
//! data of the next is under way, so that the device always has something to do.

use super::damage::{Damage, What};
use super::window::{Window, untouched};
use crate::btree::record::{data, extent, place};
use crate::btree::{LeafStep, Scan, Step};
use crate::error::{Error, Result};
use crate::format::mrecord::{ELEMENT, SKIP, padded};
use crate::format::node::{Base, LeafElement};
use crate::format::{Key, Offset, Tid, XBUFFER};
use crate::fs::pfs::standing_intent;
use crate::io::Bytes;
use crate::store::Fetch;
use std::collections::VecDeque;

/// Elements gathered before the data of those that have any is asked for.
const BATCH: usize = 4096;

/// One record of the stream.
#[derive(Debug)]
pub enum Item {
    /// An element created in the window.
    Record {
        /// The element as sent: a deletion behind the window's end is taken back.
        leaf: LeafElement,
        /// Its data, exactly `data_len` bytes; `None` in a source without data.
        data: Option<Bytes>,
        /// Why the record is flagged; what `data` is then, [`What`] says.
        damage: Option<Box<Damage>>,
    },
    /// An older element, word for word but for a deletion that is not complete.
    Pass(LeafElement),
    /// Nothing is said of `[from, to)`.
    Skip {
        /// First key of the range.
        from: Base,
        /// The key behind it.
        to: Base,
        /// Set if nothing is known of the range; else nothing was created or deleted in it.
        damage: Option<Box<Damage>>,
    },
    /// For several targets only: nothing in `[from, to)` was created or deleted after `changed`.
    /// What follows of the range is for targets that lack more.
    Quiet {
        /// First key of the range.
        from: Base,
        /// The key behind it.
        to: Base,
        /// The TID.
        changed: Tid,
    },
}

impl Item {
    /// Bytes of data that go with it, or would.
    pub fn payload(&self) -> usize {
        match self {
            Item::Record { leaf, .. } => data_len(leaf).unwrap_or(0),
            _ => 0,
        }
    }

    /// Bytes it takes in the stream, padding included.
    pub fn stream_bytes(&self) -> u64 {
        padded(match self {
            Item::Record { .. } => ELEMENT + self.payload(),
            Item::Pass(_) => ELEMENT,
            Item::Skip { .. } => SKIP,
            Item::Quiet { .. } => 0,
        }) as u64
    }

    /// The object it is about; of a range the one that it begins at.
    pub fn object(&self) -> i64 {
        match self {
            Item::Record { leaf, .. } | Item::Pass(leaf) => leaf.base.obj_id.get(),
            Item::Skip { from, .. } | Item::Quiet { from, .. } => from.obj_id.get(),
        }
    }

    /// What is wrong with it.
    pub fn damage(&self) -> Option<&Damage> {
        match self {
            Item::Record { damage, .. } | Item::Skip { damage, .. } => damage.as_deref(),
            Item::Pass(_) | Item::Quiet { .. } => None,
        }
    }
}

/// The length of an element's data; `None` if it is one that no record can have.
fn data_len(leaf: &LeafElement) -> Option<usize> {
    usize::try_from(leaf.data_len.get())
        .ok()
        .filter(|len| *len <= XBUFFER)
}

/// A part of the key space with a begin of its own: below the key at which an interrupted stream
/// goes on, its window's end has been sent already. Of several targets, the one that lacks most
/// decides.
#[derive(Debug)]
struct Part {
    from: Key,
    to: Key,
    /// Elements at or above this key are another part's.
    until: Option<Key>,
    /// `None` if it is for nobody.
    begin: Option<Tid>,
}

/// What the scan found, not yet given out. Records await their data.
enum Planned {
    Record(LeafElement),
    Pass(LeafElement),
    Skip(Base, Base),
    Unreadable(Base, Base, Error),
    Quiet(Base, Base, Tid),
}

/// The records of one PFS and one window, in key order.
pub struct Source {
    pfs: u16,
    /// The TID of an operation that is not complete, once the scan has begun: nothing is said of
    /// what it did.
    unfinished: Option<Tid>,
    end: Tid,
    /// For several targets.
    shared: bool,
    with_data: bool,
    parts: VecDeque<Part>,
    scan: Option<Scan>,
    leaf: Option<(LeafStep, usize)>,
    queue: VecDeque<Planned>,
    /// The batch being gathered: where its data lies, how much it is, how many elements.
    wanted: Vec<(Offset, usize)>,
    wanted_bytes: usize,
    gathered: usize,
    gathering: bool,
    /// Bytes of data asked for and not given out.
    under_way: usize,
    /// The last thing put into the queue ends here; the flag: before this key, not at it.
    planned: Option<(Key, bool)>,
    /// Every key below was given out.
    resolved: Key,
}

impl Source {
    /// The records of PFS `pfs` in `window`; `with_data` or only their number and size.
    pub fn new(pfs: u16, window: Window, with_data: bool) -> Source {
        Source::shared(pfs, Key::pfs_min(pfs), &[window], with_data)
    }

    /// The records of PFS `pfs` from `from` on for several targets in one scan, each with its own
    /// window; all windows have one end. What a target gets of an item is by its own begin
    /// ([`Window::begin_at`]).
    pub fn shared(pfs: u16, from: Key, windows: &[Window], with_data: bool) -> Source {
        let end = windows.first().map_or(Tid::ZERO, |window| window.end);
        Source {
            pfs,
            unfinished: None,
            end,
            shared: windows.len() > 1,
            with_data,
            parts: parts(from, Key::pfs_max(pfs), windows),
            scan: None,
            leaf: None,
            queue: VecDeque::new(),
            wanted: Vec::new(),
            wanted_bytes: 0,
            gathered: 0,
            gathering: false,
            under_way: 0,
            planned: None,
            resolved: from,
        }
    }

    /// A key that everything below of has been given out, for a later continuation.
    pub fn position(&self) -> Key {
        match self.queue.front() {
            Some(Planned::Record(leaf) | Planned::Pass(leaf)) => leaf.base.key(),
            Some(
                Planned::Skip(from, _) | Planned::Unreadable(from, ..) | Planned::Quiet(from, ..),
            ) => from.key(),
            None => self.resolved,
        }
        .max(self.resolved)
    }

    /// Whether the scan should go on ([`Source::step`]) before the next item is taken.
    pub fn wants_step<F: Fetch + ?Sized>(&self, fetch: &F) -> bool {
        let room = self.under_way <= fetch.readahead() / 2 && self.queue.len() <= BATCH;
        !self.parts.is_empty() && (self.gathering || room)
    }

    /// The next item; `None` at the end of the range. Errors are those of the view as a whole;
    /// what is merely damaged is an item.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Item>> {
        while self.wants_step(fetch) {
            self.step(fetch)?;
        }
        self.take(fetch)
    }

    /// Takes the next of the items that are ready; `None` if there is none.
    pub fn take<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Item>> {
        let Some(planned) = self.queue.pop_front() else {
            return Ok(None);
        };
        Ok(Some(match planned {
            Planned::Pass(leaf) => {
                self.resolved = leaf.base.key();
                Item::Pass(leaf)
            }
            Planned::Skip(from, to) => {
                self.resolved = to.key();
                Item::Skip {
                    from,
                    to,
                    damage: None,
                }
            }
            Planned::Quiet(from, to, changed) => Item::Quiet { from, to, changed },
            Planned::Unreadable(from, to, error) => {
                self.resolved = to.key();
                let damage = Damage::range(from.key(), to.key(), &error);
                Item::Skip {
                    from,
                    to,
                    damage: Some(Box::new(damage)),
                }
            }
            Planned::Record(leaf) => {
                // Whether a record without data on the device is sound shows without reading.
                let reads = matches!(place(&leaf), Ok(Some(_)));
                let item = match self.with_data || !reads {
                    true => self.with_its_data(fetch, leaf),
                    false => Ok(Item::Record {
                        leaf: sendable(leaf),
                        data: None,
                        damage: None,
                    }),
                };
                match item {
                    Ok(_) => self.resolved = leaf.base.key(),
                    // It was not given out: a continuation begins with it.
                    Err(_) => self.queue.push_front(Planned::Record(leaf)),
                }
                item?
            }
        }))
    }

    /// Reads the data of `leaf`. What cannot be had is replaced by zeros, so that the record stays
    /// well formed.
    fn with_its_data<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        leaf: LeafElement,
    ) -> Result<Item> {
        if let Some((_, len)) = extent(&leaf) {
            self.under_way = self.under_way.saturating_sub(len);
        }
        let len = data_len(&leaf);
        let (bytes, what) = match data(fetch, &leaf) {
            Ok(data) if Some(data.bytes.len()) == len => {
                let what = (!data.crc_ok).then_some(What::Sum);
                (data.bytes, what.map(|what| (what, String::new())))
            }
            Ok(data) => {
                let text = format!("{} bytes where {:?} are expected", data.bytes.len(), len);
                (Bytes::zeroed(len.unwrap_or(0)), Some((What::Data, text)))
            }
            Err(error) if error.is_media() => {
                let bytes = Bytes::zeroed(len.unwrap_or(0));
                (bytes, Some((What::Data, error.to_string())))
            }
            Err(error) => return Err(error),
        };
        Ok(Item::Record {
            damage: what.map(|(what, text)| Box::new(Damage::record(&leaf, what, text))),
            leaf: sendable(leaf),
            data: self.with_data.then_some(bytes),
        })
    }

    /// Goes on with the scan a bit: one element or node.
    pub fn step<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let Some(part) = self.parts.front() else {
            return Ok(());
        };
        let (begin, until) = (part.begin, part.until);
        self.gathering = true;
        if let Some((leaf, index)) = self.leaf.take() {
            self.elements(fetch, leaf, index, begin, until)?;
        } else if let Some(scan) = &mut self.scan {
            match scan.next(fetch)? {
                Some(Step::Leaf(leaf)) => {
                    let first = leaf.first;
                    if self.shared {
                        self.quiet(&leaf, until);
                    }
                    self.elements(fetch, leaf, first, begin, until)?;
                }
                Some(Step::Skip { from, to }) => self.range(from, to, None)?,
                Some(Step::Unreadable { from, to, error }) => {
                    self.range(from, to, Some(error))?;
                }
                None => self.next_part(),
            }
        } else {
            self.begin_part(fetch)?;
        }
        let half = fetch.readahead() / 2;
        if self.wanted_bytes >= half || self.gathered >= BATCH || self.parts.is_empty() {
            self.announce(fetch);
        }
        Ok(())
    }

    fn begin_part<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let Some(part) = self.parts.front() else {
            return Ok(());
        };
        let (from, to, until) = (part.from, part.to, part.until);
        self.unfinished = match standing_intent(fetch, self.pfs) {
            Ok(intent) => intent.map(|intent| intent.tid),
            // A record that cannot be read says nothing.
            Err(error) if error.is_media() => None,
            Err(error) => return Err(error),
        };
        let scan = match part.begin {
            // The last part is always looked at: whether it is idle was decided before.
            Some(begin) if until.is_none() || !untouched(fetch, from, to, begin)? => {
                Some(Scan::new(from, to, begin))
            }
            _ => None,
        };
        match scan {
            Some(scan) => self.scan = Some(scan),
            None => {
                self.range(Base::from_key(from), Base::from_key(to), None)?;
                self.next_part();
            }
        }
        Ok(())
    }

    fn next_part(&mut self) {
        self.scan = None;
        self.parts.pop_front();
    }

    /// Plans what is to be said of the elements of `leaf` from `index` on, until a batch is full.
    fn elements<F: Fetch + ?Sized>(
        &mut self,
        fetch: &F,
        leaf: LeafStep,
        index: usize,
        begin: Option<Tid>,
        until: Option<Key>,
    ) -> Result<()> {
        let half = fetch.readahead() / 2;
        let mut index = index.max(leaf.first);
        while let Some(element) = leaf.node.leaves().get(index).filter(|_| index < leaf.end) {
            if self.wanted_bytes >= half {
                self.leaf = Some((leaf, index));
                return Ok(());
            }
            let key = element.base.key();
            if until.is_none_or(|until| key < until) {
                self.element(element, begin.unwrap_or(Tid::ZERO))?;
            }
            index += 1;
        }
        Ok(())
    }

    fn element(&mut self, element: &LeafElement, begin: Tid) -> Result<()> {
        let key = element.base.key();
        self.ascend(key, key, false)?;
        let created = element.base.create_tid();
        if created > self.end || self.unfinished == Some(created) {
            return Ok(());
        }
        self.gathered += 1;
        let mut leaf = *element;
        if self.unfinished == Some(leaf.base.delete_tid()) {
            leaf.base.delete_tid.set(0);
            leaf.delete_ts.set(0);
        }
        if created < begin {
            self.queue.push_back(Planned::Pass(leaf));
            return Ok(());
        }
        if leaf.base.delete_tid() > self.end {
            leaf.base.delete_tid.set(0);
            leaf.delete_ts.set(0);
        }
        if let Some((at, len)) = extent(&leaf).filter(|_| self.with_data) {
            self.wanted.push((at, len));
            self.wanted_bytes += len;
        }
        self.queue.push_back(Planned::Record(leaf));
        Ok(())
    }

    /// Says since when nothing has changed in a leaf, before its elements.
    fn quiet(&mut self, leaf: &LeafStep, until: Option<Key>) {
        let end = match until.filter(|until| *until < leaf.to.key()) {
            Some(until) => Base::from_key(until),
            None => leaf.to,
        };
        let last = self.planned.map_or(Key::MIN, |(last, _)| last);
        if last <= leaf.from.key() && leaf.from.key() < end.key() {
            let quiet = Planned::Quiet(leaf.from, end, leaf.changed);
            self.queue.push_back(quiet);
        }
    }

    fn range(&mut self, from: Base, to: Base, error: Option<Error>) -> Result<()> {
        if from.key() >= to.key() {
            return Ok(());
        }
        self.ascend(from.key(), to.key(), true)?;
        self.gathered += 1;
        self.queue.push_back(match error {
            None => Planned::Skip(from, to),
            Some(error) => Planned::Unreadable(from, to, error),
        });
        Ok(())
    }

    /// Sees to it that keys ascend: a target takes what is missing between two keys for deleted,
    /// so nothing may be said out of order, whatever the tree looks like.
    fn ascend(&mut self, from: Key, to: Key, before: bool) -> Result<()> {
        let in_order = match self.planned {
            None => true,
            Some((last, true)) => from >= last,
            Some((last, false)) => from > last,
        };
        if !in_order {
            return Err(Error::damage(format!(
                "the B-Tree leads from {} back to {from}; a stream in this order would delete \
                 records of its target (run check)",
                self.planned.map_or(Key::MIN, |(last, _)| last)
            )));
        }
        self.planned = Some((to, before));
        Ok(())
    }

    /// Asks for the data of the batch that was gathered.
    fn announce<F: Fetch + ?Sized>(&mut self, fetch: &mut F) {
        if !self.wanted.is_empty() {
            fetch.want(&self.wanted);
        }
        self.under_way += self.wanted_bytes;
        self.wanted.clear();
        self.wanted_bytes = 0;
        self.gathered = 0;
        self.gathering = false;
    }
}

/// The key space from `from` on, cut where a target begins with another TID.
fn parts(from: Key, to: Key, windows: &[Window]) -> VecDeque<Part> {
    let resumes = windows.iter().filter_map(|window| window.resume);
    let mut cuts: Vec<Key> = resumes.map(|resume| resume.key.min(to)).collect();
    cuts.retain(|key| *key > from);
    cuts.sort_unstable();
    cuts.dedup();
    let mut start = from;
    let mut parts = VecDeque::new();
    for until in cuts.into_iter().map(Some).chain([None]) {
        let begin = windows.iter().map(|window| window.begin_at(start)).min();
        parts.push_back(Part {
            from: start,
            to: until.unwrap_or(to),
            until,
            // Behind the end where an interrupted stream ended there too: what was removed since and
            // left no TID is missing from what comes now, and so it must be from what came then.
            begin,
        });
        start = until.unwrap_or(to);
    }
    parts
}

/// The element as it can be sent: one with an impossible length goes without data, which its flag
/// excuses.
fn sendable(mut leaf: LeafElement) -> LeafElement {
    if data_len(&leaf).is_none() {
        leaf.data_len.set(0);
        leaf.data_offset.set(0);
    }
    leaf
}
