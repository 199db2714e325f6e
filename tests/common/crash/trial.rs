//! The trial of a scenario: every state that a power cut may leave is recovered in every way there
//! is, and must be one of the states that were committed.

use super::super::oracle;
use super::scenario::{
    Ack, NOW, Said, Scenario, Stage, options, readers, said_when_stable, volumes,
};
use super::state::{Digest, Plain, digest, pfs_digest, short};
use super::timeline::{Epoch, Plan, Recorder, Timeline};
use mallet::check::{self, Finding, Severity};
use mallet::format::Tid;
use mallet::fs::recover;
use mallet::io::sim::{Counts, Event, SimDisk};
use mallet::store::{Store, View, ViewOptions};
use std::collections::{HashMap, HashSet};

/// How thorough a trial is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The states of each crash.
    pub plan: Plan,
    /// The states of a crash during the recovery from a crash.
    pub again: Plan,
    /// Every how many states are crashed again during their recovery.
    pub nested: usize,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// States that a power cut left.
    pub states: usize,
    /// States that a power cut during recovery left.
    pub nested: usize,
    /// Committed states that were looked at in full.
    pub committed: usize,
    /// Flushes.
    pub flushes: usize,
    /// Acknowledgements of a slave.
    pub said: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.states += other.states;
        self.nested += other.nested;
        self.committed += other.committed;
        self.flushes += other.flushes;
        self.said += other.said;
    }
}

/// A scenario that was run.
pub struct Recorded {
    /// What happened.
    pub timeline: Timeline,
    /// What was acknowledged.
    pub acks: Vec<Ack>,
    /// TIDs that a slave acknowledged.
    pub said: Vec<Said>,
    /// What each disk was asked for.
    pub counts: Vec<Counts>,
}

/// Runs a scenario on its own disks, recorded.
pub fn record(scenario: &Scenario) -> Recorded {
    let disks: Vec<SimDisk> = scenario.start.iter().map(SimDisk::snapshot).collect();
    let recorder = Recorder::new(&disks);
    let stage = Stage::new(disks, scenario.seed, || recorder.now(), || false);
    let result = (scenario.run)(&stage);
    result.unwrap_or_else(|e| panic!("{} seed {}: {e}", scenario.name, scenario.seed));
    let (acks, said) = (stage.acks.take(), stage.said.take());
    let counts = stage.disks.iter().map(SimDisk::counts).collect();
    drop(stage);
    let timeline = recorder.finish();
    let order = timeline.events.iter();
    let order: Vec<_> = order.map(|(disk, e)| (*disk, *e == Event::Flush)).collect();
    said_when_stable(&order, &said)
        .unwrap_or_else(|e| panic!("{} seed {}: {e}", scenario.name, scenario.seed));
    Recorded {
        timeline,
        acks,
        said,
        counts,
    }
}

/// Tries all states of a scenario.
pub fn crash(scenario: &Scenario, effort: Effort) -> Tally {
    let Recorded {
        timeline,
        acks,
        said,
        ..
    } = record(scenario);
    let mut trial = Trial {
        scenario,
        effort,
        acks: &acks,
        said: &said,
        floor: Tid::ZERO,
        seen: HashMap::new(),
        checked: HashSet::new(),
        last: None,
        since_ack: 0,
        acked: 0,
        tally: Tally::default(),
    };
    timeline.epochs(|epoch| trial.epoch(epoch));
    assert_eq!(trial.acked, acks.len(), "every acknowledgement was met");
    trial.tally.said = said.len();
    trial.tally
}

struct Trial<'a> {
    scenario: &'a Scenario,
    effort: Effort,
    acks: &'a [Ack],
    said: &'a [Said],
    /// What the slave has acknowledged.
    floor: Tid,
    /// Committed states that were looked at in full, and what was acknowledged then.
    seen: HashMap<Digest, (usize, Tid)>,
    /// States that were checked.
    checked: HashSet<Digest>,
    /// The committed state of the epoch before.
    last: Option<Digest>,
    /// How often the committed state changed since the last acknowledgement.
    since_ack: usize,
    /// Acknowledgements so far.
    acked: usize,
    tally: Tally,
}

