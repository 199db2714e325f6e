//! Readers as processes: they leave the medium untouched, keep off volumes that are written to,
//! end when they are told to and when nobody reads on.

mod common;

use common::golden::testdata;
use common::program::{copy_to, err, events, mallet, out, run_on, status, text, words};
use mallet::io::lock::{self, Lock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Everything that opens a volume.
const COMMANDS: [&str; 18] = [
    "info IMG --map",
    "show IMG",
    "show-undo IMG",
    "blockmap IMG",
    "check IMG --data --mirror-tid",
    "ls -lR --sha256 IMG",
    "stat IMG /",
    "cat IMG /no-such-file",
    "get IMG / DEST",
    "history IMG /",
    "diff IMG --from 0x100000001",
    "pfs-status IMG",
    "snapls IMG",
    "mirror-read IMG",
    "mirror-plan IMG",
    "version IMG",
    "volume-list IMG",
    "--live info IMG",
];

/// What a reader must not change: contents, times (the access time is the host's business), mode.
#[derive(Debug, PartialEq, Eq)]
struct State {
    sha256: Vec<u8>,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

fn state(path: &Path) -> State {
    let mut file = File::open(path).expect("the image");
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).expect("the image") {
            0 => break,
            len => hash.update(&chunk[..len]),
        }
    }
    let facts = fs::metadata(path).expect("its metadata");
    State {
        sha256: hash.finalize().to_vec(),
        modified: (facts.mtime(), facts.mtime_nsec()),
        changed: (facts.ctime(), facts.ctime_nsec()),
        mode: facts.mode(),
    }
}

#[test]
fn readers_leave_the_image_untouched() {
    for name in ["mirror/pfs.img", "crash/crash-v7-n151-drop2151.img"] {
        let folder = tempfile::tempdir().expect("a folder");
        let dest = tempfile::tempdir().expect("a folder");
        let image = copy_to(&testdata(name), folder.path(), "img", 0);
        fs::set_permissions(&image, Permissions::from_mode(0o444)).expect("a mode");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).expect("a mode");
        let before = state(&image);
        for (index, line) in COMMANDS.iter().enumerate() {
            let place = dest.path().join(index.to_string());
            let line = line.replace("DEST", text(&place));
            let output = run_on(&line, text(&image));
            assert!(matches!(status(&output), 0 | 1), "{line}: {}", err(&output));
        }
        assert_eq!(state(&image), before, "{name} was changed");
        let names: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
        assert_eq!(names.len(), 1, "something was left beside {name}");
        // So that it can be removed.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a mode");
    }
}

#[test]
fn a_volume_that_is_written_to_is_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = copy_to(&testdata("mirror/pfs.img"), folder.path(), "img", 0);
    let writer = lock::acquire(&image, 0, Lock::Write, Duration::ZERO).expect("the lock");
    for line in ["info IMG", "mirror-read IMG", "check IMG"] {
        let output = run_on(line, text(&image));
        assert_eq!(status(&output), 4, "{line}: {}", err(&output));
        assert!(
            err(&output).contains("--lock-wait"),
            "{line}: {}",
            err(&output)
        );
        assert!(out(&output).is_empty(), "{line}");
    }
    let told = events(&out(&run_on("--json info IMG", text(&image))), 4);
    assert_eq!(told.len(), 1);
    // A live reader asks nobody.
    assert_eq!(status(&run_on("--live version IMG", text(&image))), 0);
    let start = Instant::now();
    assert_eq!(status(&run_on("--lock-wait 1 info IMG", text(&image))), 4);
    assert!(start.elapsed() >= Duration::from_secs(1));
    // Who waits long enough gets it.
    let releaser = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(writer);
    });
    assert_eq!(status(&run_on("--lock-wait 30 info IMG", text(&image))), 0);
    releaser.join().expect("the lock is released");
    // Readers do not hinder each other.
    let _reader = lock::acquire(&image, 0, Lock::Read, Duration::ZERO).expect("the lock");
    assert_eq!(status(&run_on("info IMG", text(&image))), 0);
}

