//! `mirror-copy` and `mirror-stream` over links to other programs, killed at random: this end, the other
//! end, or the link between them. After every round the slave is sound, is as of its TID what the master
//! was then, and has all that was acknowledged; left alone, a copy makes it what the master is. A stream
//! that has lost its other end comes back by itself.

mod common;

use common::companion::{Master, Over, acknowledged, equal, format, inspect};
use common::crash::timeline::Random;
use common::program::{mallet, text};
use mallet::format::Tid;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// Rounds with one pair of volumes.
const ROUNDS: u64 = 20;
/// No copy takes that long.
const LIMIT: Duration = Duration::from_secs(120);

/// A stand-in for ssh: runs the program here, and notes who is who. It ends with the program, as ssh
/// does, though somebody may still have something to say to it.
const RSH: &str = r#"#!/bin/sh
while [ "$1" != host ]; do shift; done
shift 2
end="$MALLET_PIDS/$$"
if [ -n "$MALLET_LINKED" ]; then
    mkfifo "$end.in"
    exec 3<&0
    sh -c 'echo $$ > "$0.up.link"; exec cat' "$end" <&3 >"$end.in" 3<&- &
    up=$!
    {
        sh -c 'echo $$ > "$0.far"; exec "$MALLET_PROGRAM" "$@"' "$end" "$@" <"$end.in"
        echo $? > "$end.status"
    } 3<&- | sh -c 'echo $$ > "$0.down.link"; exec cat' "$end" 3<&- || exit 255
    kill $up 2> /dev/null || exit 255
    exit "$(cat "$end.status")"
else
    echo $$ > "$end.far"
    exec "$MALLET_PROGRAM" "$@"
fi
"#;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Here,
    There,
    Link,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    here: u64,
    there: u64,
    link: u64,
    whole: u64,
    live: u64,
    acks: u64,
}

impl Tally {
    fn killed(&self) -> u64 {
        self.here + self.there + self.link
    }
}

struct Place {
    folder: tempfile::TempDir,
    seed: u64,
    random: Random,
    master: Master,
    slave: PathBuf,
    /// The highest TID that was acknowledged.
    floor: Tid,
    /// How long a copy takes.
    whole: Duration,
    tally: Tally,
}

fn volume(folder: &Path, name: &str, size: &str) -> PathBuf {
    let path = folder.join(name);
    format(&path, size);
    path
}

impl Place {
    fn new(seed: u64) -> Place {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let rsh = folder.path().join("rsh");
        fs::write(&rsh, RSH).expect("a script");
        fs::set_permissions(&rsh, fs::Permissions::from_mode(0o755)).expect("its mode");
        let master = Master::new(&volume(folder.path(), "master", "96m"), seed);
        let slave = volume(folder.path(), "slave", "4g");
        Place {
            folder,
            seed,
            random: Random(seed ^ 0xC1A5),
            master,
            slave,
            floor: Tid::ZERO,
            whole: Duration::from_millis(150),
            tally: Tally::default(),
        }
    }

    fn pids(&self) -> PathBuf {
        self.folder.path().join("pids")
    }

    fn command(&self, words: &[&str], linked: bool) -> Command {
        let mut command = mallet();
        command
            .args(words)
            .env("HAMMER_RSH", self.folder.path().join("rsh"))
            .env("MALLET_PIDS", self.pids())
            .env("MALLET_LINKED", if linked { "1" } else { "" })
            .env("MALLET_PROGRAM", env!("CARGO_BIN_EXE_mallet"))
            .stdin(Stdio::null());
        command
    }

    /// Source and target, of which one or both are elsewhere.
    fn ends(&mut self) -> (String, String) {
        let (master, slave) = (self.master.spec(), format!("{}#1", text(&self.slave)));
        let far = |spec: &str| format!("host:{spec}");
        match self.random.below(3) {
            0 => (master, far(&slave)),
            1 => (far(&master), slave),
            _ => (far(&master), far(&slave)),
        }
    }

    /// Forgets who was who.
    fn fresh_pids(&self) -> PathBuf {
        let fresh = self.pids();
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir(&fresh).expect("a folder");
        fresh
    }

    fn struck(&mut self, victim: Victim) {
        match victim {
            Victim::Nobody => self.tally.whole += 1,
            Victim::Here => self.tally.here += 1,
            Victim::There => self.tally.there += 1,
            Victim::Link => self.tally.link += 1,
        }
    }

