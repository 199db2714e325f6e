//! The items of one scan poured into the slaves of a pass, and made durable in groups.

use super::apply::{Applied, Ending};
use super::copy::{Edge, Event, Place, RECORDS, Report, Request};
use super::lane::Lane;
use super::link::{Link, Portion};
use super::source::Item;
use super::throttle::Throttle;
use crate::error::{Error, Result};
use crate::progress::Status;
use crate::store::{Store, Txn};
use std::time::Duration;

/// How long to wait for the source before looking at time and signals.
const WAIT: Duration = Duration::from_millis(100);

/// A slave in a pass, with its open transaction.
pub(super) struct Open<'s> {
    at: usize,
    lane: Lane,
    txn: Txn<'s>,
    /// Bytes of its data that are counted as durable.
    counted: u64,
}

/// The slaves of one pass, from the outside.
pub(super) struct Pour<'a, 'e> {
    request: &'a Request,
    edge: &'a mut Edge<'e>,
    report: &'a mut Report,
    throttle: &'a mut Option<Throttle>,
    /// What is durable.
    pub told: Status,
    /// Slaves that would lose too much.
    pub braked: Vec<(usize, Applied)>,
    /// Records and bytes since all was durable, and when that was.
    since: (u64, u64),
    last: Duration,
}

impl<'a, 'e> Pour<'a, 'e> {
    pub fn new(
        request: &'a Request,
        edge: &'a mut Edge<'e>,
        report: &'a mut Report,
        throttle: &'a mut Option<Throttle>,
    ) -> Pour<'a, 'e> {
        let last = edge.clock.now();
        Pour {
            request,
            edge,
            report,
            throttle,
            told: Status::default(),
            braked: Vec::new(),
            since: (0, 0),
            last,
        }
    }

