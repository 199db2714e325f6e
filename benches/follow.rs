//! Following a live master: how far behind it a slave is, whether `-b` is kept, and what an append to
//! a large log sends.
//!
//! The lag is the time from the return of the writer's commit, when a change is durable on the
//! master, to the moment at which somebody who reads `mirror-stream`'s events sees the slave's
//! acknowledgement, when it is durable there too. Writer, stream and reader are processes of their
//! own; the writer commits about once a second and keeps the volume open. Volumes are files that were
//! written in full before, so that the host allocates nothing meanwhile.
//!
//! Bytes are counted where they pass: by whoever reads the pipe that `mirror-read` writes to, or by a
//! stand-in for ssh.

mod common;

use common::links::{self, Seen};
use common::measure::Spread;
use common::{Effort, host, input, report, store};
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The limit that is tried, in bytes a second.
const LIMIT: u64 = 10 << 20;
/// What one append of the writer adds, in bytes.
const APPEND: u64 = 10_000;

fn main() -> ExitCode {
    common::main("follow", whole)
}

fn whole(effort: Effort) {
    let folder = input::folder().join("follow");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    append(effort, &folder);
    report::note("");
    for way in [Way::Here, Way::Link] {
        lag(effort, &folder, &way);
        report::note("");
    }
    limit(effort, &folder);
    fs::remove_dir_all(&folder).expect("the folder goes");
}

/// The program, its words in one line; what it says goes to standard error.
fn mallet(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mallet"));
    command.args(words).stdin(Stdio::null());
    command
}

fn done(words: &[&str]) -> Vec<u8> {
    let output = mallet(words).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    output.stdout
}

