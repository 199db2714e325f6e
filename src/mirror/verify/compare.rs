//! The questions that find every difference.

use super::wire::{answer_size, asks_size};
use super::{
    Answer, Ask, Depth, Difference, Entry, How, Place, Range, Seen, Total, Wanted, Witness,
};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::progress::{Progress, Status};
use std::cmp::Ordering;

/// Pieces that a range is cut into, at most.
const PIECES: u64 = 16;
/// Records that are told one by one, at most.
const LIST: u64 = 64;

/// What comparing works with.
pub struct Edge<'e> {
    /// Hears of progress, and can end it.
    pub progress: &'e mut dyn Progress,
    /// Hears of each difference, in key order.
    pub found: &'e mut dyn FnMut(&Difference) -> Result<()>,
}

/// How a comparison went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The TID that both sides were looked at as of.
    pub as_of: Tid,
    /// Records that the source shows.
    pub source_records: u64,
    /// Records that the slave shows.
    pub slave_records: u64,
    /// Whether the data was read.
    pub data: bool,
    /// Questions asked about ranges, of both sides together.
    pub asked: u64,
    /// Bytes of these questions and their answers: what links to both sides would carry.
    pub crossed: u64,
    /// Records that the slave does not have.
    pub missing: u64,
    /// Records that only the slave has.
    pub extra: u64,
    /// Records that are not the same.
    pub differing: u64,
    /// Records whose data is damaged on either side.
    pub damaged: u64,
}

impl Report {
    /// Whether the slave shows what the source shows.
    pub fn is_equal(&self) -> bool {
        self.differences() == 0
    }

    /// Records that are not the same, however.
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.differing + self.damaged
    }

    fn count(&mut self, how: How) {
        *match how {
            How::Missing => &mut self.missing,
            How::Extra => &mut self.extra,
            How::Differs => &mut self.differing,
            How::Damaged { .. } => &mut self.damaged,
        } += 1;
    }
}

/// Compares what two PFSs show as of `as_of`, looking as closely as `depth` says, and closer where
/// CRCs turn out not to stand for the data.
///
/// Errors: those of the witnesses, of class `Protocol` for answers that contradict each other, and
/// those of `edge`.
pub fn verify(
    source: &mut dyn Witness,
    slave: &mut dyn Witness,
    as_of: Tid,
    depth: Depth,
    edge: &mut Edge<'_>,
) -> Result<Report> {
    let mut work = Work {
        sides: [source, slave],
        depth,
        edge,
        status: Status::default(),
        report: Report {
            as_of,
            ..Report::default()
        },
        todo: Vec::new(),
    };
    let [ours, theirs] = work.wholes(Range::ALL)?;
    (work.report.source_records, work.report.slave_records) = (ours.count, theirs.count);
    work.todo.push((Range::ALL, Some([ours, theirs])));
    while let Some((range, known)) = work.todo.pop() {
        let totals = match known {
            Some(totals) => totals,
            None => work.wholes(range)?,
        };
        if same(&totals) {
            continue;
        }
        match totals[0].count.max(totals[1].count) <= LIST {
            true => work.list(range, &totals)?,
            false => work.split(range, &totals)?,
        }
    }
    work.report.data = work.depth == Depth::Data;
    Ok(work.report)
}

fn same(totals: &[Total; 2]) -> bool {
    totals[0] == totals[1] && totals[0].damaged == 0
}

/// Says that a side's answers do not fit together.
fn contradiction(what: &str) -> Error {
    let text = format!(
        "the answers about what a volume holds contradict each other: {what}; it may have changed \
         meanwhile"
    );
    Error::new(Class::Protocol, text)
}

struct Work<'w, 'e> {
    /// The source, the slave.
    sides: [&'w mut dyn Witness; 2],
    depth: Depth,
    edge: &'w mut Edge<'e>,
    status: Status,
    report: Report,
    /// Ranges to compare, the next one last, with their totals where those are known.
    todo: Vec<(Range, Option<[Total; 2]>)>,
}

impl Work<'_, '_> {
    fn asks(&self, ranges: &[Range], wanted: Wanted) -> Vec<Ask> {
        let ask = |range: &Range| Ask {
            range: *range,
            as_of: self.report.as_of,
            depth: self.depth,
            wanted,
        };
        ranges.iter().map(ask).collect()
    }

