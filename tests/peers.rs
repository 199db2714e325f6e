//! `--peer-timeout`, and ends that say they are alive: the program at one end of two pipes, this test at
//! the other, as another mallet would be there, or the original.

mod common;

use common::program::{err, mallet, run, text};
use mallet::format::mrecord::{self, Body, Capabilities, Kind};
use mallet::format::node::Base;
use mallet::format::record::PfsData;
use mallet::format::{Key, Tid};
use mallet::mirror::wire::Records;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const NONE: Capabilities = Capabilities::NONE;
const ALL: Capabilities = Capabilities::ALL;

/// A folder with a master that has more than a pipe holds, and a slave of it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            folder: tempfile::tempdir().expect("a folder"),
        };
        for name in ["master", "slave"] {
            let path = place.folder.path().join(name);
            place.good(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
        }
        let file = place.folder.path().join("file");
        let bytes: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
        fs::write(&file, bytes).expect("a file");
        place.good(&["pfs-master", &place.spec("master")]);
        place.good(&["put", &place.spec("master"), text(&file), "/file"]);
        let uuid = place.told("master").shared_uuid;
        let uuid = format!("shared-uuid={}", uuid::Uuid::from_bytes_le(uuid));
        place.good(&["pfs-slave", &place.spec("slave"), &uuid]);
        place
    }

    fn spec(&self, name: &str) -> String {
        format!("{}#1", text(&self.folder.path().join(name)))
    }

    fn good(&self, words: &[&str]) {
        let output = run(words);
        assert!(output.status.success(), "{words:?}: {}", err(&output));
    }

    /// What a stream tells of a PFS.
    fn told(&self, name: &str) -> PfsData {
        let output = run(&["mirror-read", "-B", &self.spec(name)]);
        assert!(output.status.success(), "{}", err(&output));
        match Records::new(&output.stdout[..]).next().expect("a stream") {
            Some(record) => match record.body {
                Body::Pfsd(pfsd) => pfsd.pfs,
                other => panic!("{other:?}"),
            },
            None => panic!("nothing"),
        }
    }

    /// The program at the other end, with this patience in seconds.
    fn end(&self, directive: &str, patience: u64) -> End {
        let name = match directive {
            "mirror-write" => "slave",
            _ => "master",
        };
        let patience = patience.to_string();
        let mut child = mallet()
            .args(["-2", "--peer-timeout", &patience, directive])
            .arg(self.spec(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        End {
            to: child.stdin.take(),
            from: Records::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }
}

struct End {
    child: Child,
    to: Option<ChildStdin>,
    from: Records<ChildStdout>,
}

impl End {
    fn say(&mut self, what: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        what(&mut bytes);
        let to = self.to.as_mut().expect("open");
        to.write_all(&bytes).expect("somebody listens");
    }

    fn pfsd(&mut self, pfs: &PfsData, what: Capabilities) {
        self.say(|out| mrecord::append_pfsd(out, pfs, what.0));
    }

    /// Takes a PFSD; what it announces.
    fn announced(&mut self) -> (PfsData, Capabilities) {
        loop {
            let record = self.from.next().expect("a record").expect("something");
            match record.body {
                Body::Pfsd(pfsd) => return (pfsd.pfs, Capabilities(pfsd.reserved.get())),
                Body::Alive => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Says that it is alive for so many half seconds, and nothing else. The program stays.
    fn beats(&mut self, halves: u32) {
        for _ in 0..halves {
            self.say(mrecord::append_alive);
            self.stays(500);
        }
    }

    /// The program is there after so many milliseconds.
    fn stays(&mut self, millis: u64) {
        thread::sleep(Duration::from_millis(millis));
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "it has ended: {ended:?}");
    }

    /// The program gives up within so many seconds, for the reason that it has.
    fn gives_up(mut self, within: u64) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if start.elapsed() > Duration::from_secs(within) => {
                    self.child.kill().expect("killed");
                    panic!("it is still there");
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut said = String::new();
        let mut errors = self.child.stderr.take().expect("a pipe");
        errors.read_to_string(&mut said).expect("text");
        assert_eq!(status.code(), Some(11), "{said}");
        assert!(said.contains("nothing is heard of the other end"), "{said}");
    }

    fn ends_well(mut self) {
        drop(self.to.take());
        let output = self.child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", err(&output));
    }
}

/// A source that says nothing: given up once it owes something.
#[test]
fn silent_sources() {
    let place = Place::new();
    let master = place.told("master");
    // It owes nothing before it has begun, and nothing between two batches.
    let mut end = place.end("mirror-write", 1);
    end.stays(2500);
    end.say(|out| mrecord::append_mark(out, Kind::Term));
    end.ends_well();
    // It has been told where the slave stands.
    let mut end = place.end("mirror-write", 1);
    end.pfsd(&master, NONE);
    assert_eq!(end.announced().1, NONE);
    end.gives_up(10);
    // It is within a batch, and within a record of it.
    for more in [0, 5, 15] {
        let mut end = place.end("mirror-write", 1);
        end.pfsd(&master, NONE);
        end.announced();
        end.pfsd(&master, NONE);
        end.say(|out| out.extend_from_slice(&mrecord::SIGNATURE.to_le_bytes().repeat(4)[..more]));
        end.gives_up(10);
    }
}

/// Two mallets: each hears of the other while nothing is to be said, and misses it when it is gone.
#[test]
fn sources_that_are_alive() {
    let place = Place::new();
    let master = place.told("master");
    let mut end = place.end("mirror-write", 1);
    end.pfsd(&master, ALL);
    assert_eq!(end.announced().1, ALL);
    end.beats(4);
    end.say(|out| mrecord::append_source(out, Tid(77)));
    let mut beats = 0;
    loop {
        match end.from.next().expect("a record").expect("something").body {
            Body::Alive => beats += 1,
            Body::Cursor { end, .. } => break assert!(end.is_zero(), "nothing was interrupted"),
            other => panic!("{other:?}"),
        }
    }
    end.pfsd(&master, NONE);
    // As a source that scans for long: this is more than its patience.
    end.beats(10);
    while beats < 4 {
        match end.from.next().expect("a record").expect("something").body {
            Body::Alive => beats += 1,
            other => panic!("{other:?}"),
        }
    }
    end.gives_up(15);
    // Gone before it said anything more.
    let mut end = place.end("mirror-write", 1);
    end.pfsd(&master, ALL);
    end.gives_up(15);
}

/// A target that does not answer, or takes nothing.
#[test]
fn targets() {
    let place = Place::new();
    let slave = place.told("slave");
    // It owes an answer from the first record on.
    let mut end = place.end("mirror-read", 1);
    assert_eq!(end.announced().1, ALL);
    end.gives_up(10);
    // The original's may take its time to take what is sent.
    let mut end = place.end("mirror-read", 1);
    end.announced();
    end.pfsd(&slave, NONE);
    end.stays(3500);
    finish(end);
    // Another mallet is heard all the while.
    let mut end = place.end("mirror-read", 1);
    end.announced();
    end.pfsd(&slave, Capabilities::ALIVE);
    end.beats(10);
    finish(end);
    // Until it is not.
    let mut end = place.end("mirror-read", 1);
    end.announced();
    end.pfsd(&slave, Capabilities::ALIVE);
    end.beats(2);
    end.gives_up(15);
}

/// Takes what the source says, and acknowledges it.
fn finish(mut end: End) {
    let (opened, _) = end.announced();
    let mut records = 0;
    loop {
        let record = end.from.next().expect("a record").expect("something");
        match record.body {
            Body::Alive => {}
            Body::Sync => break,
            Body::Record { .. } | Body::Pass(_) | Body::Skip { .. } => records += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(records > 30, "{records}");
    end.say(|out| mrecord::append_update(out, opened.sync_end_tid.get()));
    let record = end.from.next().expect("a record").expect("something");
    assert!(matches!(record.body, Body::Term));
    end.ends_well();
}

/// Nobody waits in silence for a program that was told to wait for ever, and nobody is given up by it.
#[test]
fn without_patience_nobody_is_given_up() {
    let place = Place::new();
    let mut child = mallet()
        .args(["-2", "mirror-read", &place.spec("master")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut end = End {
        to: child.stdin.take(),
        from: Records::new(child.stdout.take().expect("a pipe")),
        child,
    };
    end.announced();
    end.stays(1500);
    let slave = place.told("slave");
    end.pfsd(&slave, ALL);
    end.stays(1500);
    let record = end.from.next().expect("a record").expect("something");
    assert!(matches!(record.body, Body::Source(_)));
    let key = Base::from_key(Key::pfs_min(1));
    end.say(|out| mrecord::append_cursor(out, &key, Tid::ZERO));
    finish(end);
}