/// A child whose output nobody reads any further than its first byte: it writes until its pipe is
/// full and waits there.
struct Blocked {
    child: Child,
    first: u8,
}

fn blocked(line: &str) -> Blocked {
    let image = testdata("skips/m.img");
    let mut child = mallet()
        .args(words(line, text(&image)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut first = [0];
    let pipe = child.stdout.as_mut().expect("a pipe");
    pipe.read_exact(&mut first).expect("a first byte");
    let (mut quiet, start) = (0, Instant::now());
    let mut before = activity(&child);
    while quiet < 3 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{line} does not settle"
        );
        thread::sleep(Duration::from_millis(50));
        let now = activity(&child);
        assert!(!now.starts_with('Z'), "{line} has too little to say");
        let asleep = now.starts_with('S') && now == before;
        quiet = if asleep { quiet + 1 } else { 0 };
        before = now;
    }
    Blocked {
        child,
        first: first[0],
    }
}

impl Blocked {
    /// Reads everything and waits for the end.
    fn finish(self) -> Output {
        let mut output = self.child.wait_with_output().expect("an end");
        output.stdout.insert(0, self.first);
        output
    }

    /// Closes the pipe and waits for the end.
    fn hang_up(mut self) -> Output {
        drop(self.child.stdout.take());
        self.child.wait_with_output().expect("an end")
    }
}

/// State of a child and its processor time: S for asleep, user and system time in clock ticks.
fn activity(child: &Child) -> String {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    format!("{} {} {}", field(0), field(11), field(12))
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

#[test]
fn a_broken_pipe_is_the_end_of_text() {
    for line in [
        "show IMG",
        "show --json IMG",
        "ls -lR IMG#1",
        "ls -R --json IMG#1",
    ] {
        let output = blocked(line).hang_up();
        assert_eq!((status(&output), err(&output).as_str()), (0, ""), "{line}");
    }
}

#[test]
fn a_broken_pipe_spoils_a_stream() {
    let output = blocked("mirror-read IMG#1").hang_up();
    assert_eq!(status(&output), 11, "{}", err(&output));
    assert!(err(&output).contains("reader is gone"), "{}", err(&output));
}

#[test]
fn signals_end_a_reader_at_a_safe_point() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = blocked("show --json IMG");
        send(&child.child, signal);
        thread::sleep(Duration::from_millis(100));
        let output = child.finish();
        assert_eq!(status(&output), 9, "{signal}: {}", err(&output));
        // The lines so far are whole.
        let told = events(&out(&output), 9);
        assert!(told.len() > 10);
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let Blocked { mut child, .. } = blocked("show IMG");
    send(&child, Signal::SIGINT);
    thread::sleep(Duration::from_millis(100));
    send(&child, Signal::SIGINT);
    // Nobody reads its output, and still it ends.
    let start = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it goes on");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended.code(), Some(9));
}