    fn ask(&mut self, side: usize, ranges: &[Range], wanted: Wanted) -> Result<Vec<Answer>> {
        let asks = self.asks(ranges, wanted);
        let (status, progress) = (&mut self.status, &mut *self.edge.progress);
        let mut tick = |seen: Seen| {
            status.items += seen.records;
            status.bytes += seen.bytes;
            status.object = seen.object;
            progress.at(status)
        };
        let answers = self.sides[side].answer(&asks, &mut tick)?;
        if answers.len() != asks.len() {
            return Err(contradiction("not one for each question"));
        }
        self.report.asked += asks.len() as u64;
        self.report.crossed += asks_size(asks.len());
        self.report.crossed += answers.iter().map(answer_size).sum::<u64>();
        Ok(answers)
    }

    fn totals(&mut self, side: usize, ranges: &[Range]) -> Result<Vec<Total>> {
        let total = |answer| match answer {
            Answer::Whole(total) => Ok(total),
            _ => Err(contradiction("one to another question")),
        };
        let answers = self.ask(side, ranges, Wanted::Whole)?;
        answers.into_iter().map(total).collect()
    }

    /// Both sides' totals of a range; they look at it at the same time if they can.
    fn wholes(&mut self, range: Range) -> Result<[Total; 2]> {
        let asks = self.asks(&[range], Wanted::Whole);
        for side in &mut self.sides {
            side.pose(&asks)?;
        }
        let source = self.totals(0, &[range])?[0];
        let slave = self.totals(1, &[range])?[0];
        Ok([source, slave])
    }

    /// Cuts a range by the records of the side that has more, and keeps the pieces that differ.
    fn split(&mut self, range: Range, totals: &[Total; 2]) -> Result<()> {
        let side = usize::from(totals[1].count > totals[0].count);
        let every = totals[side].count.div_ceil(PIECES);
        let pieces = self.pieces(side, range, every, totals[side].count)?;
        let ends = pieces.iter().skip(1).map(|(from, _)| Some(*from));
        let mut from = range.from;
        let mut ranges = Vec::with_capacity(pieces.len());
        for to in ends.chain([range.to]) {
            ranges.push(Range { from, to });
            from = to.unwrap_or(from);
        }
        let others = self.totals(1 - side, &ranges)?;
        let mut sum = 0u64;
        for other in &others {
            sum = sum.saturating_add(other.count);
        }
        if sum != totals[1 - side].count {
            return Err(contradiction("the parts of a range and the whole"));
        }
        let parts = ranges.into_iter().zip(pieces).zip(others);
        for ((range, (_, own)), other) in parts.rev() {
            let totals = match side {
                0 => [own, other],
                _ => [other, own],
            };
            if !same(&totals) {
                self.todo.push((range, Some(totals)));
            }
        }
        Ok(())
    }

    /// The pieces of a range of `count` records: in order, none empty, all of them there.
    fn pieces(
        &mut self,
        side: usize,
        range: Range,
        every: u64,
        count: u64,
    ) -> Result<Vec<(Place, Total)>> {
        let answers = self.ask(side, &[range], Wanted::Pieces(every))?;
        let Some(Answer::Pieces(pieces)) = answers.into_iter().next() else {
            return Err(contradiction("one to another question"));
        };
        let sizes = pieces.iter().map(|(_, total)| total.count);
        let good = pieces.len() as u64 <= PIECES
            && pieces.iter().all(|(place, _)| range.holds(*place))
            && pieces.is_sorted_by(|a, b| a.0 < b.0)
            && sizes.clone().all(|size| (1..=every).contains(&size))
            && sizes.fold(0, u64::saturating_add) == count;
        good.then_some(pieces)
            .ok_or_else(|| contradiction("the pieces of a range"))
    }

