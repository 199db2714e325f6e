//! A running `mirror-copy` killed at random moments, on files and, as root, on loop devices. Nothing
//! that it acknowledged is lost, the slave is its master as of its TID after every kill, and run
//! again it comes to the end.

mod common;

use common::build::files::{Content, Files, Object};
use common::build::{self, pattern};
use common::crash::state::pfs_digest;
use common::crash::timeline::Random;
use common::crash::trial::checked;
use common::loopdev::Loop;
use common::program::{copy_to, err, mallet, run, status, text};
use mallet::format::Tid;
use mallet::fs::pfs;
use mallet::io::{OpenOptions, open};
use mallet::store::{View, ViewOptions, VolumeSet};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Stages of the master.
const STAGES: u64 = 3;

/// The master after some stages of one history; its volume is the file `name` in `folder`.
fn master(folder: &Path, stages: u64) -> PathBuf {
    let path = folder.join(format!("master-{stages}"));
    let mut options = build::Options::new(&path, 7, 256 << 20);
    options.seed = 77;
    let mut files = Files::new(&options);
    files.pfs_master(1, "master");
    let root = Object::root(1);
    let mut random = Random(5);
    let mut made: Vec<Object> = Vec::new();
    for stage in 0..stages {
        let dir = files.mkdir(root, format!("stage-{stage}").as_bytes());
        for n in 0..300 {
            let size = match random.below(8) {
                0 => random.below(400_000),
                _ => random.below(5000),
            };
            match random.below(4) {
                0 if !made.is_empty() => {
                    let file = made[random.below(made.len() as u64) as usize];
                    files.rewrite(file, &Content::Pattern(size), stage * 1000 + n);
                }
                _ => {
                    let name = format!("file-{n}");
                    made.push(files.file(dir, name.as_bytes(), &Content::Pattern(size)));
                }
            }
        }
    }
    files.build(&options);
    path
}

fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("a device");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// The words of a copy that makes passes of about a MiB.
fn words(master: &Path, slave: &Path) -> Vec<String> {
    let words = "mirror-copy -y --json --progress never -S 1m";
    let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    words.push(format!("{}#1", text(master)));
    words.push(format!("{}#1", text(slave)));
    words
}

/// The highest TID that the events in `out` acknowledge.
fn acknowledged(out: &str) -> Tid {
    let mut highest = Tid::ZERO;
    // The last line may be cut.
    for event in out
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
    {
        if event["type"] != "acknowledged" {
            continue;
        }
        let tid = event["sync_end_tid"].as_str().expect("a TID");
        let tid = u64::from_str_radix(tid.trim_start_matches("0x"), 16);
        highest = highest.max(Tid(tid.expect("a TID in hex")));
    }
    highest
}

/// Runs a copy and kills it after `delay`; what it said, and whether it was done before.
fn killed(words: &[String], delay: Duration) -> (String, bool) {
    let mut command = mallet();
    command
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    std::thread::sleep(delay);
    // It may be gone already.
    let _ = child.kill();
    let mut out = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut out).expect("what it said");
    let mut errors = String::new();
    let stderr = child.stderr.as_mut().expect("a pipe");
    stderr.read_to_string(&mut errors).expect("what it said");
    let status = child.wait().expect("its status");
    assert!(
        status.success() || status.code().is_none(),
        "{status}: {errors}{out}"
    );
    (out, status.success())
}

/// Looks at the slave: at least `floor`, sound, its master as of its TID. Gives that TID.
fn inspect(slave: &Path, master: &Path, floor: Tid) -> Tid {
    let mut view = view(slave);
    checked(&mut view).expect("a sound slave");
    let found = pfs::load(&mut view, 1).expect("a table");
    let Some(found) = found else {
        assert_eq!(floor, Tid::ZERO, "the slave is gone");
        return Tid::ZERO;
    };
    let synced = found.data.sync_end_tid();
    assert!(synced >= floor, "acknowledged {floor}, and it has {synced}");
    if synced > Tid(1) {
        let ours = pfs_digest(&mut view, 1, synced).expect("a readable slave");
        let theirs = pfs_digest(&mut self::view(master), 1, synced).expect("a readable master");
        assert_eq!(ours, theirs, "the slave as of {synced} is not its master");
    }
    synced
}