/// A file system in a file of `size` bytes that was written in full, or in a sparse one.
fn volume(folder: &Path, name: &str, size: u64, full: bool) -> PathBuf {
    let path = folder.join(name);
    let text = text(&path);
    if full {
        store::full_file(&path, size);
        done(&["newfs", "-q", "-f", "-y", "-L", name, text]);
    } else {
        let _ = fs::remove_file(&path);
        let size = size.to_string();
        done(&["newfs", "-q", "-y", "-L", name, "--size", &size, text]);
    }
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn pfs(path: &Path) -> String {
    format!("{}#1", text(path))
}

/// Bytes into a file of the volume, by `put` or `append`.
fn give(command: &str, spec: &str, path: &str, len: u64) {
    let mut child = mallet(&[command, "-q", spec, "-", path])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut to = child.stdin.take().expect("a pipe");
    // No block like another.
    let mut piece = vec![0; 1 << 20];
    let (mut left, mut block) = (len, 0_u64);
    while left > 0 {
        for chunk in piece.chunks_exact_mut(16) {
            block += 1;
            let mixed = block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk[..8].copy_from_slice(&block.to_le_bytes());
            chunk[8..].copy_from_slice(&mixed.to_le_bytes());
        }
        let len = left.min(piece.len() as u64);
        io::Write::write_all(&mut to, &piece[..len as usize]).expect("the program reads");
        left -= len;
    }
    drop(to);
    assert!(child.wait().expect("the program's end").success());
}

/// The TID that a PFS ends with.
fn tid(spec: &str) -> u64 {
    let events = done(&["pfs-status", "--json", spec]);
    let event: Value =
        serde_json::from_slice(events.split(|b| *b == b'\n').next().expect("a line"))
            .expect("an event");
    number(&event["sync_end_tid"])
}

fn number(tid: &Value) -> u64 {
    let text = tid.as_str().expect("a TID").trim_start_matches("0x");
    u64::from_str_radix(text, 16).expect("a TID in hexadecimal digits")
}

fn once(value: f64) -> Spread {
    Spread::of([value])
}

/// One megabyte appended to a log of one gigabyte by one transaction: bytes of the stream.
fn append(effort: Effort, folder: &Path) {
    let size = if effort.quick { 64 << 20 } else { 1 << 30 };
    let added = 1 << 20;
    report::note(format!(
        "a log of {} MiB; 1 MiB appended by one transaction",
        size >> 20
    ));
    let path = volume(folder, "master", size + (512 << 20), false);
    let master = pfs(&path);
    done(&["pfs-master", "-q", &master]);
    // Not at the end of a block, as logs are.
    give("put", &master, "/log", size + 12_345);
    let begin = format!("0x{:016x}", tid(&master) + 1);
    give("append", &master, "/log", added);
    let mut child = mallet(&["mirror-read", "-q", &master, &begin])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let from = child.stdout.take().expect("a pipe");
    let (_, bytes) = links::carry(from, io::sink(), Duration::ZERO);
    assert!(child.wait().expect("the program's end").success());
    assert!(bytes > added, "all of it");
    report::figure("bytes on the wire", once(bytes as f64), "");
    let allowed = 1_100_000 + (64 << 10);
    report::at_most(
        "on the wire / (1.1 MB + 64 KiB)",
        once(bytes as f64 / f64::from(allowed)),
        1.0,
    );
    fs::remove_file(path).expect("the volume goes");
}

/// How the stream gets to the slave.
enum Way {
    /// Both ends are in one process.
    Here,
    /// The slave's end is a program that a stand-in for ssh starts.
    Link,
}

/// A running `mirror-stream`, and when which TID was acknowledged.
struct Stream {
    child: Child,
    passes: Receiver<Pass>,
}

/// An acknowledgement, as the reader of the events sees it.
#[derive(Clone, Copy, Debug)]
struct Pass {
    tid: u64,
    at_ns: u64,
    /// What the stream itself says, in seconds: from when it noticed that there was something, or,
    /// over a link, from when it began to send.
    latency: Option<f64>,
}

impl Stream {
    fn start(words: &[&str], rsh: &Path) -> Stream {
        let mut child = mallet(&[&["mirror-stream", "-q", "-y", "--json"], words].concat())
            .env("HAMMER_RSH", rsh)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, passes) = channel();
        thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                let at_ns = links::now_ns();
                let event: Value = serde_json::from_str(&line).expect("an event");
                let tid = match event["type"].as_str() {
                    Some("pass") => &event["sync_end_tid"],
                    Some("acknowledged") => &event["tid"],
                    _ => continue,
                };
                let pass = Pass {
                    tid: number(tid),
                    at_ns,
                    latency: event["ack_latency"].as_f64(),
                };
                if tell.send(pass).is_err() {
                    return;
                }
            }
        });
        Stream { child, passes }
    }

    /// The acknowledgements up to that of `tid`.
    fn until(&self, tid: u64) -> Vec<Pass> {
        let mut passes = Vec::new();
        while passes.last().is_none_or(|pass: &Pass| pass.tid < tid) {
            match self.passes.recv_timeout(Duration::from_secs(60)) {
                Ok(pass) => passes.push(pass),
                Err(RecvTimeoutError::Timeout) => panic!("nothing acknowledged in a minute"),
                Err(RecvTimeoutError::Disconnected) => panic!("the stream ended"),
            }
        }
        passes
    }

    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it runs");
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long after a commit of the master its slave acknowledges.
fn lag(effort: Effort, folder: &Path, way: &Way) {
    let times = if effort.quick { 5 } else { 41 };
    let files = if effort.quick { 500 } else { 5000 };
    let size = 512 << 20;
    let path = volume(folder, "master", size, true);
    let slave = volume(folder, "slave", size, true);
    let master = pfs(&path);
    done(&["pfs-master", "-q", &master]);
    let tree = folder.join("tree");
    host::Tree { files, size: 2000 }.write(&tree);
    done(&["put", "-q", &master, text(&tree), "/tree"]);
    give("put", &master, "/log", 64 << 20);
    let (what, part, target) = match way {
        Way::Here => ("both ends in one process", "noticed", pfs(&slave)),
        Way::Link => {
            let target = format!("there:{}", pfs(&slave));
            ("the slave over a link", "first byte sent", target)
        }
    };
    report::note(format!(
        "lag: {files} files and a log of 64 MiB, {APPEND} bytes appended about every second, {times} \
         times; {what}"
    ));
    let stream = Stream::start(&[&master, &target], &links::stand_in(folder, 1));
    // Whatever that is as of.
    stream.until(0);
    let own = std::env::current_exe().expect("the path of this program");
    let words = [text(&path), &times.to_string(), &APPEND.to_string()].map(str::to_owned);
    let output = Command::new(own)
        .args(["--case", "writer"])
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .expect("a writer");
    assert!(output.status.success(), "the writer failed");
    let commits: Vec<(u64, u64)> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| {
            let (tid, at) = line.split_once(' ').expect("two numbers");
            (tid.parse().expect("a TID"), at.parse().expect("a time"))
        })
        .collect();
    assert_eq!(commits.len(), times);
    let passes = stream.until(commits[times - 1].0);
    stream.stop();
    let lags = commits.iter().map(|(tid, at)| {
        let pass = passes.iter().find(|pass| pass.tid >= *tid);
        let pass = pass.expect("an acknowledgement of every commit");
        pass.at_ns.saturating_sub(*at) as f64 / 1e6
    });
    report::at_most("commit to acknowledgement, in ms", Spread::of(lags), 150.0);
    let latencies: Vec<f64> = passes.iter().filter_map(|pass| pass.latency).collect();
    if !latencies.is_empty() {
        let latencies = Spread::of(latencies.iter().map(|latency| latency * 1e3));
        report::figure(&format!("{part} to acknowledged"), latencies, "ms");
    }
    report::figure("passes", once(passes.len() as f64), "");
    for path in [path, slave] {
        fs::remove_file(path).expect("the volume goes");
    }
    fs::remove_dir_all(tree).expect("the tree goes");
}