    /// Compares records one by one.
    fn list(&mut self, range: Range, totals: &[Total; 2]) -> Result<()> {
        let mut found = self.differences(range, totals)?;
        if self.depth == Depth::Sums && found.iter().any(|one| one.how == How::Differs) {
            self.depth = Depth::Data;
            let closer = self.differences(range, totals)?;
            let stands = |one: &Difference| closer.iter().any(|same| same.place == one.place);
            match found.iter().all(stands) {
                true => self.depth = Depth::Sums,
                // Equal data has different CRCs, and so may much else: from here on data is read.
                false => self.todo.iter_mut().for_each(|(_, known)| *known = None),
            }
            found = closer;
        }
        for difference in &found {
            self.report.count(difference.how);
            (self.edge.found)(difference)?;
        }
        Ok(())
    }

    fn differences(&mut self, range: Range, totals: &[Total; 2]) -> Result<Vec<Difference>> {
        let source = self.records(0, range, totals[0].count)?;
        let slave = self.records(1, range, totals[1].count)?;
        Ok(merge(&source, &slave))
    }

    /// The records of a range, `count` of them: in order, all within it.
    fn records(&mut self, side: usize, range: Range, count: u64) -> Result<Vec<Entry>> {
        let answers = self.ask(side, &[range], Wanted::Records)?;
        let Some(Answer::Records(entries)) = answers.into_iter().next() else {
            return Err(contradiction("one to another question"));
        };
        let good = entries.len() as u64 == count
            && entries.iter().all(|entry| range.holds(entry.place))
            && entries.is_sorted_by(|a, b| a.place < b.place);
        good.then_some(entries)
            .ok_or_else(|| contradiction("the records of a range"))
    }
}

/// What of two lists of records is not the same.
fn merge(source: &[Entry], slave: &[Entry]) -> Vec<Difference> {
    let (mut ours, mut theirs) = (source.iter().peekable(), slave.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.place.cmp(&other.place),
        };
        let one = order.is_le().then(|| ours.next()).flatten();
        let other = order.is_ge().then(|| theirs.next()).flatten();
        found.extend(difference(one, other));
    }
}

