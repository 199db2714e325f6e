//! `mirror-stream` as a process of its own beside one that writes: on files past the page cache and,
//! as root, on loop devices. The master is small and nearly full, its log is written around, files
//! without history vanish. Every TID that the stream reports is one as of which the slave is what the
//! master was then.

mod common;

use common::companion::{Master, Over, acknowledged, equal, format, inspect};
use common::loopdev::Loop;
use common::program::{err, mallet, run, status, text};
use mallet::format::Tid;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// Passes that are waited for with one pair of volumes, and for how long at most.
const PASSES: usize = 40;
const LIMIT: Duration = Duration::from_secs(120);

/// What came of passes.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acknowledged: usize,
    discarded: usize,
    states: usize,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Follows a master that is written to, until so many passes were acknowledged.
fn follow(folder: &Path, seed: u64, master: &Path, slave: &Path) -> Tally {
    format(master, "");
    format(slave, "");
    let mut master = Master::new(master, seed);
    let (from, to) = (master.spec(), format!("{}#1", text(slave)));
    let (events, errors) = (folder.join("events"), folder.join("errors"));
    let words = ["mirror-stream", "-y", "--json", &from, &to];
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| master.write(&over));
        let child = mallet()
            .args(words)
            .stdin(Stdio::null())
            .stdout(File::create(&events).expect("a file"))
            .stderr(File::create(&errors).expect("a file"))
            .spawn();
        let mut stream = Killed(child.expect("the program runs"));
        let said = || {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            read(&events) + &read(&errors)
        };
        let start = Instant::now();
        while acknowledged(&fs::read_to_string(&events).expect("events")).len() < PASSES
            && start.elapsed() < LIMIT
        {
            let ended = stream.0.try_wait().expect("a child");
            assert!(ended.is_none(), "seed {seed}: it ended: {}", said());
            thread::sleep(Duration::from_millis(50));
        }
        let passes = acknowledged(&fs::read_to_string(&events).expect("events")).len();
        assert!(passes >= PASSES, "seed {seed}: {passes} passes: {}", said());
        let pid = Pid::from_raw(stream.0.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it is ours");
        let ended = stream.0.wait().expect("a child");
        assert_eq!(ended.code(), Some(0), "seed {seed}: {}", said());
    });
    let told = fs::read_to_string(&events).expect("events");
    for line in told.lines().filter(|line| line.contains("\"retry\"")) {
        assert!(line.contains("expired"), "seed {seed}: {line}");
    }
    let acks = acknowledged(&told);
    let floor = acks.iter().max().copied().unwrap_or(Tid::ZERO);
    inspect(slave, &master, floor, &acks);
    master.mark();
    let output = run(&["mirror-copy", "-q", &from, &to]);
    assert_eq!(status(&output), 0, "seed {seed}: {}", err(&output));
    equal(slave, &master);
    Tally {
        acknowledged: acks.len(),
        discarded: told.matches("\"retry\"").count(),
        states: master.journal.lock().expect("no panic").len(),
    }
}

/// All seeds of one kind of volumes.
fn rounds(what: &str, follow: impl Fn(u64) -> Option<Tally>) {
    let seeds = 0..common::soak(1);
    let mut all = Tally::default();
    for seed in seeds.clone() {
        let Some(tally) = follow(seed) else { return };
        assert!(tally.acknowledged > 0, "seed {seed}");
        all.acknowledged += tally.acknowledged;
        all.discarded += tally.discarded;
        all.states += tally.states;
    }
    let passes = all.acknowledged + all.discarded;
    let share = all.discarded as f64 * 100.0 / passes as f64;
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "live, {what}: seeds {seeds:?}, {} passes acknowledged, {} discarded ({share:.1} %), {} states \
         of the master; 0 differences",
        all.acknowledged,
        all.discarded,
        all.states
    );
}

fn volume(folder: &Path, name: &str, mib: u64) -> std::path::PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).expect("a file");
    file.set_len(mib << 20).expect("its size");
    path
}

#[test]
fn files() {
    rounds("files", |seed| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let folder = folder.path();
        let (master, slave) = (volume(folder, "master", 80), volume(folder, "slave", 4096));
        Some(follow(folder, seed, &master, &slave))
    });
}

#[test]
fn loop_devices() {
    for sector in [512, 4096] {
        rounds(&format!("loop devices of {sector}"), |seed| {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            let folder = folder.path();
            let (master, slave) = (volume(folder, "master", 80), volume(folder, "slave", 4096));
            let master = Loop::new(&master, sector, false)?;
            let slave = Loop::new(&slave, sector, false)?;
            Some(follow(folder, seed + 1000, &master.0, &slave.0))
        });
    }
}