    /// A stream beside a writer, one of whose ends is killed. It comes back by itself, if it is not the
    /// one; asked to end it does.
    fn stream(&mut self, round: u64) {
        let victim = [Victim::Here, Victim::There, Victim::Link][self.random.below(3) as usize];
        let (from, to) = self.ends();
        let words = [
            "mirror-stream",
            "-y",
            "--json",
            "--progress",
            "never",
            &from,
            &to,
        ];
        let fresh = self.fresh_pids();
        let linked = victim == Victim::Link || self.random.below(4) == 0;
        let mut command = self.command(&words, linked);
        let (events, errors) = (
            self.folder.path().join("events"),
            self.folder.path().join("errors"),
        );
        command
            .stdout(File::create(&events).expect("a file"))
            .stderr(File::create(&errors).expect("a file"));
        let delay = Duration::from_millis(self.random.below(1500));
        let what = format!(
            "seed {}, stream {round}, {victim:?}, {from} to {to}",
            self.seed
        );
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        let said = || format!("{what}: {}{}", read(&errors), read(&events));
        let acks = || acknowledged(&read(&events)).len();
        let over = AtomicBool::new(false);
        let (master, random) = (&mut self.master, &mut self.random);
        let (killed, back) = thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| master.write(&over));
            let mut stream = Running(command.spawn().expect("the program runs"));
            thread::sleep(delay);
            let killed = strike(&mut stream.0, &fresh, victim, random);
            if killed && victim == Victim::Here {
                let _ = stream.0.wait();
                return (killed, Duration::ZERO);
            }
            let (start, before) = (Instant::now(), acks());
            // One may have been on its way.
            while acks() < before + 2 {
                let ended = stream.0.try_wait().expect("a child");
                assert!(ended.is_none(), "it ended: {}", said());
                assert!(start.elapsed() < LIMIT, "it does not come back: {}", said());
                thread::sleep(Duration::from_millis(20));
            }
            let back = start.elapsed();
            let pid = Pid::from_raw(stream.0.id().try_into().expect("a pid"));
            kill(pid, Signal::SIGTERM).expect("it is ours");
            let ended = stream.0.wait().expect("a child");
            assert_eq!(ended.code(), Some(0), "{}", said());
            (killed, back)
        });
        assert!(!read(&errors).contains("panicked"), "{}", said());
        let told = acknowledged(&read(&events));
        println!(
            "{what}: killed {killed}, {} acks, back after {back:?}",
            told.len()
        );
        let floor = told.iter().copied().fold(self.floor, Tid::max);
        self.floor = floor.max(inspect(&self.slave, &self.master, floor, &told));
        self.struck(if killed { victim } else { Victim::Nobody });
        self.tally.acks += told.len() as u64;
    }

    /// One copy, in one of the directions; what came of it is right.
    fn round(&mut self, round: u64) {
        let victim = match self.random.below(10) {
            0 => Victim::Nobody,
            1..=3 => Victim::Here,
            4..=6 => Victim::There,
            _ => Victim::Link,
        };
        let (from, to) = self.ends();
        // A far source is not read beside a writer.
        let live = !from.starts_with("host:") && self.random.below(2) == 0;
        let changes = self.random.below(12);
        self.master.change(changes);
        let mut words = vec!["mirror-copy", "-y", "--json", "--progress", "never"];
        if live {
            words.push("--live");
        }
        if self.random.below(3) == 0 {
            words.extend(["-S", "100k"]);
        }
        words.extend([&*from, &*to]);
        let fresh = self.fresh_pids();
        let linked = victim == Victim::Link || self.random.below(4) == 0;
        let command = self.command(&words, linked);
        let whole = self.whole;
        let delay = whole.mul_f64(self.random.below(1000) as f64 / 800.0);
        let over = AtomicBool::new(false);
        let master = &mut self.master;
        let ended = thread::scope(|scope| {
            let _over = Over(&over);
            if live {
                scope.spawn(|| master.write(&over));
            }
            run(
                command,
                self.folder.path(),
                &fresh,
                victim,
                delay,
                &mut self.random,
            )
        });
        let what = format!("seed {}, round {round}, {victim:?}, {words:?}", self.seed);
        let Ended {
            code,
            told,
            errors,
            killed,
        } = ended;
        assert!(!errors.contains("panicked"), "{what}: {errors}");
        let acks = acknowledged(&told);
        // Beside a writer a view may be overtaken.
        let overtaken = live && code == Some(9);
        if !killed {
            assert!(
                code == Some(0) || overtaken,
                "{what}: {code:?}: {errors}{told}"
            );
        }
        self.floor = acks.iter().copied().fold(self.floor, Tid::max);
        println!(
            "{what}: {code:?}, killed {killed}, {} acks, at least {}",
            acks.len(),
            self.floor
        );
        let synced = inspect(&self.slave, &self.master, self.floor, &[]);
        self.floor = self.floor.max(synced);
        self.struck(if killed { victim } else { Victim::Nobody });
        self.tally.acks += acks.len() as u64;
        self.tally.live += u64::from(live);
        // About as many shall be killed in the middle as come to an end by themselves.
        if victim != Victim::Nobody {
            self.whole = whole.mul_f64(if killed { 1.05 } else { 0.9 });
            self.whole = self.whole.max(Duration::from_millis(20));
        }
        if code == Some(0) && !live {
            equal(&self.slave, &self.master);
        }
    }
}

