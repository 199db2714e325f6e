//! Mirroring over a link to another program: `mirror-copy` whose ends are called as hammer calls
//! them, through a stand-in for ssh.

mod common;

use common::program::{err, events, out, status, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder with a master, a fresh file system and a stand-in for ssh.
struct Place {
    folder: tempfile::TempDir,
    rsh: PathBuf,
}

/// Notes what it was called with, and runs it here, if it is a program that `host` has.
const RSH: &str = r#"#!/bin/sh
echo "$@" >> "$MALLET_RSH_LOG"
while [ "$1" != host ] && [ "$1" != old ]; do shift; done
host=$1; shift
[ "$1" = -p ] && shift 2
program=$1; shift
case $host:$program in
host:hammer|old:mallet) ;;
*) echo "$program: not found" >&2; exit 127 ;;
esac
if [ -n "$MALLET_RSH_CUT" ]; then
    dd bs=1 count="$MALLET_RSH_CUT" 2> /dev/null | "$MALLET_PROGRAM" "$@"
else
    exec "$MALLET_PROGRAM" "$@"
fi
"#;

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let rsh = folder.path().join("rsh");
        fs::write(&rsh, RSH).expect("a script");
        fs::set_permissions(&rsh, fs::Permissions::from_mode(0o755)).expect("its mode");
        let place = Place { folder, rsh };
        for name in ["master", "slave"] {
            let path = place.path(name);
            let made = ["newfs", "-L", name, "--size", "1g", "-y", text(&path)];
            place.good(&made);
        }
        place.good(&["pfs-master", &place.spec("master"), "label=data"]);
        place.change(1);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, name: &str) -> String {
        format!("{}#1", text(&self.path(name)))
    }

    fn far(&self, host: &str, name: &str) -> String {
        format!("{host}:{}", self.spec(name))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mallet"));
        command
            .args(words)
            .env("HAMMER_RSH", &self.rsh)
            .env("MALLET_RSH_LOG", self.path("log"))
            .env("MALLET_PROGRAM", env!("CARGO_BIN_EXE_mallet"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program")
    }

    fn good(&self, words: &[&str]) -> Output {
        let output = self.run(words);
        assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
        output
    }

    /// Changes the master: a file more, and one changed.
    fn change(&self, n: u8) {
        let file = self.path("file");
        for (name, len) in [("/same", 40_000), (&*format!("/new{n}"), 300_000)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ n).collect();
            fs::write(&file, bytes).expect("a file");
            self.good(&["put", &self.spec("master"), text(&file), name]);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn tid(&self, name: &str) -> String {
        let output = self.good(&["pfs-status", "--json", &self.spec(name)]);
        let told = events(&out(&output), 0);
        told[0]["sync_end_tid"].as_str().expect("a TID").to_owned()
    }

    fn listing(&self, name: &str, tid: &str) -> Vec<Value> {
        let spec = self.spec(name);
        let line = ["ls", "-R", "--json", "--sha256", "--as-of", tid, &spec, "/"];
        let mut entries = events(&out(&self.good(&line)), 0);
        entries.retain(|event| event["type"] == "entry");
        for entry in &mut entries {
            entry.as_object_mut().expect("an object").remove("mtime_us");
        }
        entries
    }

    fn assert_equal(&self) {
        let tid = self.tid("slave");
        assert_eq!(tid, self.tid("master"));
        assert!(self.listing("slave", &tid).len() > 2);
        assert_eq!(self.listing("slave", &tid), self.listing("master", &tid));
    }
}

/// Source and target, of which one or both are at `host`.
fn ends(place: &Place, host: &str) -> [(String, String); 3] {
    let (master, slave) = (place.spec("master"), place.spec("slave"));
    let (far_master, far_slave) = (place.far(host, "master"), place.far(host, "slave"));
    [
        (master, far_slave.clone()),
        (far_master.clone(), slave),
        (far_master, far_slave),
    ]
}

#[test]
fn whichever_end_is_far() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        place.good(&["-y", "mirror-copy", "-p", "2222", "-X", &from, &to]);
        place.assert_equal();
        for n in 2..4 {
            place.change(n);
            place.good(&["mirror-copy", &from, &to]);
            place.assert_equal();
        }
        // Nothing to do is no error, beside a writer neither.
        place.good(&["mirror-copy", &from, &to]);
        if at == 0 {
            place.good(&["mirror-copy", "--live", &from, &to]);
        }
        let log = place.log();
        let directive = if at == 0 {
            "mirror-write"
        } else {
            "mirror-read"
        };
        let name = if at == 0 { "slave" } else { "master" };
        let spec = place.spec(name);
        let expected = format!("-C host -p 2222 hammer -y -2 {directive} {spec}");
        // Two far ends are started together, and say so in any order.
        assert!(log.lines().take(2).any(|line| line == expected), "{log}");
    }
}

