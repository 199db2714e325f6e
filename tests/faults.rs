//! The N-th read, write or flush of every scenario fails, for every N: the operation says so in the
//! right class, nothing is acknowledged and nothing made stable after it, the store does nothing
//! more, and the volumes open again in a state that was committed.

mod common;

use common::crash::scenario::{Scenario, Stage, readers, said_when_stable};
use common::crash::scenarios::{self, Mirroring};
use common::crash::state::{Digest, short};
use common::crash::trial::{self, Recorded};
use mallet::error::Class;
use mallet::format::Tid;
use mallet::io::sim::{Fault, On, SimDisk, Step};
use mallet::store::{View, ViewOptions};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;

/// What a fault is tried on.
const FAULTS: [(On, Fault); 7] = [
    (On::Write, Fault::EIO),
    (On::Write, Fault::ENOSPC),
    (On::Write, Fault::Short(1536)),
    (On::Flush, Fault::EIO),
    (On::Flush, Fault::ENOSPC),
    (On::Read, Fault::EIO),
    (On::Read, Fault::Short(512)),
];

/// The states that were committed, in order.
fn states(recorded: &Recorded) -> Vec<Digest> {
    let mut states = Vec::new();
    recorded.timeline.epochs(|epoch| {
        let state = trial::committed(&epoch.image(&epoch.none())).expect("a sound state");
        if states.last() != Some(&state) {
            states.push(state);
        }
    });
    states
}

/// What the disks did while a fault was waited for.
#[derive(Default)]
struct Watch {
    /// Steps of each kind on the disk with the fault.
    seen: u64,
    /// Writes and flushes on all disks.
    order: Vec<(usize, Step)>,
    /// How many of those there were when the fault came, that one not counted.
    failed: Option<usize>,
}

fn is(step: Step, on: On) -> bool {
    match on {
        On::Any => true,
        On::Read => matches!(step, Step::Read { .. }),
        On::Write => matches!(step, Step::Write { .. }),
        On::Flush => step == Step::Flush,
    }
}

/// Lets one operation of a scenario fail. `None` if there are not that many.
fn one(
    scenario: &Scenario,
    states: &[Digest],
    on: On,
    fault: Fault,
    disk: usize,
    nth: u64,
) -> Option<()> {
    let label = format!(
        "{} seed {}, {fault:?} at {on:?} {nth} of disk {disk}",
        scenario.name, scenario.seed
    );
    let disks: Vec<SimDisk> = scenario.start.iter().map(SimDisk::snapshot).collect();
    let watch = Arc::new(Mutex::new(Watch::default()));
    for (index, each) in disks.iter().enumerate() {
        let watch = Arc::clone(&watch);
        each.set_hook(move |step, _| {
            let mut watch = watch.lock().expect("one thread");
            if index == disk && is(step, on) {
                if watch.seen == nth && watch.failed.is_none() {
                    watch.failed = Some(watch.order.len());
                }
                watch.seen += 1;
            }
            if !is(step, On::Read) {
                watch.order.push((index, step));
            }
        });
    }
    disks[disk].inject(on, nth, fault);
    let clock = || watch.lock().expect("one thread").order.len();
    let failed = || {
        let watch = watch.lock().expect("one thread");
        on != On::Read && watch.failed.is_some()
    };
    // Order of submission, so that the n-th operation is the n-th to be done.
    let stage = Stage::new(disks.clone(), scenario.seed, clock, failed);
    let result = (scenario.run)(&stage);
    let (acks, said) = (stage.acks.take(), stage.said.take());
    drop(stage);
    for disk in &disks {
        disk.clear_hook();
        disk.heal();
    }
    let watch = std::mem::take(&mut *watch.lock().expect("one thread"));
    let failed = watch.failed?;
    match (&result, on) {
        // A read ahead may fail, and be done again.
        (Ok(()), On::Read) => {}
        (Ok(()), _) => panic!("{label}: it went on"),
        (Err(error), _) => {
            let class = match fault {
                Fault::Fail(code) if code == nix::libc::ENOSPC => Class::NoSpace,
                _ => Class::Io,
            };
            assert_eq!(error.class(), class, "{label}: {error}");
        }
    }
    if on != On::Read {
        let after = &watch.order[failed + 1..];
        let stable = after.iter().position(|(_, step)| *step == Step::Flush);
        if on == On::Write {
            assert_eq!(stable, None, "{label}: flushed after a failed write");
        } else {
            let writes = after.iter().filter(|(_, step)| is(*step, On::Write));
            let writes = writes.count();
            assert_eq!(writes, 0, "{label}: written after a failed flush");
        }
        let late = acks.iter().filter(|ack| ack.at > failed).count();
        assert_eq!(late, 0, "{label}: acknowledged after it failed");
        let late = said.iter().filter(|said| said.at > failed).count();
        assert_eq!(late, 0, "{label}: UPDATE after it failed");
    }
    let order = watch.order.iter();
    let order: Vec<_> = order
        .map(|(disk, step)| (*disk, *step == Step::Flush))
        .collect();
    said_when_stable(&order, &said).unwrap_or_else(|e| panic!("{label}: {e}"));
    // What there is now is what was acknowledged, or the state after it.
    let state = trial::committed(&disks).unwrap_or_else(|e| panic!("{label}: {e}"));
    let place = |digest: &Digest| states.iter().position(|state| state == digest);
    let acked = acks.last().map_or(Some(0), |ack| place(&ack.digest));
    if let Some(acked) = acked {
        let now = place(&state);
        assert!(
            now.is_some_and(|now| now >= acked && (scenario.large || now <= acked + 1)),
            "{label}: state {} is number {now:?}, acknowledged was {acked}",
            short(&state)
        );
    }
    if let Some(inspect) = &scenario.inspect {
        let said = said.iter().map(|said| said.tid).max().unwrap_or(Tid::ZERO);
        let view = View::open(readers(&disks).expect("volumes"), &ViewOptions::default());
        let looked_at = inspect(&mut view.expect("a view"), said);
        looked_at.unwrap_or_else(|e| panic!("{label}: {e}"));
    }
    trial::recovered(scenario, &disks, &state).unwrap_or_else(|e| panic!("{label}: {e}"));
    Some(())
}

