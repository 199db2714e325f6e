//! Which TIDs a stream is about (mirroring.md §2.3, §4.5).

use crate::btree::{Scan, Step};
use crate::error::{Class, Error, Result};
use crate::format::mark::MARK_SIZE;
use crate::format::record::PfsData;
use crate::format::{Key, Offset, Tid};
use crate::fs::pfs::{self, Pfs};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// The TIDs that a batch covers, both ends inclusive, and what an earlier batch did of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first TID that the target lacks.
    pub begin: Tid,
    /// The last TID that the target will have.
    pub end: Tid,
    /// Where an interrupted batch stopped.
    pub resume: Option<Resume>,
}

impl Window {
    /// Whether there is nothing in it. A window of one TID is work (the original waits for a
    /// second one).
    pub fn is_empty(&self) -> bool {
        self.begin > self.end
    }

    /// The first TID that the target lacks at `key`.
    pub fn begin_at(&self, key: Key) -> Tid {
        match self.resume {
            Some(resume) if key < resume.key => resume.end.next(),
            _ => self.begin,
        }
    }
}

/// Where an interrupted batch stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Every key below was sent.
    pub key: Key,
    /// The end of the window in which they were sent.
    pub end: Tid,
}

/// A PFS as the source of a stream.
#[derive(Clone, Copy, Debug)]
pub struct SourcePfs {
    /// Its number.
    pub id: u16,
    /// Its record, as stored.
    pub data: PfsData,
    /// The last TID that it is given up to.
    pub end: Tid,
    /// The last TID that a target can have of it, if it is a master: its effective `sync_end_tid`. A
    /// target that has more is of another past. Beside a writer `end` may be below it
    /// ([`SourcePfs::beside_a_writer`]).
    pub committed: Tid,
}

impl From<&Pfs> for SourcePfs {
    fn from(pfs: &Pfs) -> SourcePfs {
        SourcePfs {
            id: pfs.id,
            data: pfs.data,
            end: pfs.sync_end,
            committed: pfs.sync_end,
        }
    }
}

impl SourcePfs {
    /// The record as a stream tells it: with `end` as its end, and without what is kept in its
    /// reserved bytes, which is about this volume only.
    pub fn told(&self, end: Tid) -> PfsData {
        let mut data = self.data;
        data.sync_end_tid.set(end.0);
        data.reserved03 = [0; MARK_SIZE];
        data
    }

    /// Gives a master that somebody writes to no further than to what is irrevocable: the newest TID
    /// of the view that is `from` or above, else the one before. A target that has more of it, and no
    /// more than is committed, lacks nothing: the newest records were removed since. A slave goes as
    /// far as it says.
    pub fn beside_a_writer<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        from: Tid,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if !self.data.is_slave() {
            self.end = newest(fetch, self.id, from, progress)?;
        }
        Ok(())
    }
}

/// The last TID that a stream of PFS `pfs` may speak of while somebody writes to the volume: the
/// newest one found in the view at or after `begin`, else the one before `begin`. What the header
/// says next comes before it is irrevocable, and other PFSs' TIDs say nothing about this one. It lies
/// before an operation that is not complete.
fn newest<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    begin: Tid,
    progress: &mut dyn Progress,
) -> Result<Tid> {
    let mut newest = Tid(begin.0.saturating_sub(1));
    let unfinished = pfs::standing_intent(fetch, pfs)?.map(|intent| intent.tid);
    let mut scan = Scan::new(Key::pfs_min(pfs), Key::pfs_max(pfs), begin);
    let mut status = Status::default();
    while let Some(step) = scan.next(fetch)? {
        let Step::Leaf(leaf) = step else { continue };
        for element in leaf.elements() {
            for tid in [element.base.create_tid(), element.base.delete_tid()] {
                if Some(tid) != unfinished {
                    newest = newest.max(tid);
                }
            }
            status.object = element.base.obj_id.get();
        }
        status.items += 1;
        progress.at(&status)?;
    }
    Ok(newest)
}

/// Whether PFS `pfs` of `fetch` has nothing for `window`, as far as the root alone can tell: a target
/// with this window stands as of its TID.
pub fn is_idle<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16, window: &Window) -> Result<bool> {
    if window.resume.is_some() || window.is_empty() {
        return Ok(window.is_empty() && window.resume.is_none());
    }
    let (from, to) = (Key::pfs_min(pfs), Key::pfs_max(pfs));
    untouched(fetch, from, to, window.begin)
}

/// What the user says about the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The begin TID: overrides everything, as in the original.
    pub begin: Option<Tid>,
    /// An end before the last committed TID.
    pub end: Option<Tid>,
}