/// Undoes `disks` by the tests' own recovery; what is committed on them, and how much was undone.
pub fn undone(disks: &[SimDisk]) -> Result<(Digest, u64), String> {
    let mut images: Vec<SimDisk> = disks.iter().map(SimDisk::snapshot).collect();
    let undone = oracle::recover(&mut images).map_err(|e| format!("the oracle refuses: {e}"))?;
    let state =
        digest(&mut Plain::new(&images)).map_err(|e| format!("undone by the oracle: {e}"))?;
    Ok((state, undone.records))
}

/// What our own view of `disks` shows.
fn viewed(disks: &[SimDisk]) -> Result<Digest, String> {
    let view = readers(disks).and_then(|set| {
        let options = ViewOptions {
            cache_bytes: 1 << 20,
            ..ViewOptions::default()
        };
        View::open(set, &options)
    });
    let mut view = view.map_err(|e| format!("no view: {e}"))?;
    digest(&mut view).map_err(|e| format!("the view: {e}"))
}

/// What is committed on `disks`, as the oracle and as our own view have it.
pub fn committed(disks: &[SimDisk]) -> Result<Digest, String> {
    let (state, _) = undone(disks)?;
    let view = viewed(disks)?;
    if view != state {
        return Err(format!(
            "the view shows {}, the oracle {}",
            short(&view),
            short(&state)
        ));
    }
    Ok(state)
}

/// Opens `disks` for writing, which recovers them; the state must be `expected` then, and clean.
pub fn recovered(scenario: &Scenario, disks: &[SimDisk], expected: &Digest) -> Result<(), String> {
    let set = volumes(disks, scenario.seed).map_err(|e| format!("no volumes: {e}"))?;
    let store = Store::open(set, &options());
    let mut store = store.map_err(|e| format!("no store: {e}"))?;
    let state = digest(store.view()).map_err(|e| format!("the store: {e}"))?;
    drop(store);
    let (left, records) = undone(disks)?;
    if records != 0 && !scenario.redo {
        return Err(format!("{records} records to undo after recovery"));
    }
    for (what, state) in [("the store shows", state), ("recovery left", left)] {
        if state != *expected {
            return Err(format!("{what} {}, not {}", short(&state), short(expected)));
        }
    }
    Ok(())
}

/// Checks everything; the first error, if there is one.
pub fn checked(view: &mut View) -> Result<(), String> {
    let options = check::Options {
        data: true,
        ..check::Options::default()
    };
    let mut first = None;
    let mut findings = |finding: Finding| {
        if finding.severity == Severity::Error && first.is_none() {
            first = Some(format!("{finding:?}"));
        }
    };
    let report = check::run(view, &options, &mut findings, &mut ());
    report.map_err(|e| format!("check: {e}"))?;
    first.map_or(Ok(()), |finding| Err(format!("check: {finding}")))
}