/// Whether `-b 10m` is kept for half a minute.
fn limit(effort: Effort, folder: &Path) {
    let seconds = if effort.quick { 3 } else { 30 };
    // A little more than fits.
    let size = LIMIT * (seconds + seconds / 10 + 1);
    report::note(format!("-b 10m for {seconds} s: how far off, in per cent"));
    let path = volume(folder, "master", size + (512 << 20), false);
    let master = pfs(&path);
    done(&["pfs-master", "-q", &master]);
    give("put", &master, "/log", size);
    judge("mirror-read, at the pipe", read(&master, seconds), seconds);
    let slave = volume(folder, "slave", size + (512 << 20), false);
    let seen = sent(folder, &master, &slave, seconds);
    judge(
        "mirror-copy over a link, at the link",
        seen.in_time,
        seconds,
    );
    let slave = volume(folder, "slave", size + (512 << 20), false);
    let (bytes, took) = copied(&master, &slave);
    // All of it, by the clock of the whole program.
    let in_time = bytes as f64 * seconds as f64 / took;
    judge("mirror-copy on this machine", in_time as u64, seconds);
    for path in [path, slave] {
        fs::remove_file(path).expect("the volume goes");
    }
}

fn judge(what: &str, bytes: u64, seconds: u64) {
    let wanted = (LIMIT * seconds) as f64;
    let off = (bytes as f64 / wanted - 1.0) * 100.0;
    report::figure(
        &format!("{what}: bytes / allowed"),
        once(off / 100.0 + 1.0),
        "",
    );
    report::at_most(&format!("{what}: off by, in %"), once(off.abs()), 2.0);
}

/// Bytes that `mirror-read -b 10m` writes to a pipe in this time.
fn read(master: &str, seconds: u64) -> u64 {
    let mut child = mallet(&["mirror-read", "-q", "-b", "10m", master])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let from = child.stdout.take().expect("a pipe");
    let (in_time, all) = links::carry(from, io::sink(), Duration::from_secs(seconds));
    assert!(child.wait().expect("the program's end").success());
    assert!(all > LIMIT * seconds, "it took longer");
    in_time
}

/// Bytes that `mirror-copy -b 10m` sends over a link.
fn sent(folder: &Path, master: &str, slave: &Path, seconds: u64) -> Seen {
    let there = format!("there:{}", pfs(slave));
    let status = mallet(&["mirror-copy", "-q", "-y", "-b", "10m", master, &there])
        .env("HAMMER_RSH", links::stand_in(folder, seconds))
        .status()
        .expect("the program");
    assert!(status.success(), "{status}");
    let seen = links::seen(folder);
    assert!(seen.there > LIMIT * seconds, "it took longer: {seen:?}");
    seen
}

/// Bytes that `mirror-copy -b 10m` on this machine moves, counted as those of the stream that they
/// would be, and seconds it takes.
fn copied(master: &str, slave: &Path) -> (u64, f64) {
    let plan = done(&["mirror-plan", "--json", master]);
    let plan = String::from_utf8(plan).expect("text");
    let plan: Value = serde_json::from_str(plan.lines().next().expect("a plan")).expect("an event");
    let start = Instant::now();
    done(&["mirror-copy", "-q", "-y", "-b", "10m", master, &pfs(slave)]);
    let took = start.elapsed().as_secs_f64();
    (plan["stream_bytes"].as_u64().expect("a count"), took)
}
