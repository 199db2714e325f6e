//! `mirror-stream`: slaves kept up to date with a source that somebody else writes to.
//!
//! The source's root header is looked at every so often; where something was committed, a live view
//! of the source is taken and a pass copies it to every slave that lacks it. Between passes nothing is
//! open and nothing locked but what keeps other streams out. What fails for a moment is tried again;
//! the slave's own record says where to go on. (Slaves of other machines: `links`.)

use super::args::MirrorStreamArgs;
use super::copy::{self as copying, Teller};
use super::ends::{Layout, Manner, opened, streams};
use super::json::hex;
use super::mirror::Wall;
use super::slave::{by_number, number};
use super::spec::Spec;
use super::views::{Watch, chance};
use super::{Context, Exit, Outcome, links, size};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::io::lock::LockGuard;
use crate::mirror::Clock;
use crate::mirror::Window;
use crate::mirror::copy::{self, Event, Origin, Report};
use crate::mirror::follow::{self, Mark};
use crate::store::Store;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After so many failures in a row people are told of what usually passes by itself.
const MANY: u32 = 10;

/// `mirror-stream`.
pub fn stream(args: &MirrorStreamArgs, cx: &Context) -> Outcome {
    if cx.global.dry_run {
        return copying::planned(&args.source, &args.targets, cx);
    }
    cx.ui.note(1, "Running");
    let outcome = links::everywhere(args, |near| together(args, near, cx), cx);
    cx.ui.manager().stopping();
    outcome
}

/// The slaves of this machine, followed together.
fn together(args: &MirrorStreamArgs, targets: &[Spec], cx: &Context) -> Outcome {
    let layout = Layout::of(&args.source, targets)?;
    if layout.source.is_some() {
        let text = format!(
            "{} is in the volumes of one of its slaves: a stream would follow its own writes; use \
             mirror-copy",
            args.source
        );
        return Err(Error::usage(text).into());
    }
    let mut slaves: Vec<Slave> = Vec::new();
    for (spec, store) in targets.iter().zip(&layout.targets) {
        let place = (*store, number(cx, spec)?);
        if slaves.iter().any(|slave| slave.place == place) {
            return Err(Error::usage(format!("{spec} is named twice")).into());
        }
        slaves.push(Slave::new(cx, spec, place)?);
    }
    let mut follower = Follower {
        cx,
        args,
        slaves,
        source: Trouble::default(),
        watch: Watch::new(cx, &args.source),
        damaged: false,
    };
    let ended = follower.run();
    follower.conclude(ended)
}

/// Failures in a row, and when to try again.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Those of the last kind.
    pub failures: u32,
    last: Option<Class>,
    /// Those of any kind that count.
    counted: u32,
    until: Option<Instant>,
}

impl Trouble {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// How long to wait before the next try.
    pub fn rest(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map_or(Duration::ZERO, left)
    }

    /// Takes notice of one more failure; `false` if it is to be the last.
    fn failed(&mut self, error: &Error, retries: Option<u32>) -> bool {
        follow::may_pass(error.class()) && self.again(error.class(), retries)
    }

    /// Takes notice of one more failure, of this class, that may pass; `false` if it is to be the last.
    pub fn again(&mut self, class: Class, retries: Option<u32>) -> bool {
        if self.last.replace(class) != Some(class) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        // A view that was overtaken is no failure of anything: what it gave stays.
        self.counted = self
            .counted
            .saturating_add(u32::from(class != Class::Expired));
        if retries.is_some_and(|retries| self.counted > retries) {
            return false;
        }
        self.wait(follow::backoff(class, self.failures, chance()));
        true
    }

    fn wait(&mut self, time: Duration) {
        self.until = Instant::now().checked_add(time);
    }
}

/// A slave, and how it stands.
struct Slave {
    /// As it was named.
    spec: Spec,
    /// By number.
    exact: Spec,
    /// Which set of volumes it is in, and its number.
    place: (usize, u16),
    /// What the source's header said before the last pass that went well.
    seen: Option<Mark>,
    trouble: Trouble,
    /// Whether a pass went well.
    began: bool,
    /// What all passes did.
    done: Done,
    /// Why it is not followed any more.
    lost: Option<Error>,
    /// Keeps other streams out.
    _stream: Vec<LockGuard>,
}