/// Waits for a child that is stuck, for the seconds that it may take; the child's status.
fn ends(child: &mut Child, limit: u64) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            return ended.code();
        }
        assert!(
            start.elapsed() < Duration::from_secs(limit),
            "it does not end"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_signal_ends_what_stands_still() {
    let mut reader = blocked("show IMG").child;
    let mut dump = mallet()
        .arg("mirror-dump")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Nothing tells that it waits for its input.
    thread::sleep(Duration::from_millis(500));
    let mut limited = mallet()
        .args(["mirror-dump", "-t", "0.5"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    for child in [&reader, &dump] {
        send(child, Signal::SIGTERM);
    }
    for (child, hint) in [
        (&mut reader, "again to end at once"),
        (&mut dump, "again to end at once"),
        (&mut limited, "time limit"),
    ] {
        assert_eq!(ends(child, 20), Some(9));
        let mut said = String::new();
        let pipe = child.stderr.as_mut().expect("a pipe");
        pipe.read_to_string(&mut said).expect("its words");
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn who_waits_for_a_lock_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = copy_to(&testdata("mirror/pfs.img"), folder.path(), "img", 0);
    let _writer = lock::acquire(&image, 0, Lock::Write, Duration::ZERO).expect("the lock");
    let start = Instant::now();
    let output = run_on("--lock-wait 100 -t 0.3 info IMG", text(&image));
    assert_eq!(status(&output), 9, "{}", err(&output));
    assert!(err(&output).contains("time limit"), "{}", err(&output));
    assert!(start.elapsed() < Duration::from_secs(60));
    let output = run_on("--lock-wait 0.25 info IMG", text(&image));
    assert_eq!(status(&output), 4, "{}", err(&output));
    assert!(
        err(&output).contains("busy after 0.3 s: "),
        "{}",
        err(&output)
    );
}

#[test]
fn a_poke_prints_one_line() {
    let child = blocked("show -q IMG");
    send(&child.child, Signal::SIGUSR1);
    thread::sleep(Duration::from_millis(100));
    let output = child.finish();
    assert_eq!(status(&output), 0);
    let said = err(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("show: ") && said.contains(" items"),
        "{said}"
    );
}

#[test]
fn time_runs_out() {
    let output = run_on("show -t 0 IMG", text(&testdata("mirror/pfs.img")));
    assert_eq!(status(&output), 9);
    assert!(err(&output).contains("time limit"), "{}", err(&output));
}

#[test]
fn progress_is_for_those_who_want_it() {
    let image = testdata("mirror/pfs.img");
    let said = |line: &str| err(&run_on(line, text(&image)));
    assert_eq!(said("show IMG"), "");
    assert!(said("show --progress always IMG").starts_with("show: "));
    assert_eq!(said("show --progress always -q IMG"), "");
    assert_eq!(said("show --progress never IMG"), "");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let image = testdata("mirror/pfs.img");
    for line in [
        "show IMG",
        "version IMG",
        "show --json IMG",
        "mirror-read IMG",
    ] {
        // A device that is always full.
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let output = mallet()
            .args(words(line, text(&image)))
            .stdout(full)
            .output()
            .expect("it runs");
        assert_eq!(status(&output), 10, "{line}: {}", err(&output));
        assert!(
            err(&output).starts_with("mallet: standard output: "),
            "{line}: {}",
            err(&output)
        );
        assert!(
            err(&output).contains("No space left"),
            "{line}: {}",
            err(&output)
        );
    }
}

/// Runs the program with a terminal as standard output or error; what the terminal saw, and how
/// the program ended.
fn on_terminal(line: &str, stderr: bool) -> (String, Output) {
    let image = testdata("mirror/pfs.img");
    let size = nix::pty::Winsize {
        ws_row: 25,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None).expect("a terminal");
    let mut command = mallet();
    command
        .args(words(line, text(&image)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match stderr {
        true => command.stderr(pty.slave),
        false => command.stdout(pty.slave),
    };
    let child = command.spawn().expect("the program starts");
    // Our end of the slave closes with the command, and the master's reads end with the child.
    drop(command);
    let mut seen = Vec::new();
    let mut master = File::from(pty.master);
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = master.read(&mut chunk) {
        seen.extend(&chunk[..len]);
    }
    let output = child.wait_with_output().expect("an end");
    (String::from_utf8_lossy(&seen).into_owned(), output)
}

#[test]
fn a_stream_does_not_go_to_a_terminal() {
    let (seen, output) = on_terminal("mirror-read IMG", false);
    assert_eq!(status(&output), 2, "{}", err(&output));
    assert!(err(&output).contains("terminal"), "{}", err(&output));
    assert_eq!(seen, "");
    let (seen, output) = on_terminal("version IMG", false);
    assert_eq!(status(&output), 0);
    assert!(seen.starts_with("version 7"), "{seen}");
}

#[test]
fn bars_are_for_terminals() {
    let (seen, output) = on_terminal("show --progress always IMG", true);
    assert_eq!(status(&output), 0);
    // At the end at least; a command this short need not be caught at work.
    assert!(seen.contains("show: "), "{seen:?}");
    let (seen, _) = on_terminal("show --progress always -q IMG", true);
    assert_eq!(seen, "");
    let (seen, _) = on_terminal("show IMG", true);
    assert_eq!(seen, "", "a moment needs no bar");
}