/// All faults of a scenario; of each kind about `most`, all of them where that is 0.
fn try_faults(mut scenario: Scenario, most: u64) {
    scenario.seed = 0;
    let recorded = trial::record(&scenario);
    let states = states(&recorded);
    let mut tried = 0;
    let stride = |count: u64| match most {
        0 => 1,
        most => (count / most).max(1),
    };
    for disk in 0..scenario.start.len() {
        for (on, fault) in FAULTS {
            let count = recorded.counts[disk];
            let count = match on {
                On::Read => count.reads,
                On::Flush => count.flushes,
                _ => count.writes,
            };
            let step = stride(count);
            let mut nth = tried % step;
            while one(&scenario, &states, on, fault, disk, nth).is_some() {
                tried += 1;
                nth += step;
            }
        }
    }
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "faults, {}: {tried}, over {} committed states",
        scenario.name,
        states.len()
    );
    assert!(tried > 0);
}

/// How many faults of a kind, at most; all of them in a soak.
fn most() -> u64 {
    match common::soak(1) {
        1 => 60,
        _ => 0,
    }
}

#[test]
fn records() {
    try_faults(scenarios::records(7, &[104 * MIB], 0, 6), most());
}

#[test]
fn records_of_old_versions() {
    try_faults(scenarios::records(3, &[104 * MIB], 0, 4), most());
}

#[test]
fn several_volumes() {
    try_faults(
        scenarios::records(7, &[72 * MIB, 48 * MIB], 0, 5),
        most() / 2,
    );
}

#[test]
fn file_operations() {
    try_faults(scenarios::file_operations(7, &[104 * MIB], 0, 6), most());
}

#[test]
fn mirrors() {
    let how = Mirroring {
        steps: 2,
        split: Some(64 << 10),
        dirty_bytes: 128 << 10,
        interrupt: false,
        take_back: false,
    };
    try_faults(scenarios::mirror(7, 0, how), most());
}

/// Passes that end early are gone on with, or taken back first.
#[test]
fn interrupted_mirrors() {
    for take_back in [false, true] {
        let how = Mirroring {
            steps: 2,
            split: None,
            dirty_bytes: 128 << 10,
            interrupt: true,
            take_back,
        };
        try_faults(scenarios::mirror(7, 0, how), most() / 2);
    }
}

#[test]
fn copies() {
    let how = Mirroring {
        steps: 2,
        split: None,
        dirty_bytes: 0,
        interrupt: false,
        take_back: false,
    };
    try_faults(scenarios::copies(7, 0, how), most());
}

#[test]
fn out_of_space() {
    try_faults(scenarios::out_of_space(7, 0), most() / 10);
}