/// The window of a one-way stream of `pfs`. `cycle` is what a cycle file says: a begin TID and
/// where to go on.
pub fn one_way(
    pfs: &SourcePfs,
    asked: Asked,
    cycle: Option<(Tid, Option<Resume>)>,
) -> Result<Window> {
    let end = match asked.end {
        Some(end) if end > pfs.end => {
            return Err(Error::usage(format!(
                "--end-tid {end} is beyond the last TID that PFS {} can give, {}",
                pfs.id, pfs.end
            )));
        }
        Some(end) => end,
        None => pfs.end,
    };
    // Noise, or another file system's: what it says would pass for "nothing to do".
    if let Some((begin, _)) = cycle
        && asked.begin.is_none()
        && begin > pfs.end.next()
    {
        return Err(Error::new(
            Class::Incompatible,
            format!(
                "the cycle file speaks of a stream from {begin}, beyond the last TID of PFS {}, {}; \
                 remove the file to start over",
                pfs.id, pfs.end
            ),
        ));
    }
    let floor = Tid(pfs.data.sync_beg_tid.get());
    let begin = asked
        .begin
        .or(cycle.map(|(begin, _)| begin))
        .unwrap_or(floor);
    // What was sent before began with the file's TID: of no use for an earlier one.
    let resume = cycle
        .filter(|(sent, _)| *sent <= begin)
        .and_then(|(_, resume)| resume);
    if let Some(sent) = resume.map(|resume| resume.end)
        && sent > end
    {
        return Err(Error::new(
            Class::Incompatible,
            format!(
                "the cycle file speaks of a stream up to {sent}, this one could go to {end} only; \
                 remove the file to start over"
            ),
        ));
    }
    Ok(Window { begin, end, resume })
}

/// Whether nothing with a key in `[from, to]` was created or deleted at or after `begin`, as far
/// as the root alone can tell: `false` means that one has to look.
pub fn untouched<F: Fetch + ?Sized>(fetch: &mut F, from: Key, to: Key, begin: Tid) -> Result<bool> {
    let root = fetch.node(Offset(fetch.header().btree_root.get()))?;
    // A leaf says it itself: newfs leaves records whose TIDs its mirror_tid does not know.
    let touched_leaf = root.leaves().iter().any(|leaf| {
        (from..=to).contains(&leaf.base.key())
            && (leaf.base.create_tid() >= begin || leaf.base.delete_tid() >= begin)
    });
    let touched_child = root.children().iter().enumerate().any(|(index, child)| {
        let right = root.base(index + 1).key();
        // The first child also stands for what was removed before it.
        let left_of = index > 0 && child.base.key() > to;
        !left_of && from < right && Tid(child.mirror_tid.get()) >= begin
    });
    Ok(!touched_leaf && !touched_child)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(floor: u64, end: u64) -> SourcePfs {
        let mut data = PfsData::default_for([1; 16]);
        data.sync_beg_tid.set(floor);
        SourcePfs {
            id: 1,
            data,
            end: Tid(end),
            committed: Tid(end),
        }
    }

    #[test]
    fn begin_is_asked_for_or_kept_or_the_floor() {
        let pfs = source(1, 100);
        let window = |begin, cycle: Option<(u64, u64)>| {
            let asked = Asked {
                begin: begin_of(begin),
                end: None,
            };
            let resume = |end| Resume {
                key: Key::MIN,
                end: Tid(end),
            };
            let cycle = cycle.map(|(begin, end)| (Tid(begin), Some(resume(end))));
            one_way(&pfs, asked, cycle).map(|w| (w.begin.0, w.end.0))
        };
        fn begin_of(begin: u64) -> Option<Tid> {
            (begin != 0).then_some(Tid(begin))
        }
        assert_eq!(window(0, None).unwrap(), (1, 100));
        assert_eq!(window(50, None).unwrap(), (50, 100));
        assert_eq!(window(0, Some((7, 80))).unwrap(), (7, 100));
        assert_eq!(window(50, Some((7, 80))).unwrap(), (50, 100));
        assert_eq!(window(0, Some((101, 100))).unwrap(), (101, 100));
        let noise = window(0, Some((102, 100))).expect_err("beyond the end");
        assert_eq!(noise.class(), Class::Incompatible);
        let asked = Asked {
            begin: Some(Tid(6)),
            end: None,
        };
        let resume = Resume {
            key: Key::MIN,
            end: Tid(80),
        };
        let window_of = |begin| one_way(&pfs, asked, Some((Tid(begin), Some(resume)))).unwrap();
        assert_eq!(window_of(6).resume, Some(resume));
        assert_eq!(window_of(7).resume, None);
        assert_eq!(
            window(0, Some((7, 101))).unwrap_err().class(),
            Class::Incompatible
        );
    }

    #[test]
    fn end_can_only_be_earlier() {
        let asked = |end| Asked {
            begin: None,
            end: Some(Tid(end)),
        };
        let pfs = source(1, 100);
        assert_eq!(one_way(&pfs, asked(100), None).unwrap().end, Tid(100));
        assert_eq!(one_way(&pfs, asked(99), None).unwrap().end, Tid(99));
        let error = one_way(&pfs, asked(101), None).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
    }

    #[test]
    fn reserved_bytes_stay_at_home() {
        let mut pfs = source(1, 100);
        pfs.data.reserved03 = [7; MARK_SIZE];
        assert_eq!(pfs.told(Tid(9)).reserved03, [0; MARK_SIZE]);
    }

    #[test]
    fn one_tid_is_work() {
        let window = |begin, end| Window {
            begin: Tid(begin),
            end: Tid(end),
            resume: None,
        };
        assert!(!window(5, 5).is_empty());
        assert!(window(6, 5).is_empty());
    }
}
