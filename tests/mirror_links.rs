//! `mirror-stream` whose source or slaves are on other machines, and `mirror-read-stream`: real
//! programs on both ends, through a stand-in for ssh.

mod common;

use common::far::{Place, ends};
use common::program::{err, status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take; usually a fraction of a second.
const SOON: Duration = Duration::from_secs(60);

/// A program that runs until it is told to end, and does not outlive the test.
struct Running {
    child: Option<Child>,
    log: std::path::PathBuf,
}

impl Running {
    fn start(place: &Place, name: &str, mut command: Command) -> Running {
        let log = place.path(name);
        let file = File::create(&log).expect("a log");
        command.stderr(file);
        let child = Some(command.spawn().expect("the program"));
        Running { child, log }
    }

    fn stream(place: &Place, name: &str, words: &[&str]) -> Running {
        let mut command = place.command(words);
        command.stdout(Stdio::null());
        Running::start(place, name, command)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    /// Asks it to end, and gives its exit status.
    fn end(mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), Signal::SIGTERM);
        ended(&mut child, &self.said())
    }

    /// Waits for its end.
    fn ended(mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        ended(&mut child, &self.said())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                eprintln!("{}", self.said());
            }
        }
    }
}

fn ended(child: &mut Child, said: &str) -> i32 {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if let Some(status) = child.try_wait().expect("its status") {
            return status.code().unwrap_or(-1);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    panic!("it does not end: {said}");
}

fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Waits until the slave shows what the master shows.
fn follows(place: &Place) {
    comes_to(place, "slave");
}

fn comes_to(place: &Place, slave: &str) {
    let start = Instant::now();
    let goal = place.listing("master", &place.tid("master"));
    while start.elapsed() < SOON {
        let spec = place.spec(slave);
        let there = place.run(&["pfs-status", "--lock-wait", "20", &spec]);
        if status(&there) == 0 {
            // A TID at most that of the newest record of the master: others are not its own.
            let tid = place.tid(slave);
            if place.listing(slave, &tid) == goal {
                assert_eq!(place.listing("master", &tid), goal);
                return;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{slave} does not come to what the master shows");
}

/// The stand-in's programs that were started from line `from` of its list on.
fn pids(place: &Place, from: usize) -> Vec<u32> {
    let list = fs::read_to_string(place.path("log.pids")).unwrap_or_default();
    let pids = list.lines().skip(from);
    pids.map(|pid| pid.parse().expect("a process")).collect()
}

#[test]
fn whichever_end_is_far() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &to]);
        follows(&place);
        for n in 2..5 {
            place.change(n);
            follows(&place);
        }
        // Between two batches the slave is anybody's: this needs its locks.
        let slave = place.spec("slave");
        place.good(&["check", "--lock-wait", "20", &slave]);
        assert_eq!(stream.end(), 0, "{from} {to}");
        let directive = if at == 0 {
            "mirror-write"
        } else {
            "mirror-read-stream"
        };
        assert!(
            place.log().contains(&format!("-2 {directive} ")),
            "{}",
            place.log()
        );
        follows(&place);
    }
}

/// A link that is lost is made anew; nobody has to be told where to go on.
#[test]
fn lost_links() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &to]);
        follows(&place);
        let mut seen = 0;
        for n in 2..5 {
            let links = pids(&place, seen);
            seen += links.len();
            for pid in links {
                signal(pid, Signal::SIGKILL);
            }
            place.change(n);
            follows(&place);
        }
        assert!(pids(&place, seen).len() + seen > 3);
        assert_eq!(stream.end(), 0, "{from} {to}");
    }
}

/// The far end does not outlive the one that called it.
#[test]
fn nobody_is_left_behind() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let mut stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &to]);
        follows(&place);
        let mut child = stream.child.take().expect("it runs");
        child.kill().expect("a signal");
        child.wait().expect("its end");
        let start = Instant::now();
        let lives = |pid: &u32| kill(Pid::from_raw(pid.cast_signed()), None).is_ok();
        while pids(&place, 0).iter().any(lives) {
            assert!(start.elapsed() < SOON, "{from} {to}: the far end lives on");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One stream at a time goes into a slave, from wherever; into two slaves, two.
#[test]
fn one_stream_for_a_slave() {
    let place = Place::new();
    let (from, to) = ends(&place, "host")[0].clone();
    let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &to]);
    follows(&place);
    let again = place.run(&["mirror-copy", &from, &to]);
    assert_eq!(status(&again), 4, "{}", err(&again));
    let near = place.run(&["mirror-copy", "--live", &from, &place.spec("slave")]);
    assert_ne!(status(&near), 0, "{}", err(&near));
    let other = place.far("host", "slave").replace("#1", "#2");
    place.good(&[
        "-y",
        "mirror-copy",
        "--lock-wait",
        "20",
        "--live",
        &from,
        &other,
    ]);
    assert_eq!(stream.end(), 0);
}

/// Slaves near and far of one stream.
#[test]
fn several_slaves() {
    let place = Place::new();
    let from = place.spec("master");
    let (near, far) = (place.spec("slave"), place.far("host", "other"));
    let path = place.path("other");
    place.good(&[
        "newfs",
        "-L",
        "other",
        "--size",
        "1g",
        "-y",
        path.to_str().expect("a path"),
    ]);
    let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &near, &far]);
    for n in 2..4 {
        place.change(n);
        follows(&place);
    }
    comes_to(&place, "other");
    assert_eq!(stream.end(), 0);
}