/// Makes `slave` hold what `empty` holds.
fn reset(empty: &Path, slave: &Path) {
    let mut bytes = Vec::new();
    let mut file = File::open(empty).expect("the empty volume");
    file.read_to_end(&mut bytes).expect("its bytes");
    let mut slave = fs::OpenOptions::new().write(true).open(slave);
    let slave = slave.as_mut().expect("the slave");
    slave.write_all(&bytes).expect("room");
    slave.sync_all().expect("room");
}

/// Kills `count` copies to `slave`, which holds what `empty` holds.
fn rounds(what: &str, seed: u64, count: u64, masters: &[PathBuf], empty: &Path, slave: &Path) {
    let mut random = Random(seed);
    // How long a copy takes here.
    let start = Instant::now();
    let output = run(&words(&masters[0], slave));
    assert_eq!(status(&output), 0, "{}", err(&output));
    let mut whole = start.elapsed();
    reset(empty, slave);
    let (mut stage, mut floor, mut kills, mut ends) = (0, Tid::ZERO, 0, 0);
    for round in 0.. {
        if kills == count {
            break;
        }
        let words = words(&masters[stage], slave);
        let done = if random.below(5) == 0 {
            let output = run(&words);
            assert_eq!(
                status(&output),
                0,
                "seed {seed}, round {round}: {}",
                err(&output)
            );
            floor = floor.max(acknowledged(&common::program::out(&output)));
            true
        } else {
            let delay = whole.mul_f64(random.below(1000) as f64 / 1000.0);
            let (out, done) = killed(&words, delay);
            // About as many shall be killed as come to an end by themselves.
            whole = whole.mul_f64(if done { 0.7 } else { 1.2 });
            floor = floor.max(acknowledged(&out));
            kills += u64::from(!done);
            done
        };
        println!("seed {seed}, round {round}, stage {stage}, done {done}, as of {floor}");
        let synced = inspect(slave, &masters[STAGES as usize - 1], floor);
        if done {
            ends += 1;
            stage += 1;
            let mut master = view(&masters[stage - 1]);
            let found = pfs::load(&mut master, 1)
                .expect("a table")
                .expect("the master");
            assert_eq!(synced, found.sync_end, "seed {seed}, round {round}");
        }
        if stage == masters.len() {
            (stage, floor) = (0, Tid::ZERO);
            reset(empty, slave);
        }
    }
    let text = format!("kill, {what}: {kills} copies killed, {ends} came to an end");
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Masters, and an empty volume for a slave.
fn setup() -> (tempfile::TempDir, Vec<PathBuf>, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let masters = (1..=STAGES).map(|stages| master(folder.path(), stages));
    let masters = masters.collect();
    let empty = folder.path().join("empty");
    let options = build::Options::new(&empty, 7, 256 << 20);
    assert_ne!(pattern::uuid(options.seed, 0), pattern::uuid(77, 0));
    Files::new(&options).build(&options);
    (folder, masters, empty)
}

/// How many copies are killed: `few`, and a thousand in a soak.
fn count(few: u64) -> u64 {
    match common::soak(1) {
        1 => few,
        _ => 1000,
    }
}

#[test]
fn files() {
    let (folder, masters, empty) = setup();
    let slave = copy_to(&empty, folder.path(), "slave", 0);
    rounds("on files", 1, count(10), &masters, &empty, &slave);
}

#[test]
fn loop_devices() {
    let (folder, masters, empty) = setup();
    for (sector, few) in [(512, 5), (4096, 5)] {
        let name = format!("slave-{sector}");
        let file = copy_to(&empty, folder.path(), &name, 0);
        let Some(device) = Loop::new(&file, sector, false) else {
            return;
        };
        let what = format!("on loop devices with sectors of {sector} bytes");
        rounds(
            &what,
            sector as u64,
            count(few),
            &masters,
            &empty,
            &device.0,
        );
    }
}
