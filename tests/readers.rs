//! Readers as processes: they leave the medium untouched, keep off volumes that are written to,
//! end when they are told to and when nobody reads on.

mod common;

use common::golden::testdata;
use common::program::{copy_to, err, events, mallet, out, run_on, status, text};
use mallet::io::lock::{self, Lock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

/// What a reader must not change. The access time is the host's business.
fn state(path: &Path) -> (Vec<u8>, i64, i64, i64, u64, u32) {
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
    let mtime = facts.mtime_nsec();
    (
        hash.finalize().to_vec(),
        facts.mtime(),
        mtime,
        facts.ctime(),
        facts.blocks(),
        facts.mode(),
    )
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
        assert!(state(&image) == before, "{name} was changed");
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

/// A child whose output nobody reads yet: it writes until its pipe is full and waits there.
fn blocked(line: &str) -> Child {
    let image = testdata("skips/m.img");
    let words = line
        .split(' ')
        .map(|word| word.replace("IMG", text(&image)));
    let child = mallet()
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It sleeps in the kernel once the pipe is full: its processor time stands still.
    let mut before = (cpu(&child), Instant::now());
    loop {
        thread::sleep(Duration::from_millis(150));
        let now = cpu(&child);
        if now > 0 && now == before.0 {
            return child;
        }
        assert!(
            before.1.elapsed() < Duration::from_secs(60),
            "{line} does not settle"
        );
        before.0 = now;
    }
}

/// Processor time of a child in clock ticks; at least one once it runs our code.
fn cpu(child: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    1 + number(12) + number(13)
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

#[test]
fn a_broken_pipe_is_the_end_of_text() {
    let mut child = blocked("show IMG");
    let mut first = String::new();
    let mut pipe = BufReader::new(child.stdout.take().expect("a pipe"));
    pipe.read_line(&mut first).expect("a line");
    assert!(first.contains("node"), "{first}");
    drop(pipe);
    let output = child.wait_with_output().expect("an end");
    assert_eq!((status(&output), err(&output).as_str()), (0, ""));
    let mut child = blocked("show --json IMG");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!((status(&output), err(&output).as_str()), (0, ""));
}

#[test]
fn a_broken_pipe_spoils_a_stream() {
    let mut child = blocked("mirror-read IMG#1");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(status(&output), 11, "{}", err(&output));
    assert!(err(&output).contains("pipe"), "{}", err(&output));
}

#[test]
fn signals_end_a_reader_at_a_safe_point() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = blocked("show --json IMG");
        send(&child, signal);
        thread::sleep(Duration::from_millis(100));
        let output = child.wait_with_output().expect("an end");
        assert_eq!(status(&output), 9, "{signal}: {}", err(&output));
        // The lines so far are whole.
        let told = events(&out(&output), 9);
        assert!(told.len() > 10);
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let child = blocked("show IMG");
    send(&child, Signal::SIGINT);
    thread::sleep(Duration::from_millis(100));
    send(&child, Signal::SIGINT);
    // Nobody reads its output, and still it ends.
    let mut child = child;
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

#[test]
fn a_poke_prints_one_line() {
    let child = blocked("show -q IMG");
    send(&child, Signal::SIGUSR1);
    thread::sleep(Duration::from_millis(100));
    let output = child.wait_with_output().expect("an end");
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
        let words = line
            .split(' ')
            .map(|word| word.replace("IMG", text(&image)));
        let output = mallet().args(words).stdout(full).output().expect("it runs");
        assert!(
            matches!(status(&output), 5 | 10),
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

#[test]
fn a_closed_standard_output_is_an_error() {
    let image = testdata("mirror/pfs.img");
    let script = format!(
        "exec {} version {} >&-",
        env!("CARGO_BIN_EXE_mallet"),
        text(&image)
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    assert_ne!(status(&output), 0);
    let mut nowhere = std::io::sink();
    nowhere.write_all(&output.stderr).expect("a sink");
}
