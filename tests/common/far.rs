//! Mirroring through other programs: two volumes, and a stand-in for ssh.

use super::program::{err, events, out, status, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder with a master, a fresh file system and a stand-in for ssh.
pub struct Place {
    folder: tempfile::TempDir,
    /// The stand-in for ssh.
    pub rsh: PathBuf,
}

/// Notes what it was called with, and runs it here, if it is a program that `host` has.
const RSH: &str = r#"#!/bin/sh
echo "$@" >> "$MALLET_RSH_LOG"
echo $$ >> "$MALLET_RSH_LOG.pids"
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
    pub fn new() -> Place {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn spec(&self, name: &str) -> String {
        format!("{}#1", text(&self.path(name)))
    }

    pub fn far(&self, host: &str, name: &str) -> String {
        format!("{host}:{}", self.spec(name))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mallet"));
        command
            .args(words)
            .env("HAMMER_RSH", &self.rsh)
            .env("MALLET_RSH_LOG", self.path("log"))
            .env("MALLET_PROGRAM", env!("CARGO_BIN_EXE_mallet"))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program")
    }

    pub fn good(&self, words: &[&str]) -> Output {
        let output = self.run(words);
        assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
        output
    }

    /// Changes the master: a file more, and one changed.
    pub fn change(&self, n: u8) {
        let file = self.path("file");
        for (name, len) in [("/same", 40_000), (&*format!("/new{n}"), 300_000)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ n).collect();
            fs::write(&file, bytes).expect("a file");
            self.good(&["put", &self.spec("master"), text(&file), name]);
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn tid(&self, name: &str) -> String {
        let wait = ["--lock-wait", "20"];
        let output = self.good(&["pfs-status", "--json", wait[0], wait[1], &self.spec(name)]);
        let told = events(&out(&output), 0);
        told[0]["sync_end_tid"].as_str().expect("a TID").to_owned()
    }

    pub fn listing(&self, name: &str, tid: &str) -> Vec<Value> {
        let spec = self.spec(name);
        let mut line = vec!["ls", "-R", "--json", "--sha256", "--as-of", tid, &spec, "/"];
        line.extend(["--lock-wait", "20"]);
        let mut entries = events(&out(&self.good(&line)), 0);
        entries.retain(|event| event["type"] == "entry");
        for entry in &mut entries {
            entry.as_object_mut().expect("an object").remove("mtime_us");
        }
        entries
    }

    pub fn assert_equal(&self) {
        let tid = self.tid("slave");
        assert_eq!(tid, self.tid("master"));
        assert!(self.listing("slave", &tid).len() > 2);
        assert_eq!(self.listing("slave", &tid), self.listing("master", &tid));
    }
}

/// Source and target, of which one or both are at `host`.
pub fn ends(place: &Place, host: &str) -> [(String, String); 3] {
    let (master, slave) = (place.spec("master"), place.spec("slave"));
    let (far_master, far_slave) = (place.far(host, "master"), place.far(host, "slave"));
    [
        (master, far_slave.clone()),
        (far_master.clone(), slave),
        (far_master, far_slave),
    ]
}
