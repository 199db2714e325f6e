//! `mirror-copy` over a link to another program, killed at random: this end, the other end, or the
//! link between them. After every round the slave is sound, is as of its TID what the master was then,
//! and has all that was acknowledged; left alone, a copy makes it what the master is.

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

    /// One copy, in one of the directions; what came of it is right.
    fn round(&mut self, round: u64) {
        let victim = match self.random.below(10) {
            0 => Victim::Nobody,
            1..=3 => Victim::Here,
            4..=6 => Victim::There,
            _ => Victim::Link,
        };
        let (master, slave) = (self.master.spec(), format!("{}#1", text(&self.slave)));
        let far = |spec: &str| format!("host:{spec}");
        let (from, to) = match self.random.below(3) {
            0 => (master, far(&slave)),
            1 => (far(&master), slave),
            _ => (far(&master), far(&slave)),
        };
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
        let fresh = self.pids();
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir(&fresh).expect("a folder");
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
        let before = self.floor;
        // Views of a window in between are not kept.
        let synced = inspect_if(&self.slave, &self.master, before, !words.contains(&"-S"));
        self.floor = self.floor.max(synced);
        match (killed, victim) {
            (false, _) => self.tally.whole += 1,
            (true, Victim::Here) => self.tally.here += 1,
            (true, Victim::There) => self.tally.there += 1,
            (true, _) => self.tally.link += 1,
        }
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

fn inspect_if(slave: &Path, master: &Master, floor: Tid, _whole: bool) -> Tid {
    inspect(slave, master, floor, &[])
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

#[test]
fn copies_over_links() {
    let seeds = 0..common::soak(1);
    let mut all = Tally::default();
    for seed in seeds.clone() {
        let mut place = Place::new(seed);
        for round in 0..ROUNDS {
            place.round(round);
        }
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
        let Tally {
            here,
            there,
            link,
            whole,
            live,
        } = place.tally;
        all.here += here;
        all.there += there;
        all.link += link;
        all.whole += whole;
        all.live += live;
    }
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "kill, over links: seeds {seeds:?}, {} copies killed ({} this end, {} the other end, {} the link), \
         {} not, {} of all beside a writer; 0 differences",
        all.killed(),
        all.here,
        all.there,
        all.link,
        all.whole,
        all.live,
    );
}