fn difference(source: Option<&Entry>, slave: Option<&Entry>) -> Option<Difference> {
    let how = match (source, slave) {
        (Some(_), None) => How::Missing,
        (None, Some(_)) => How::Extra,
        (Some(one), Some(other)) if one.damaged || other.damaged => How::Damaged {
            source: one.damaged,
            slave: other.damaged,
        },
        (Some(one), Some(other)) if one != other => How::Differs,
        _ => return None,
    };
    let any = source.or(slave)?;
    Some(Difference {
        place: any.place,
        how,
        source: source.map(|entry| entry.create_tid),
        slave: slave.map(|entry| entry.create_tid),
        len: any.len,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Digest;
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};
    use std::collections::BTreeMap;

    /// Records as a list of what they hold, and what the CRC says of it.
    pub(in super::super) struct Listed {
        pub records: Records,
        pub lie: bool,
    }

    fn place(key: i64) -> Place {
        Place { key, ..Place::MIN }
    }

    fn digest(key: i64, data: u8) -> Digest {
        let mut hash = Sha256::new();
        hash.update(key.to_le_bytes());
        hash.update([data]);
        hash.finalize().into()
    }

    fn total(entries: &[Entry]) -> Total {
        let mut hash = Sha256::new();
        entries.iter().for_each(|entry| hash.update(entry.digest));
        Total {
            count: entries.len() as u64,
            damaged: 0,
            digest: hash.finalize().into(),
        }
    }

    impl Witness for Listed {
        fn answer(&mut self, asks: &[Ask], _: super::super::Tick<'_>) -> Result<Vec<Answer>> {
            let answer = |ask: &Ask| {
                let all = self.records.iter();
                let all = all.filter(|(key, _)| ask.range.holds(place(**key)));
                let entry = |(key, (data, sum)): (&i64, &(u8, u8))| Entry {
                    place: place(*key),
                    create_tid: Tid(1),
                    len: 1,
                    damaged: false,
                    digest: digest(
                        *key,
                        if ask.depth == Depth::Sums {
                            *sum
                        } else {
                            *data
                        },
                    ),
                };
                let entries: Vec<Entry> = all.map(entry).collect();
                match ask.wanted {
                    Wanted::Whole => Answer::Whole(total(&entries)),
                    Wanted::Records => Answer::Records(entries),
                    Wanted::Pieces(every) => {
                        let every = every as usize + usize::from(self.lie);
                        let pieces = entries.chunks(every);
                        Answer::Pieces(pieces.map(|some| (some[0].place, total(some))).collect())
                    }
                }
            };
            Ok(asks.iter().map(answer).collect())
        }
    }

    /// What is at a key: the data, and its CRC.
    pub(in super::super) type Records = BTreeMap<i64, (u8, u8)>;

    fn compare(source: &Records, slave: &Records, lie: bool) -> Result<(Report, Vec<(i64, How)>)> {
        let listed = |records: &Records, lie| Listed {
            records: records.clone(),
            lie,
        };
        let mut found = Vec::new();
        let mut edge = Edge {
            progress: &mut (),
            found: &mut |one| {
                found.push((one.place.key, one.how));
                Ok(())
            },
        };
        let (mut one, mut other) = (listed(source, lie), listed(slave, lie));
        let report = verify(&mut one, &mut other, Tid(9), Depth::Sums, &mut edge)?;
        Ok((report, found))
    }

    /// What a comparison of all data finds.
    fn plainly(source: &Records, slave: &Records) -> Vec<(i64, How)> {
        let keys: std::collections::BTreeSet<&i64> = source.keys().chain(slave.keys()).collect();
        let how = |key: &&i64| match (source.get(*key), slave.get(*key)) {
            (Some(_), None) => Some(How::Missing),
            (None, Some(_)) => Some(How::Extra),
            (Some(a), Some(b)) => (a.0 != b.0).then_some(How::Differs),
            (None, None) => None,
        };
        keys.iter()
            .filter_map(|key| how(key).map(|how| (**key, how)))
            .collect()
    }

    proptest! {
        /// Whatever differs is found, once and in order, and nothing else: also where one side has
        /// much more, and where CRCs differ and data does not.
        #[test]
        fn finds_all_and_nothing_else(
            both in proptest::collection::btree_map(0i64..4000, 0u8..4, 0..1500),
            changes in proptest::collection::vec((0i64..4000, 0u8..4), 0..40),
            only in proptest::collection::btree_map(3000i64..8000, 0u8..4, 0..900),
            swap: bool,
            recoded: Option<i64>,
        ) {
            let mut source: Records = both.iter().map(|(key, data)| (*key, (*data, *data))).collect();
            let mut slave = source.clone();
            for (key, what) in changes {
                match what {
                    0 => { source.remove(&key); }
                    1 => { slave.remove(&key); }
                    data => { slave.insert(key, (data, data)); }
                }
            }
            slave.extend(only.iter().map(|(key, data)| (*key, (*data, *data))));
            // From here on the CRC is of another kind in the slave.
            if let Some(from) = recoded {
                let from = from.rem_euclid(4000);
                slave.range_mut(from..).for_each(|(_, (data, sum))| *sum = *data + 100);
            }
            if swap {
                std::mem::swap(&mut source, &mut slave);
            }
            let (report, found) = compare(&source, &slave, false).expect("an answer");
            let expected = plainly(&source, &slave);
            prop_assert_eq!(report.differences(), expected.len() as u64);
            prop_assert_eq!(report.source_records, source.len() as u64);
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let source: Records = (0..1000).map(|key| (key, (1, 1))).collect();
        let mut slave = source.clone();
        slave.insert(500, (2, 2));
        let (report, found) = compare(&source, &slave, false).expect("an answer");
        assert_eq!(found, [(500, How::Differs)]);
        assert!(!report.is_equal() && !report.data);
        let error = compare(&source, &slave, true).expect_err("a lie");
        assert_eq!(error.class(), Class::Protocol);
    }
}