#[derive(Debug, Default)]
struct Done {
    tid: Option<Tid>,
    passes: u64,
    created: u64,
    bytes: u64,
    deleted: u64,
    retries: u64,
}

impl Slave {
    fn new(cx: &Context, spec: &Spec, place: (usize, u16)) -> Result<Slave> {
        Ok(Slave {
            spec: spec.clone(),
            _stream: streams(cx, spec, place.1)?,
            exact: by_number(spec, place.1),
            place,
            seen: None,
            trouble: Trouble::default(),
            began: false,
            done: Done::default(),
            lost: None,
        })
    }

    fn outcome(&self) -> Value {
        let done = &self.done;
        json!({
            "target": self.spec.to_string(),
            "sync_end_tid": done.tid.map(|tid| hex(tid.0)),
            "passes": done.passes,
            "created": done.created,
            "bytes": done.bytes,
            "deleted": done.deleted,
            "retries": done.retries,
            "error": self.lost.as_ref().map(ToString::to_string),
        })
    }
}

struct Follower<'a> {
    cx: &'a Context,
    args: &'a MirrorStreamArgs,
    slaves: Vec<Slave>,
    source: Trouble,
    watch: Watch<'a>,
    /// Whether something was acknowledged that could not be read in full.
    damaged: bool,
}