    /// Opens a transaction for each slave. Their stores differ.
    pub fn begin<'s>(
        &mut self,
        stores: &'s mut [Store],
        places: &[Place],
        mut lanes: Vec<(usize, Lane)>,
        now: u64,
    ) -> Vec<Open<'s>> {
        let mut open = Vec::new();
        for (index, store) in stores.iter_mut().enumerate() {
            let here = |(at, _): &(usize, Lane)| places[*at].store == index;
            let Some(found) = lanes.iter().position(here) else {
                continue;
            };
            let (at, lane) = lanes.swap_remove(found);
            match store.begin(now) {
                Ok(txn) => {
                    let counted = lane.applied().bytes;
                    open.push(Open {
                        at,
                        lane,
                        txn,
                        counted,
                    });
                }
                Err(error) => self.fail(at, &lane, error),
            }
        }
        open
    }

    /// Pours in everything that comes over the link. An error is one of the source or of progress.
    pub fn all(&mut self, link: &mut Link, open: &mut Vec<Open<'_>>) -> Result<()> {
        while !open.is_empty() {
            match link.next(WAIT)? {
                Portion::Items(items) => self.items(&items, open)?,
                Portion::Quiet => self.edge.progress.at(&self.told)?,
                Portion::End => return Ok(()),
            }
        }
        Ok(())
    }

    /// Pours in some items. An error is one of progress.
    pub fn items(&mut self, items: &[Item], open: &mut Vec<Open<'_>>) -> Result<()> {
        for item in items {
            if self.report.items.is_multiple_of(RECORDS) {
                self.told.object = item.object();
                self.edge.progress.at(&self.told)?;
            }
            self.item(item, open);
            let group = &self.request.group;
            if self.since.0 >= group.records || self.since.1 >= group.bytes {
                self.checkpoint(open)?;
            }
        }
        let now = self.edge.clock.now();
        if now.saturating_sub(self.last) >= self.request.group.time {
            self.checkpoint(open)?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item, open: &mut Vec<Open<'_>>) {
        let data = match item {
            Item::Record {
                data: Some(data), ..
            } => data.len() as u64,
            _ => 0,
        };
        self.report.items += 1;
        self.report.read_bytes += data;
        self.since.0 += 1;
        self.since.1 += data;
        self.told.items += 1;
        self.slow_down(item.stream_bytes());
        if let Some(damage) = item.damage() {
            (self.edge.events)(&Event::Damage(damage));
        }
        let mut index = 0;
        while let Some(one) = open.get_mut(index) {
            match one.lane.take(&mut one.txn, item) {
                Ok(()) => index += 1,
                Err(error) => {
                    // Its transaction goes with it; what was durable stays, and so does the cursor.
                    let Open { at, lane, .. } = open.swap_remove(index);
                    self.fail(at, &lane, error);
                }
            }
        }
    }

    fn slow_down(&mut self, bytes: u64) {
        if let Some(throttle) = &mut self.throttle {
            let wait = throttle.wait(self.edge.clock.now());
            if !wait.is_zero() {
                self.edge.clock.sleep(wait);
            }
            throttle.spent(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }

    /// Makes everything durable, and tells how much that is.
    fn checkpoint(&mut self, open: &mut Vec<Open<'_>>) -> Result<()> {
        let mut index = 0;
        while let Some(one) = open.get_mut(index) {
            match one.lane.checkpoint(&mut one.txn) {
                Ok(_) => {
                    let bytes = one.lane.applied().bytes;
                    self.told.bytes += bytes.saturating_sub(one.counted);
                    one.counted = bytes;
                    index += 1;
                }
                Err(error) => {
                    let Open { at, lane, .. } = open.swap_remove(index);
                    self.fail(at, &lane, error);
                }
            }
        }
        self.since = (0, 0);
        self.last = self.edge.clock.now();
        self.edge.progress.at(&self.told)
    }

    /// Closes all transactions before the pass is complete, and keeps what was done.
    pub fn suspend(&mut self, open: Vec<Open<'_>>) -> Vec<(usize, Lane)> {
        let mut lanes = Vec::new();
        for one in open {
            let Open {
                at,
                mut lane,
                txn,
                counted,
            } = one;
            match lane.suspend(txn) {
                Ok(_) => {
                    self.told.bytes += lane.applied().bytes.saturating_sub(counted);
                    lanes.push((at, lane));
                }
                Err(error) => self.fail(at, &lane, error),
            }
        }
        self.since = (0, 0);
        lanes
    }

    /// Says what slaves did that will not complete the pass.
    pub fn leave(&mut self, lanes: Vec<(usize, Lane)>) {
        for (at, lane) in lanes {
            self.count(at, &lane);
        }
    }

    /// The source has said everything: completes the pass for each slave.
    pub fn complete(&mut self, open: Vec<Open<'_>>) {
        for one in open {
            let Open {
                at,
                mut lane,
                txn,
                counted,
            } = one;
            let ending = match lane.complete(txn, self.request.terms) {
                Ok(ending) => ending,
                Err(error) => {
                    self.fail(at, &lane, error);
                    continue;
                }
            };
            self.told.bytes += lane.applied().bytes.saturating_sub(counted);
            self.count(at, &lane);
            let outcome = &mut self.report.targets[at];
            let event = match ending {
                Ending::Acknowledged(ack) => {
                    outcome.tids.1 = ack.tid();
                    outcome.passes += 1;
                    Event::Acknowledged(at, ack.tid(), lane.applied())
                }
                Ending::Withheld => {
                    outcome.withheld = true;
                    Event::Withheld(at, lane.applied())
                }
                Ending::Braked => {
                    self.braked.push((at, *lane.applied()));
                    continue;
                }
            };
            (self.edge.events)(&event);
        }
    }

    fn fail(&mut self, at: usize, lane: &Lane, error: Error) {
        self.count(at, lane);
        (self.edge.events)(&Event::Failed(at, &error));
        self.report.targets[at].error = Some(error);
    }

    fn count(&mut self, at: usize, lane: &Lane) {
        let outcome = &mut self.report.targets[at];
        outcome.applied.add(lane.applied());
        outcome.damage.append(lane.damage());
    }
}