/// `old` has no hammer, and `host` no mallet: each end finds the program that is there.
#[test]
fn a_host_without_hammer_may_have_mallet() {
    let place = Place::new();
    let (far_master, slave) = (place.far("host", "master"), place.far("old", "slave"));
    let (old_master, host_slave) = (place.far("old", "master"), place.far("host", "slave"));
    let mixed = [(far_master, slave), (old_master, host_slave)];
    for (n, (from, to)) in ends(&place, "old").into_iter().chain(mixed).enumerate() {
        place.good(&["-y", "mirror-copy", &from, &to]);
        place.assert_equal();
        place.change(20 + n as u8);
    }
    assert!(place.log().contains(" mallet "), "{}", place.log());
    // A name that is given is the only one tried.
    for (from, to) in ends(&place, "old") {
        let output = place.run(&["mirror-copy", "--remote-command", "hammer", &from, &to]);
        assert_eq!(status(&output), 11, "{}", err(&output));
    }
}

#[test]
fn what_the_other_end_refuses_is_the_exit_status() {
    let place = Place::new();
    // No slave, and nobody to ask.
    for (from, to) in ends(&place, "host") {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 2, "{from} {to}: {}", err(&output));
    }
    // Another master's slave.
    place.good(&["pfs-slave", &place.spec("slave")]);
    for (from, to) in ends(&place, "host") {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 3, "{from} {to}: {}", err(&output));
    }
}

#[test]
fn a_far_source_sends_no_faster_than_allowed() {
    for at in 1..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let start = std::time::Instant::now();
        // 340 000 bytes, of which a quarter of a second's may come at once.
        place.good(&["-y", "-b", "200k", "mirror-copy", &from, &to]);
        let took = start.elapsed().as_secs_f64();
        assert!(took > 1.0, "{took} s");
        place.assert_equal();
    }
}

/// A key that allows one thing: what a peer's ssh asks for is carried out, and nothing else.
#[test]
fn a_forced_command() {
    let place = Place::new();
    let allowed = place.spec("slave");
    let key = format!(
        "#!/bin/sh\n[ \"$1\" = host ] && shift\nSSH_ORIGINAL_COMMAND=\"$*\" exec \"$MALLET_PROGRAM\" \
         ssh-remote --only mirror-write --path '{allowed}'\n"
    );
    fs::write(&place.rsh, key).expect("a script");
    let (from, to) = (place.spec("master"), place.far("host", "slave"));
    place.good(&["-y", "mirror-copy", &from, &to]);
    place.assert_equal();
    for (from, to) in [
        (place.far("host", "master"), place.spec("slave")),
        (place.spec("master"), place.far("host", "master")),
    ] {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 2, "{}", err(&output));
        assert!(err(&output).contains("this key does not allow"));
    }
}

/// A link that is cut at any byte leaves a slave that shows what it acknowledged, and the next copy
/// goes on.
#[test]
fn cut_links() {
    let place = Place::new();
    let (from, to) = (place.spec("master"), place.far("host", "slave"));
    place.good(&["-y", "mirror-copy", &from, &to]);
    for (n, cut) in [1, 100, 330, 640, 5_000, 60_000, 200_000]
        .into_iter()
        .enumerate()
    {
        place.change(10 + n as u8);
        let before = place.tid("slave");
        let mut command = place.command(&["mirror-copy", &from, &to]);
        let output = command.env("MALLET_RSH_CUT", cut.to_string()).output();
        let output = output.expect("the program");
        assert_ne!(status(&output), 0, "cut at {cut}: {}", err(&output));
        assert_eq!(place.tid("slave"), before, "cut at {cut}");
        assert_eq!(
            place.listing("slave", &before),
            place.listing("master", &before)
        );
        place.good(&["mirror-copy", &from, &to]);
        place.assert_equal();
    }
}

#[test]
fn letters_that_hammer_does_not_have_are_refused() {
    let place = Place::new();
    for words in [
        ["-2", "-Z", "mirror-write", "x"],
        ["-2", "mirror-read", "--frobnicate", "x"],
    ] {
        assert_eq!(status(&place.run(&words)), 2, "{words:?}");
    }
}
