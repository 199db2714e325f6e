//! `mirror-stream` as people and scripts meet it: the real program follows a volume that other
//! processes change.

mod common;

use common::program::{err, events, mallet, out, run, status, text};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a slave may take to follow; usually a twentieth of a second.
const SOON: Duration = Duration::from_secs(60);

fn done(words: &[&str]) -> Output {
    let output = run(words);
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
    output
}

fn refused(words: &[&str], code: i32, text: &str) {
    let output = run(words);
    assert_eq!(status(&output), code, "{words:?}: {}", err(&output));
    assert!(err(&output).contains(text), "{}", err(&output));
}

/// A fresh file system.
fn volume(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    done(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
    path
}

fn spec(path: &Path, pfs: u16) -> String {
    format!("{}#{pfs}", text(path))
}

/// A master with something in it, PFS 1.
fn master(folder: &Path) -> String {
    let tree = folder.join("tree");
    fs::create_dir(&tree).expect("a folder");
    for at in 0..40_u8 {
        fs::write(tree.join(format!("file-{at}")), vec![at; 3000]).expect("a file");
    }
    let master = spec(&volume(folder, "master"), 1);
    done(&["pfs-master", "-q", &master]);
    done(&["put", "-q", &master, text(&tree), "/tree"]);
    master
}

/// Bytes that differ from place to place, and from round to round.
fn noise(len: u32, round: u8) -> Vec<u8> {
    let byte = |at: u32| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ round;
    (0..len).map(byte).collect()
}

/// A running stream.
struct Stream {
    child: Child,
    events: PathBuf,
    errors: PathBuf,
}

impl Stream {
    fn start(folder: &Path, words: &[&str]) -> Stream {
        let file = |kind: &str| {
            let name = (0..).map(|at| folder.join(format!("stream-{at}.{kind}")));
            name.into_iter()
                .find(|path| !path.exists())
                .expect("a name")
        };
        let (events, errors) = (file("events"), file("errors"));
        let child = mallet()
            .args(["mirror-stream", "-v", "--json"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(File::create(&events).expect("a file"))
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("the program runs");
        Stream {
            child,
            events,
            errors,
        }
    }

    fn said(&self) -> String {
        let read = |path| fs::read_to_string(path).expect("a file");
        read(&self.events) + &read(&self.errors)
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits until `there` is.
    fn until(&mut self, what: &str, mut there: impl FnMut() -> bool) {
        let start = Instant::now();
        while !there() {
            assert!(self.is_running(), "{what}: it ended: {}", self.said());
            assert!(start.elapsed() < SOON, "no {what}: {}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it by a signal, and gives its events.
    fn stop(mut self, signal: nix::sys::signal::Signal) -> Vec<Value> {
        assert!(self.is_running(), "{}", self.said());
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it is ours");
        let ended = self.child.wait().expect("a child");
        assert_eq!(ended.code(), Some(0), "{}", self.said());
        events(&fs::read_to_string(&self.events).expect("events"), 0)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

use nix::sys::signal::Signal::{SIGINT, SIGTERM};

/// What is in a PFS, but for what mirroring does not keep.
fn listing(spec: &str, asof: &str) -> Vec<Value> {
    let wait = ["--lock-wait", "30"];
    let words = ["ls", "-R", "--json", "--sha256", "--as-of", asof, spec, "/"];
    let output = done(&[&wait[..], &words[..]].concat());
    let mut entries = events(&out(&output), 0);
    entries.retain(|event| event["type"] == "entry");
    for entry in &mut entries {
        entry.as_object_mut().expect("an object").remove("mtime_us");
    }
    entries
}

/// The TID of a PFS; `None` as long as it does not exist.
fn tid_of(spec: &str) -> Option<String> {
    let output = run(&["pfs-status", "--json", "--lock-wait", "30", spec]);
    if status(&output) != 0 {
        assert_eq!(status(&output), 2, "{}", err(&output));
        return None;
    }
    let told = events(&out(&output), 0);
    Some(told[0]["sync_end_tid"].as_str().expect("a TID").to_owned())
}

/// Waits until `slave` has `path`, and sees to it that it is what its master was as of its TID.
fn follows(stream: &mut Stream, master: &str, slave: &str, path: &str) -> String {
    let mut tid = String::new();
    stream.until(&format!("{path} in {slave}"), || {
        let Some(now) = tid_of(slave) else {
            return false;
        };
        tid = now;
        let words = ["stat", "--lock-wait", "30", "--as-of", &tid, slave, path];
        status(&run(&words)) == 0
    });
    let theirs = listing(slave, &tid);
    assert!(theirs.len() > 5, "{theirs:?}");
    assert_eq!(theirs, listing(master, &tid), "as of {tid}");
    tid
}

fn of_kind<'v>(told: &'v [Value], kind: &str) -> Vec<&'v Value> {
    told.iter().filter(|event| event["type"] == kind).collect()
}

#[test]
fn slaves_follow_a_master_that_is_written_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let master = master(folder);
    let slaves = [spec(&volume(folder, "a"), 1), spec(&volume(folder, "b"), 7)];
    let mut stream = Stream::start(folder, &["-y", &master, &slaves[0], &slaves[1]]);
    let mut tids = Vec::new();
    for slave in &slaves {
        tids.push(follows(&mut stream, &master, slave, "/tree"));
    }
    let more = folder.join("more");
    for round in 0..4_u8 {
        fs::write(&more, vec![round; 70_000]).expect("a file");
        let path = format!("/round-{round}");
        done(&["append", "-q", &master, text(&more), "/tree/file-3"]);
        done(&["rm", "-q", &master, &format!("/tree/file-1{round}")]);
        done(&["put", "-q", &master, text(&more), &path]);
        for (slave, before) in slaves.iter().zip(&mut tids) {
            let tid = follows(&mut stream, &master, slave, &path);
            assert!(tid > *before, "{tid} after {before}");
            *before = tid;
        }
    }
    // No other stream gets in meanwhile, and that is said at once.
    let start = Instant::now();
    let second = ["mirror-stream", &master, &slaves[1]];
    refused(&second, 4, "another stream into PFS 7");
    refused(&["mirror-copy", &master, &slaves[1]], 4, "another stream");
    assert!(start.elapsed() < SOON / 2);
    let told = stream.stop(SIGTERM);
    let passes = of_kind(&told, "pass");
    for (slave, tid) in slaves.iter().zip(&tids) {
        let own: Vec<_> = passes.iter().filter(|p| p["target"] == **slave).collect();
        assert!(own.len() >= 5, "{told:?}");
        let last = own.last().expect("a pass");
        assert_eq!(last["sync_end_tid"].as_str(), Some(&**tid), "{last}");
        assert_eq!(last["window"]["end"], last["sync_end_tid"], "{last}");
        assert!(
            last["ack_latency"].as_f64().expect("a time") > 0.0,
            "{last}"
        );
        // A pass of a later round has what is new, not what was there.
        assert!(
            own.iter().any(|p| p["deletes"].as_u64() > Some(0)),
            "{told:?}"
        );
        let bytes = last["bytes"].as_u64().expect("a count");
        assert!((1..400_000).contains(&bytes), "{last}");
        done(&["check", "--data", slave.split('#').next().expect("a path")]);
    }
    let summary = &told.last().expect("a summary")["targets"];
    assert_eq!(summary[1]["sync_end_tid"].as_str(), Some(&*tids[1]));
    assert_eq!(summary[1]["error"], Value::Null, "{summary}");
}

/// Nothing went wrong but what passes by itself: a view that was overtaken, and the tests' own looks
/// at the slave.
fn went_well(told: &[Value]) {
    assert!(of_kind(told, "failed").iter().all(|event| {
        let error = event["error"].as_str().expect("an error");
        error.contains("expired")
    }));
    for event in of_kind(told, "retry") {
        let error = event["error"].as_str().expect("an error");
        let passes = ["expired", "reading the volume"];
        assert!(passes.iter().any(|word| error.contains(word)), "{event}");
    }
}

/// Every TID that was acknowledged is one as of which the slave is what its master was.
fn every_state_is_right(told: &[Value], master: &str, slave: &str) -> usize {
    let passes = of_kind(told, "pass");
    for pass in &passes {
        let tid = pass["sync_end_tid"].as_str().expect("a TID");
        assert_eq!(listing(slave, tid), listing(master, tid), "{pass}");
    }
    done(&["check", "--data", slave.split('#').next().expect("a path")]);
    passes.len()
}

/// The master is open for writing all the time, and changes while it is copied.
#[test]
fn a_writer_that_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (master, slave) = (master(folder), spec(&volume(folder, "slave"), 1));
    let piece = folder.join("piece");
    fs::write(&piece, vec![7; 50_000]).expect("a file");
    let mut stream = Stream::start(folder, &["-y", &master, &slave]);
    let mut writer = mallet()
        .args(["batch", "-q", &master])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = writer.stdin.take().expect("a pipe");
    for round in 0..100_u32 {
        let file = round % 37;
        writeln!(lines, "append {} /tree/file-{file}", text(&piece)).expect("a line");
        if round % 5 == 0 {
            writeln!(
                lines,
                "mkdir /tree/{round}\nmv /tree/file-39 /tree/{round}/x"
            )
            .expect("lines");
            writeln!(lines, "sync\nmv /tree/{round}/x /tree/file-39").expect("lines");
        }
        writeln!(lines, "sync").expect("a line");
        thread::sleep(Duration::from_millis(20));
        assert!(stream.is_running(), "{}", stream.said());
    }
    writeln!(lines, "mkdir /last").expect("a line");
    writeln!(lines, "sync").expect("a line");
    // It still is open.
    stream.until("last", || {
        let tid = tid_of(&slave).expect("a slave");
        let words = [
            "stat",
            "--lock-wait",
            "30",
            "--as-of",
            &tid,
            &slave,
            "/last",
        ];
        status(&run(&words)) == 0
    });
    assert!(writer.try_wait().expect("a child").is_none());
    drop(lines);
    assert!(writer.wait().expect("a child").success());
    let told = stream.stop(SIGINT);
    went_well(&told);
    let states = every_state_is_right(&told, &master, &slave);
    println!("{states} states, {} tries", of_kind(&told, "retry").len());
    // How many depends on how busy this machine is.
    assert!(states > 3, "{states}");
}

/// One writer after the other, without a pause, does not hold the stream up: a pass of seconds comes
/// to its end meanwhile, and others after it. Neither fails because of the other.
#[test]
fn many_short_writers() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (master, slave) = (master(folder), spec(&volume(folder, "slave"), 1));
    let big = folder.join("big");
    fs::write(&big, noise(4_000_000, 0)).expect("a file");
    done(&["put", "-q", &master, text(&big), "/big"]);
    let piece = folder.join("piece");
    fs::write(&piece, vec![7; 20_000]).expect("a file");
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    let (mut stream, rounds) = thread::scope(|scope| {
        let writers = scope.spawn(|| {
            let mut rounds = 0_u32;
            while !stop.load(Ordering::Relaxed) && start.elapsed() < 2 * SOON {
                done(&["append", "-q", &master, text(&piece), "/tree/file-1"]);
                rounds += 1;
                if rounds.is_multiple_of(10) && rounds < 300 {
                    done(&[
                        "rm",
                        "-q",
                        &master,
                        &format!("/tree/file-{}", 10 + rounds / 10),
                    ]);
                }
            }
            rounds
        });
        let mut stream = Stream::start(folder, &["-y", "-b", "2m", &master, &slave]);
        let events = stream.events.clone();
        stream.until("third pass", || {
            let told = fs::read_to_string(&events).expect("events");
            told.lines()
                .filter(|line| line.contains("\"ack_latency\""))
                .count()
                >= 3
        });
        stop.store(true, Ordering::Relaxed);
        (stream, writers.join().expect("writers that do not fail"))
    });
    done(&["mkdir", "-q", &master, "/last"]);
    follows(&mut stream, &master, &slave, "/last");
    let told = stream.stop(SIGINT);
    let retries = of_kind(&told, "retry");
    let overtaken = |event: &&&Value| {
        event["error"]
            .as_str()
            .expect("an error")
            .contains("expired")
    };
    assert_eq!(retries.iter().filter(overtaken).count(), 0, "{retries:?}");
    went_well(&told);
    let states = every_state_is_right(&told, &master, &slave);
    println!("{rounds} writers, {states} states, {} tries", retries.len());
    assert!(
        rounds > 10 && states > 3,
        "{rounds} writers, {states} states"
    );
}

#[test]
fn killed_streams_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (master, slave) = (master(folder), spec(&volume(folder, "slave"), 1));
    let big = folder.join("big");
    for round in 0..4_u8 {
        fs::write(&big, noise(6_000_000, round)).expect("a file");
        let mut stream = Stream::start(folder, &["-y", "-b", "2m", &master, &slave]);
        stream.until("slave", || tid_of(&slave).is_some());
        done(&["put", "-q", &master, text(&big), &format!("/big-{round}")]);
        // In the middle of it, somewhere.
        thread::sleep(Duration::from_millis(300 + 400 * u64::from(round)));
        assert!(stream.is_running(), "{}", stream.said());
        stream.child.kill().expect("it is ours");
        stream.child.wait().expect("a child");
    }
    let mut stream = Stream::start(folder, &[&master, &slave]);
    follows(&mut stream, &master, &slave, "/big-3");
    stream.stop(SIGTERM);
    done(&["check", "--data", slave.split('#').next().expect("a path")]);
}

/// A slave is followed by another one while it is written to itself.
#[test]
fn chains() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let master = master(folder);
    let (a, b) = (spec(&volume(folder, "a"), 1), spec(&volume(folder, "b"), 2));
    let mut first = Stream::start(folder, &["-y", &master, &a]);
    follows(&mut first, &master, &a, "/tree");
    let mut second = Stream::start(folder, &["-y", &a, &b]);
    for path in ["/one", "/two", "/three"] {
        done(&["mkdir", "-q", &master, path]);
        let tid = follows(&mut second, &master, &b, path);
        assert!(Some(tid) <= tid_of(&a));
    }
    second.stop(SIGTERM);
    first.stop(SIGTERM);
}

/// Somebody who works on the slave's volume holds the stream up, and does not end it; with
/// `--retries` it does. What stands still for one slave goes on for the other.
#[test]
fn a_slave_in_use_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let master = master(folder);
    let (a, b) = (volume(folder, "a"), volume(folder, "b"));
    let held = mallet::io::lock::acquire(&a, 0, mallet::io::lock::Lock::Read, Duration::ZERO)
        .expect("nobody has it");
    let (a, b) = (spec(&a, 1), spec(&b, 1));
    refused(
        &["mirror-stream", "-y", "--retries", "3", &master, &a],
        4,
        "reading the volume",
    );
    let mut stream = Stream::start(folder, &["-y", &master, &a, &b]);
    follows(&mut stream, &master, &b, "/tree");
    let told = fs::read_to_string(&stream.events).expect("events");
    assert!(told.contains("\"retry\""), "{told}");
    drop(held);
    follows(&mut stream, &master, &a, "/tree");
    let told = stream.stop(SIGTERM);
    let summary = &told.last().expect("a summary")["targets"];
    assert!(summary[0]["retries"].as_u64() > Some(0), "{summary}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let master = master(folder);
    let other = volume(folder, "other");
    let slave = spec(&other, 1);
    let stream = |words: &[&str], code, text| {
        refused(&[&["mirror-stream"], words].concat(), code, text);
    };
    stream(&["-n", &master, "host:/slave"], 2, "another machine");
    stream(&["-n", "host:/master", &slave], 2, "another machine");
    stream(&[&master, &slave], 2, "-y makes it");
    stream(&[&master, &slave, &slave], 2, "named twice");
    let inside = format!("{}#5", master.split('#').next().expect("a path"));
    stream(&["-y", &master, &inside], 2, "in the volumes of");
    stream(&[&master, &spec(&other, 0)], 3, "no slave");
    stream(&["-y", &master, text(&folder.join("none"))], 5, "none");
    // A time limit is not a wish to stop.
    let limited = ["-y", "-t", "1", &master, &slave];
    stream(&limited, 9, "time limit");
    // A master that was restored from an older copy.
    let old = common::program::copy_to(&folder.join("master"), folder, "old", 0);
    done(&["mkdir", "-q", &master, "/later"]);
    done(&["mirror-copy", "-q", &master, &slave]);
    stream(&[&spec(&old, 1), &slave], 3, "restored");
}