impl Follower<'_> {
    /// Follows the source until no slave is left, or an error: of the source, or that it is to end.
    fn run(&mut self) -> Result<()> {
        let (mut last, mut changed) = (None, Instant::now());
        while self.slaves.iter().any(|slave| slave.lost.is_none()) {
            self.cx.goes_on()?;
            let Some(mark) = self.look()? else {
                self.sleep(self.source.rest());
                continue;
            };
            if last.is_none_or(|last: Mark| last.differs(&mark)) {
                (last, changed) = (Some(mark), Instant::now());
            }
            let due: Vec<usize> = (0..self.slaves.len())
                .filter(|at| self.is_due(*at, &mark))
                .collect();
            if due.is_empty() {
                self.sleep(self.pause(&mark, changed.elapsed()));
                continue;
            }
            self.round(&due, mark, changed)?;
            // Whoever reads the events sees them now, not when a buffer is full.
            self.cx
                .flush()
                .map_err(|e| Error::io("standard output", e))?;
        }
        Ok(())
    }

    fn sleep(&self, time: Duration) {
        Wall::new(self.cx).sleep(time);
    }

    fn is_due(&self, at: usize, mark: &Mark) -> bool {
        let slave = &self.slaves[at];
        slave.lost.is_none() && lacks(slave, mark) && slave.trouble.is_over()
    }

    /// How long to wait before the next look: less if a slave is to be tried again before.
    fn pause(&self, mark: &Mark, quiet: Duration) -> Duration {
        let waiting = self.slaves.iter().filter(|slave| lacks(slave, mark));
        let next = waiting.map(|slave| slave.trouble.rest()).min();
        let pause = follow::pause(quiet);
        next.map_or(pause, |next| pause.min(next))
    }

    /// What the source's header says; `None` if that cannot be read for now. Fatal otherwise.
    fn look(&mut self) -> Result<Option<Mark>> {
        if !self.source.is_over() {
            return Ok(None);
        }
        match self.watch.look() {
            Ok(mark) => {
                self.source = Trouble::default();
                Ok(Some(mark))
            }
            Err(error) => {
                if !self.source.failed(&error, self.cx.global.retries) {
                    return Err(error);
                }
                tell(self.cx, &self.args.source, &self.source, &error);
                Ok(None)
            }
        }
    }

    /// A pass for these slaves; where they cannot be opened together, one for each, so that none
    /// holds up the others. An error is that it is to end.
    fn round(&mut self, due: &[usize], mark: Mark, noticed: Instant) -> Result<()> {
        match self.pass(due, noticed) {
            Ok(report) => self.settle(due, report, mark),
            Err(error) if error.class() == Class::Interrupted => Err(error),
            Err(_) if due.len() > 1 => {
                for at in due {
                    self.round(&[*at], mark, noticed)?;
                }
                Ok(())
            }
            Err(error) => {
                for at in due {
                    self.failed(*at, again(&error));
                }
                Ok(())
            }
        }
    }

    /// One pass. An error means that nothing was written.
    fn pass(&mut self, group: &[usize], noticed: Instant) -> Result<Report> {
        let (cx, source) = (self.cx, &self.args.source);
        let of = |spec: fn(&Slave) -> &Spec| -> Vec<Spec> {
            let slaves = group.iter().map(|at| &self.slaves[*at]);
            slaves.map(|slave| spec(slave).clone()).collect()
        };
        let (named, exact) = (of(|slave| &slave.spec), of(|slave| &slave.exact));
        let first: Vec<bool> = group.iter().map(|at| !self.slaves[*at].began).collect();
        let layout = Layout::of(source, &exact)?;
        let how = Manner {
            live: true,
            streams: false,
            // One that somebody destroyed meanwhile is not made again.
            make: cx.global.yes && first.iter().all(|first| *first),
        };
        let (mut opening, request, places) = opened(&layout, source, &exact, how, cx)?;
        // Both ends are there, and fit.
        cx.ui.manager().ready();
        // Released when the stores are closed.
        let mut locks = Vec::new();
        let mut stores: Vec<Store> = Vec::new();
        for target in opening.targets.drain(..) {
            stores.push(target.store);
            locks.push(target.locks);
        }
        let Some(source) = &mut opening.source else {
            return Err(Error::usage(format!("{source} is in its slave's volumes")));
        };
        let mut origin = Origin::Apart(&mut source.view);
        let mut meter = cx.meter("mirror-stream", "records");
        let mut told = Told::new(cx, &named, &first, noticed);
        let mut edge = copy::Edge {
            now: &mut || u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0),
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| told.tell(event),
        };
        copy::copy(&mut origin, &mut stores, &places, &request, &mut edge)
    }

    /// Takes notice of how a pass went. An error is that it is to end.
    fn settle(&mut self, group: &[usize], report: Report, mark: Mark) -> Result<()> {
        self.damaged |= copying::damage(self.cx, &report) > 0;
        for (at, target) in group.iter().zip(report.targets) {
            let done = &mut self.slaves[*at].done;
            done.tid = Some(target.tids.1);
            done.passes += target.passes;
            done.created += target.applied.created;
            done.bytes += target.applied.bytes;
            done.deleted += target.applied.deleted + target.applied.gap_deleted;
            match (target.error, &report.stopped) {
                (Some(error), _) => self.failed(*at, error),
                (None, _) if target.withheld => {
                    let text = "not everything of the source could be read";
                    self.failed(*at, Error::damage(text));
                }
                (None, Some(error)) if error.class() == Class::Interrupted => {}
                (None, Some(error)) => self.failed(*at, again(error)),
                (None, None) => {
                    let slave = &mut self.slaves[*at];
                    (slave.seen, slave.began) = (Some(mark), true);
                    slave.trouble = Trouble::default();
                    slave.trouble.wait(self.cx.global.interval);
                }
            }
        }
        match report.stopped {
            Some(error) if error.class() == Class::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// A slave failed: it is tried again, or left.
    fn failed(&mut self, at: usize, error: Error) {
        let (cx, retries) = (self.cx, self.cx.global.retries);
        let others = self.slaves.iter().filter(|s| s.lost.is_none()).count() > 1;
        let slave = &mut self.slaves[at];
        if slave.trouble.failed(&error, retries) {
            slave.done.retries += 1;
            tell(cx, &slave.spec, &slave.trouble, &error);
            return;
        }
        let error = error.context(&slave.spec);
        if others {
            cx.ui
                .warn(format_args!("{error}; the stream goes on without it"));
        }
        slave.lost = Some(error);
    }

    /// The exit status: the highest of those of the slaves that were left, if any was.
    fn conclude(self, ended: Result<()>) -> Outcome {
        let list: Vec<Value> = self.slaves.iter().map(Slave::outcome).collect();
        self.cx.events.summary(json!({"targets": list}));
        let stopped = self.cx.stop().load(Ordering::Relaxed);
        let code = |error: &Error| error.class().exit_code();
        let lost = self.slaves.into_iter().filter_map(|slave| slave.lost);
        let lost = lost.max_by_key(code);
        match (lost, ended) {
            (Some(lost), Err(error)) if code(&error) > code(&lost) && !stopped => Err(error.into()),
            (Some(lost), _) => Err(lost.into()),
            (None, Err(error)) if error.class() != Class::Interrupted || !stopped => {
                Err(error.into())
            }
            (None, _) if self.damaged => Ok(Exit::Damage),
            (None, _) => Ok(Exit::Done),
        }
    }
}

fn lacks(slave: &Slave, mark: &Mark) -> bool {
    slave.lost.is_none() && slave.seen.is_none_or(|seen| seen.differs(mark))
}

/// The same error, for another slave.
fn again(error: &Error) -> Error {
    Error::new(error.class(), error.to_string())
}

/// Says that something is tried again: with a warning once it is worth one.
pub(super) fn tell(cx: &Context, what: &Spec, trouble: &Trouble, error: &Error) {
    let (wait, failures) = (trouble.rest(), trouble.failures);
    let _ = cx.events.emit(
        "retry",
        json!({
            "what": what.to_string(),
            "error": error.to_string(),
            "failures": failures,
            "wait": wait.as_secs_f64(),
        }),
    );
    // The events of a failure are to be seen before the next try.
    let _ = cx.flush();
    let is_worth_it = match error.class() {
        Class::Busy | Class::Expired => failures == MANY,
        _ => failures == 1,
    };
    let text = format!("{what}: {error}; trying again");
    cx.ui.manager().status(&text);
    match is_worth_it {
        true => cx.ui.warn(text),
        false => {
            cx.ui.note(1, "Lost Link");
            cx.ui.note(2, text);
        }
    }
}

/// Tells people and scripts of one pass.
struct Told<'a> {
    teller: Teller<'a>,
    first: &'a [bool],
    windows: Vec<Option<Window>>,
    noticed: Instant,
}

