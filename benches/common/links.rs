//! Cases of what is followed and what goes over links: a writer that commits every so often, and a
//! stand-in for ssh that counts.

use super::cases::Args;
use super::store;
use mallet::fs::change::Owner;
use mallet::fs::{import, operation};
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Runs the case called `name`.
pub fn run(name: &str, args: &Args) {
    match name {
        "writer" => writer(args),
        "relay" => relay(args),
        other => panic!("no case {other}"),
    }
}

/// Nanoseconds since 1970, the same in all processes.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a time after 1970").as_nanos() as u64
}

/// Keeps a volume open and appends to `/log` of its PFS 1 (volume, times, bytes each time). Prints the
/// TID of each transaction, and when it was durable. They are a second apart, a little more or less,
/// so that nobody's clock goes in step with it.
fn writer(args: &Args) {
    let mut store = store::open(&args.path(0), 64 << 20);
    let bytes = vec![b'x'; args.number(2) as usize];
    for n in 0..args.number(1) {
        thread::sleep(Duration::from_millis(900 + (n * 137) % 200));
        let request = import::Request {
            origin: import::Origin::Stream(Box::new(Cursor::new(bytes.clone()))),
            path: b"/log",
            keep_tail: false,
            volumes: &[],
            owner: Owner { uid: 0, gid: 0 },
            events: &mut |_, _| {},
            progress: &mut (),
        };
        let now = now_ns() / 1000;
        let done = operation::run(&mut store, 1, now, |op| import::append(op, request));
        let at = now_ns();
        let (_, done) = done.expect("a committed change");
        println!("{} {at}", done.tid.0);
    }
}

/// What a [`relay`] has seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Bytes to the other side in the time that was asked for, counted from the first one.
    pub in_time: u64,
    /// Bytes to the other side in all.
    pub there: u64,
    /// Bytes from it.
    pub back: u64,
}

/// A stand-in for ssh (`HAMMER_RSH`) in `folder`: it runs the program here whatever host it is asked
/// for, and counts what goes there in the first `seconds`. [`seen`] tells.
pub fn stand_in(folder: &Path, seconds: u64) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let own = std::env::current_exe().expect("the path of this program");
    let program = env!("CARGO_BIN_EXE_mallet");
    let text = format!(
        "#!/bin/sh\nwhile [ \"$1\" != there ]; do shift; done\nshift 2\n\
         exec '{}' --case relay '{}' {seconds} '{program}' \"$@\"\n",
        own.display(),
        folder.join("seen").display(),
    );
    let path = folder.join("rsh");
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path
}

/// What the last link through a [`stand_in`] carried.
pub fn seen(folder: &Path) -> Seen {
    let text = fs::read_to_string(folder.join("seen")).expect("what the relay has seen");
    let numbers: Vec<u64> = text
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let [in_time, there, back] = numbers[..] else {
        panic!("three numbers: {text}");
    };
    Seen {
        in_time,
        there,
        back,
    }
}

/// Runs a program (file for the counts, seconds, program, words), and hands on what it is told and
/// what it says.
fn relay(args: &Args) {
    let words = args.rest(2);
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // It says how far it is, which its status tells well enough.
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let to = child.stdin.take().expect("a pipe");
    let from = child.stdout.take().expect("a pipe");
    let back = thread::spawn(move || carry(from, io::stdout(), Duration::ZERO).1);
    let (in_time, there) = carry(io::stdin(), to, Duration::from_secs(args.number(1)));
    let back = back.join().expect("a count");
    let status = child.wait().expect("the program's end");
    fs::write(args.path(0), format!("{in_time} {there} {back}")).expect("a file for the counts");
    std::process::exit(status.code().unwrap_or(11));
}

/// Hands bytes on; gives how many in the first `time` from the first of them, and in all.
pub fn carry(mut from: impl Read, mut to: impl Write, time: Duration) -> (u64, u64) {
    let (mut in_time, mut all) = (0, 0);
    let mut began: Option<Instant> = None;
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = match from.read(&mut piece) {
            Ok(0) | Err(_) => return (in_time, all),
            Ok(len) => len,
        };
        let began = *began.get_or_insert_with(Instant::now);
        all += len as u64;
        if began.elapsed() < time {
            in_time += len as u64;
        }
        if to
            .write_all(&piece[..len])
            .and_then(|()| to.flush())
            .is_err()
        {
            return (in_time, all);
        }
    }
}