/// How a copy ended.
struct Ended {
    code: Option<i32>,
    told: String,
    errors: String,
    /// Whether somebody was killed before it ended by itself.
    killed: bool,
}

fn run(
    mut command: Command,
    folder: &Path,
    pids: &Path,
    victim: Victim,
    delay: Duration,
    random: &mut Random,
) -> Ended {
    let (events, errors) = (folder.join("events"), folder.join("errors"));
    command
        .stdout(File::create(&events).expect("a file"))
        .stderr(File::create(&errors).expect("a file"));
    let mut child = command.spawn().expect("the program runs");
    let start = Instant::now();
    let mut killed = false;
    if victim != Victim::Nobody {
        thread::sleep(delay);
        if child.try_wait().expect("a child").is_none() {
            killed = strike(&mut child, pids, victim, random);
        }
    }
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status.code();
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            let said = fs::read_to_string(&errors).unwrap_or_default();
            panic!("{victim:?}: it does not end: {said}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Ended {
        code,
        told: read(&events),
        errors: read(&errors),
        killed,
    }
}

/// Kills the victim; says whether it was there.
fn strike(child: &mut Child, pids: &Path, victim: Victim, random: &mut Random) -> bool {
    let kind = match victim {
        Victim::Nobody => return false,
        Victim::Here => return child.kill().is_ok(),
        Victim::There => "far",
        Victim::Link => "link",
    };
    let mut found: Vec<PathBuf> = fs::read_dir(pids)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == kind))
        .collect();
    if found.is_empty() {
        return false;
    }
    found.sort();
    // A link is both of its directions, as it is for ssh; they have the same folder entry but for the
    // end.
    let path = &found[random.below(found.len() as u64) as usize];
    let session = path.file_name().and_then(|name| name.to_str());
    let session = session
        .and_then(|name| name.split('.').next())
        .unwrap_or_default();
    let mut struck = false;
    for path in &found {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.split('.').next() == Some(session)) {
            struck |= strike_one(path, pids);
        }
    }
    struck
}

/// Kills the process that a file names.
fn strike_one(path: &Path, pids: &Path) -> bool {
    let pid = fs::read_to_string(path).unwrap_or_default();
    let Ok(pid) = pid.trim().parse::<i32>() else {
        return false;
    };
    // It may have ended, and its number may be somebody else's.
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let ours = format!("MALLET_PIDS={}", text(pids));
    let is_ours = environ
        .split(|byte| *byte == 0)
        .any(|word| word == ours.as_bytes());
    is_ours && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}

/// A program that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All seeds of one kind, with so many rounds each.
fn all(what: &str, base: u64, rounds: u64, round: fn(&mut Place, u64)) {
    let seeds = base..base + common::soak(1);
    let mut all = Tally::default();
    for seed in seeds.clone() {
        let mut place = Place::new(seed);
        (0..rounds).for_each(|n| round(&mut place, n));
        // Left alone.
        place.master.mark();
        let (from, to) = (
            place.master.spec(),
            format!("host:{}#1", text(&place.slave)),
        );
        let output = place
            .command(&["mirror-copy", "-y", &from, &to], false)
            .output();
        let output = output.expect("the program");
        assert!(output.status.success(), "seed {seed}: {output:?}");
        equal(&place.slave, &place.master);
        let tally = place.tally;
        all.here += tally.here;
        all.there += tally.there;
        all.link += tally.link;
        all.whole += tally.whole;
        all.live += tally.live;
        all.acks += tally.acks;
    }
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "kill, {what} over links: seeds {seeds:?}, {} killed ({} this end, {} the other end, {} the \
         link), {} not, {} of all beside a writer; 0 differences, {} acknowledgements kept",
        all.killed(),
        all.here,
        all.there,
        all.link,
        all.whole,
        all.live,
        all.acks,
    );
}

#[test]
fn copies() {
    all("copies", 0, ROUNDS, Place::round);
}

#[test]
fn streams() {
    all("streams", 500, ROUNDS / 4, |place, n| {
        place.stream(n);
        place.tally.live += 1;
    });
}