/// A far slave that will never fit ends its stream with the far end's status.
#[test]
fn what_cannot_pass_ends_the_stream() {
    let place = Place::new();
    place.good(&["pfs-slave", &place.spec("slave")]);
    for (from, to) in ends(&place, "host") {
        let stream = Running::stream(&place, "said", &["mirror-stream", &from, &to]);
        assert_eq!(stream.ended(), 3, "{from} {to}");
    }
    let (from, to) = ends(&place, "host")[0].clone();
    let twice = place.run(&["mirror-stream", &from, &to, &to]);
    assert_eq!(status(&twice), 2, "{}", err(&twice));
    // What may pass is tried so often.
    let before = pids(&place, 0).len();
    let (from, nowhere) = (place.spec("master"), place.far("host", "nowhere"));
    let words = ["mirror-stream", "--retries", "2", &from, &nowhere];
    let stream = Running::stream(&place, "said", &words);
    assert_eq!(stream.ended(), 5);
    assert_eq!(pids(&place, before).len(), 3, "three tries");
}

/// One-way, a stream goes on too; whoever reads it can end at any time.
#[test]
fn one_way() {
    let place = Place::new();
    let mut reader = place.command(&["mirror-read-stream", &place.spec("master")]);
    reader.stdout(Stdio::piped());
    let mut reader = Running::start(&place, "reader", reader);
    let stream = reader.child.as_mut().and_then(|child| child.stdout.take());
    let mut writer = place.command(&["-y", "mirror-write", &place.spec("slave")]);
    writer.stdin(stream.expect("a pipe")).stdout(Stdio::null());
    let writer = Running::start(&place, "writer", writer);
    follows(&place);
    for n in 2..5 {
        place.change(n);
        follows(&place);
    }
    assert_eq!(reader.end(), 0);
    assert_eq!(writer.ended(), 0, "TERM ends it");
    // Nobody reads on.
    let mut reader = place.command(&["mirror-read-stream", &place.spec("master")]);
    reader.stdout(Stdio::piped());
    let mut reader = Running::start(&place, "reader", reader);
    drop(reader.child.as_mut().and_then(|child| child.stdout.take()));
    assert_eq!(reader.ended(), 11);
}

#[test]
fn time_limits() {
    let place = Place::new();
    for (from, to) in ends(&place, "host") {
        let words = ["-y", "-t", "2", "mirror-stream", &from, &to];
        let stream = Running::stream(&place, "said", &words);
        assert_eq!(stream.ended(), 9, "{from} {to}");
        follows(&place);
        place.change(7);
    }
}

/// A slave that is lost for good is told of at once, and the stream goes on for the others.
#[test]
fn a_slave_that_does_not_fit_is_told_of() {
    for far in [false, true] {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[0].clone();
        let other = place.path("other");
        let other = other.to_str().expect("a path");
        place.good(&["newfs", "-L", "other", "--size", "1g", "-y", other]);
        // Another master's.
        place.good(&["pfs-slave", &place.spec("other")]);
        let wrong = if far {
            place.far("host", "other")
        } else {
            place.spec("other")
        };
        let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &wrong, &to]);
        follows(&place);
        let start = Instant::now();
        while !stream.said().contains("the stream goes on without") {
            assert!(start.elapsed() < SOON, "{}", stream.said());
            thread::sleep(Duration::from_millis(20));
        }
        place.change(2);
        follows(&place);
        assert_eq!(stream.end(), 3, "the status of the one that was lost");
    }
}

/// Another file in the source's place is followed: somebody restored a copy.
#[test]
fn a_source_that_is_replaced() {
    for at in [0, 1] {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let stream = Running::stream(&place, "said", &["-y", "mirror-stream", &from, &to]);
        follows(&place);
        let (new, master) = (place.path("new"), place.path("master"));
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([&master, &new])
            .status();
        assert!(copied.expect("cp").success());
        fs::rename(&new, &master).expect("another file");
        place.change(2);
        follows(&place);
        assert_eq!(stream.end(), 0);
    }
}

#[test]
fn what_the_far_end_is_told() {
    let place = Place::new();
    let (from, to) = ends(&place, "host")[1].clone();
    let words = ["-q", "-y", "mirror-stream", "-i", "60", &from, &to];
    let stream = Running::stream(&place, "said", &words);
    follows(&place);
    assert_eq!(stream.end(), 0);
    let line = format!(
        "hammer -q -y -2 -i 60 mirror-read-stream {}",
        place.spec("master")
    );
    assert!(place.log().contains(&line), "{}", place.log());
}

/// What waits for a source and is to end has ended as it should.
#[test]
fn waiting_for_a_source_ends_on_request() {
    let place = Place::new();
    let mut idle = Command::new("sleep")
        .arg("20")
        .stdout(Stdio::piped())
        .spawn()
        .expect("sleep");
    let mut words = vec!["-t", "1", "mirror-write"];
    let slave = place.spec("slave");
    words.push(&slave);
    let mut writer = place.command(&words);
    writer
        .stdin(idle.stdout.take().expect("a pipe"))
        .stdout(Stdio::null());
    let writer = Running::start(&place, "writer", writer);
    assert_eq!(writer.ended(), 9);
    let _ = idle.kill();
    let _ = idle.wait();
}

/// Nobody follows for events that nobody reads.
#[test]
fn events_that_nobody_reads() {
    let place = Place::new();
    let (from, to) = ends(&place, "host")[0].clone();
    let mut command = place.command(&["--json", "-y", "mirror-stream", &from, &to]);
    command.stdout(Stdio::piped());
    let mut stream = Running::start(&place, "said", command);
    drop(stream.child.as_mut().and_then(|child| child.stdout.take()));
    assert_eq!(stream.ended(), 11);
}