impl<'a> Told<'a> {
    fn new(cx: &'a Context, targets: &'a [Spec], first: &'a [bool], noticed: Instant) -> Told<'a> {
        Told {
            teller: Teller { cx, targets },
            windows: vec![None; targets.len()],
            first,
            noticed,
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        let (cx, targets) = (self.teller.cx, self.teller.targets);
        match event {
            Event::Pass(at, window) => {
                self.windows[*at] = Some(*window);
                let (begin, end) = (window.begin.0, window.end.0);
                let text = format!("Mirror-read: Mirror {begin:016x} to {end:016x}");
                cx.ui.note(2, text);
            }
            Event::Standing(at, _) if !self.first[*at] => {}
            Event::Acknowledged(at, tid, applied) => {
                let (target, latency) = (&targets[*at], self.noticed.elapsed());
                let records = size::counted(applied.created, "record", "records");
                let bytes = size::human(applied.bytes);
                let text = format!("{target}: as of {tid}; {records}, {bytes}, {latency:.0?}");
                cx.ui.note(1, &text);
                cx.ui.manager().status(text);
                let window = self.windows[*at]
                    .map(|window| json!({"begin": hex(window.begin.0), "end": hex(window.end.0)}));
                let fields = json!({
                    "target": target.to_string(),
                    "window": window,
                    "sync_end_tid": hex(tid.0),
                    "records": applied.created,
                    "bytes": applied.bytes,
                    "deletes": applied.deleted + applied.gap_deleted,
                    "ack_latency": latency.as_secs_f64(),
                });
                // A reader that is gone shows when the pass is over.
                let _ = cx.events.emit("pass", fields);
            }
            other => {
                if let Event::Standing(at, tid) = other {
                    let text = format!("{}: nothing to do, as of {tid}", targets[*at]);
                    cx.ui.manager().status(text);
                }
                self.teller.tell(other);
            }
        }
    }
}