impl Trial<'_> {
    fn fail(&self, epoch: &Epoch, what: &str, error: &str) -> ! {
        panic!(
            "{} seed {}, before event {}, {what}: {error}",
            self.scenario.name, self.scenario.seed, epoch.cut
        );
    }

    /// All states before one flush.
    fn epoch(&mut self, epoch: &Epoch) {
        self.tally.flushes += 1;
        let ends = [epoch.none(), epoch.all()].map(|end| {
            let state = committed(&epoch.image(&end));
            state.unwrap_or_else(|e| self.fail(epoch, &end.to_string(), &e))
        });
        self.order(epoch, &ends);
        for (index, survivors) in epoch.survivors(self.effort.plan).iter().enumerate() {
            let disks = epoch.image(survivors);
            let result = self.state(&disks, &ends, index);
            if let Err(error) = result {
                self.fail(epoch, &survivors.to_string(), &error);
            }
        }
        for end in ends {
            if self.seen.insert(end, (self.acked, self.floor)) != Some((self.acked, self.floor)) {
                let image = [epoch.none(), epoch.all()]
                    .into_iter()
                    .map(|end| epoch.image(&end))
                    .find(|image| committed(image).as_ref() == Ok(&end));
                let image = image.expect("one of the two");
                if let Err(error) = self.inspect(&image) {
                    self.fail(epoch, "in full", &error);
                }
            }
        }
    }

    /// The committed state changes in one order, once an operation unless that is large, and an
    /// acknowledged state is there.
    fn order(&mut self, epoch: &Epoch, ends: &[Digest; 2]) {
        let said = self.said.iter().filter(|said| said.at <= epoch.cut);
        self.floor = said.map(|said| said.tid).max().unwrap_or(Tid::ZERO);
        // What came before is what is stable now.
        if self.last.is_some_and(|last| last != ends[0]) {
            self.since_ack += 1;
        }
        while self
            .acks
            .get(self.acked)
            .is_some_and(|ack| ack.at <= epoch.cut)
        {
            let ack = &self.acks[self.acked];
            let next = self.acks.get(self.acked + 1);
            // Of several before the same flush only the last can be on the medium.
            let last = next.is_none_or(|next| next.at > epoch.cut);
            if last && ack.digest != ends[0] {
                let error = format!(
                    "acknowledged {}, but there is {}",
                    short(&ack.digest),
                    short(&ends[0])
                );
                self.fail(epoch, &format!("acknowledgement {}", self.acked), &error);
            }
            if self.since_ack > 1 && !self.scenario.large {
                let error = format!("{} states in one operation", self.since_ack);
                self.fail(epoch, &format!("acknowledgement {}", self.acked), &error);
            }
            self.acked += 1;
            self.since_ack = 0;
        }
        self.last = Some(ends[0]);
    }

    /// One state: as it is read and as it is recovered, it is one of `ends`.
    fn state(&mut self, disks: &[SimDisk], ends: &[Digest; 2], index: usize) -> Result<(), String> {
        self.tally.states += 1;
        let state = committed(disks)?;
        if !ends.contains(&state) {
            return Err(format!(
                "{} is neither {} nor {}",
                short(&state),
                short(&ends[0]),
                short(&ends[1])
            ));
        }
        let nest = (self.tally.states + index).is_multiple_of(self.effort.nested);
        if !nest {
            return recovered(self.scenario, disks, &state);
        }
        let recorder = Recorder::new(disks);
        recovered(self.scenario, disks, &state)?;
        let timeline = recorder.finish();
        let mut result = Ok(());
        timeline.epochs(|epoch| {
            for survivors in epoch.survivors(self.effort.again) {
                if result.is_ok() {
                    self.tally.nested += 1;
                    result = self.again(epoch, &survivors, &state);
                }
            }
        });
        result
    }

    /// A crash during recovery.
    fn again(
        &self,
        epoch: &Epoch,
        survivors: &super::timeline::Survivors,
        state: &Digest,
    ) -> Result<(), String> {
        let context = |e: String| format!("recovery cut before {}, {survivors}: {e}", epoch.cut);
        let disks = epoch.image(survivors);
        let found = committed(&disks).map_err(context)?;
        if found != *state {
            return Err(context(format!("{} was {}", short(&found), short(state))));
        }
        recovered(self.scenario, &disks, state).map_err(context)
    }

    /// Looks at a committed state in full: as it is, and as it is once it was opened for writing.
    fn inspect(&mut self, disks: &[SimDisk]) -> Result<(), String> {
        self.inspect_one(disks)?;
        let disks: Vec<SimDisk> = disks.iter().map(SimDisk::snapshot).collect();
        let options = recover::OpenOptions {
            store: options(),
            redo: true,
            now: NOW,
        };
        let opened = volumes(&disks, 0).and_then(|set| recover::open(set, &options));
        opened.map_err(|e| format!("opened for writing: {e}"))?;
        let (_, records) = undone(&disks)?;
        if records != 0 {
            return Err(format!("opened for writing, {records} records to undo"));
        }
        self.inspect_one(&disks)
            .map_err(|e| format!("opened for writing: {e}"))
    }

    fn inspect_one(&mut self, disks: &[SimDisk]) -> Result<(), String> {
        let set = readers(disks).map_err(|e| e.to_string())?;
        let view = View::open(set, &ViewOptions::default());
        let mut view = view.map_err(|e| e.to_string())?;
        if self.checked.insert(digest(&mut view)?) {
            self.tally.committed += 1;
            checked(&mut view)?;
        }
        for ack in &self.acks[..self.acked] {
            for (pfs, tid, expected) in &ack.views {
                let found = pfs_digest(&mut view, *pfs, *tid).map_err(|e| e.to_string())?;
                if found != *expected {
                    return Err(format!("PFS {pfs} as of {tid} has changed"));
                }
            }
        }
        match &self.scenario.inspect {
            Some(inspect) => inspect(&mut view, self.floor),
            None => Ok(()),
        }
    }
}
