//! `mirror-stream` as a service: what a service manager is told, and the unit files.

mod common;

use common::far::{Place, ends};
use common::program::{err, mallet, run, status, text};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);

fn done(words: &[&str]) {
    let output = run(words);
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
}

fn volume(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    done(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
    format!("{}#1", text(&path))
}

/// A stream under a manager that listens.
struct Service {
    child: Child,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Service {
    fn start(folder: &Path, words: &[&str], watchdog: Duration) -> Service {
        let mut command = mallet();
        command
            .arg("mirror-stream")
            .args(words)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Service::of(folder, command)
    }

    fn of(folder: &Path, mut command: Command) -> Service {
        let name = folder.join("notify");
        let _ = fs::remove_file(&name);
        let socket = UnixDatagram::bind(&name).expect("a socket");
        let wait = Some(Duration::from_millis(50));
        socket.set_read_timeout(wait).expect("a timeout");
        let child = command
            .env("NOTIFY_SOCKET", &name)
            .spawn()
            .expect("the program runs");
        Service {
            child,
            socket,
            heard: Vec::new(),
        }
    }

    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut bytes) {
            let text = std::str::from_utf8(&bytes[..len]).expect("text");
            self.heard.push(text.to_owned());
        }
    }

    /// Waits for a message that begins so, behind those that were asked for before, and takes all up
    /// to it.
    fn hears(&mut self, start: &str) -> String {
        let begin = Instant::now();
        loop {
            self.listen();
            if let Some(at) = self.heard.iter().position(|text| text.starts_with(start)) {
                return self.heard.drain(..=at).next_back().expect("it is there");
            }
            assert!(begin.elapsed() < SOON, "no {start}: {:?}", self.heard);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_manager_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (master, slave) = (volume(folder, "master"), volume(folder, "slave"));
    done(&["pfs-master", "-q", &master]);
    done(&["mkdir", "-q", &master, "/one"]);
    // As long as the slave is in use, nothing has begun.
    let image = PathBuf::from(slave.trim_end_matches("#1"));
    let read = mallet::io::lock::Lock::Read;
    let held = mallet::io::lock::acquire(&image, 0, read, Duration::ZERO).expect("nobody has it");
    let watchdog = Duration::from_millis(200);
    let mut service = Service::start(folder, &["-q", "-y", &master, &slave], watchdog);
    // Signs of life come all the time, at least twice in the time of the watchdog.
    service.hears("WATCHDOG=1");
    let failed = service.hears("STATUS=");
    assert!(failed.contains("trying again"), "{failed}");
    let since = Instant::now();
    (0..4).for_each(|_| drop(service.hears("WATCHDOG=1")));
    assert!(since.elapsed() < 20 * watchdog);
    service.listen();
    assert!(!service.heard.iter().any(|text| text == "READY=1"));
    drop(held);
    service.hears("READY=1");
    let pass = service.hears(&format!("STATUS={slave}: as of 0x"));
    assert!(pass.contains("record"), "{pass}");
    done(&["mkdir", "-q", &master, "/two"]);
    let next = service.hears(&format!("STATUS={slave}: as of 0x"));
    assert!(next != pass, "{next}");
    service.hears("WATCHDOG=1");
    let pid = nix::unistd::Pid::from_raw(service.child.id().try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it is ours");
    service.hears("STOPPING=1");
    assert!(service.child.wait().expect("its end").success());
    // Ready once, however many passes there were.
    service.listen();
    assert!(!service.heard.iter().any(|text| text == "READY=1"));
}

/// Wherever the ends are, a manager hears that it has begun; and unless both are elsewhere, it and
/// whoever reads the events hear of every acknowledgement when it comes.
#[test]
fn links_tell_as_much() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let mut command = place.command(&["mirror-stream", "-q", "-y", "--json", &from, &to]);
        let events = place.path("events");
        command.stdout(fs::File::create(&events).expect("a file"));
        let folder = place.path("");
        let mut service = Service::of(&folder, command);
        service.hears("READY=1");
        if at == 2 {
            continue;
        }
        for n in 2..4 {
            let heard = service.hears(&format!("STATUS={to}: as of 0x"));
            let tid = heard.split(": as of ").nth(1).expect("a TID");
            let tid = tid.split(';').next().expect("a TID").to_owned();
            let begin = Instant::now();
            let told = loop {
                let text = fs::read_to_string(&events).expect("the events");
                let lines = text
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok());
                let told = lines.into_iter().find(|event: &Value| {
                    let acknowledged = event["type"] == "pass" || event["type"] == "acknowledged";
                    acknowledged && (event["sync_end_tid"] == *tid || event["tid"] == *tid)
                });
                if let Some(told) = told {
                    break told;
                }
                assert!(begin.elapsed() < SOON, "no {tid}: {text}");
            };
            let name = if at == 0 { "target" } else { "spec" };
            assert_eq!(told[name], *to, "{told}");
            if at == 0 {
                let bytes = told["stream_bytes"].as_u64().expect("a count");
                // Two transactions, in one pass or in two.
                assert!((40_000..800_000).contains(&bytes), "{told}");
                assert_eq!(told["window"]["end"], *tid, "{told}");
            }
            place.change(n);
        }
    }
}

/// The unit files, with the program's folder filled in.
fn units(folder: &Path) -> Vec<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let program = Path::new(env!("CARGO_BIN_EXE_mallet"));
    let bin = text(program.parent().expect("a folder"));
    let mut units = Vec::new();
    for entry in fs::read_dir(from).expect("the units") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name").to_owned();
        if name.ends_with(".service") || name.ends_with(".timer") {
            let unit = fs::read_to_string(&path).expect("a unit");
            let to = folder.join(&name);
            fs::write(&to, unit.replace("@BINDIR@", bin)).expect("a unit");
            units.push(folder.join(name.replace('@', "@office")));
        }
    }
    units
}

#[test]
fn units_are_well_formed() {
    let folder = tempfile::tempdir().expect("a folder");
    let units = units(folder.path());
    assert_eq!(units.len(), 3);
    let there = Command::new("systemd-analyze").arg("--version").output();
    if there.is_err() {
        eprintln!("units are not verified: there is no systemd-analyze");
        return;
    }
    for unit in units {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", text(&unit)])
            .output()
            .expect("it is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{unit:?}: {said}"
        );
    }
}

/// The settings of the example are options that the program has.
#[test]
fn the_example_can_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/stream.conf.example");
    let example = fs::read_to_string(path).expect("the example");
    let setting = |name: &str| {
        let line = example.lines().find_map(|line| line.strip_prefix(name));
        let words = line.and_then(|line| line.strip_prefix('=')).expect(name);
        words.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let ends = [setting("SOURCE"), setting("TARGETS")].concat();
    for command in ["mirror-stream", "mirror-copy"] {
        let words = [vec![command.to_owned()], setting("OPTIONS"), ends.clone()].concat();
        let output = run(&words);
        // The volumes are not there; everything else is right.
        assert_eq!(status(&output), 5, "{}", err(&output));
        assert!(err(&output).contains("/srv/office.img"), "{}", err(&output));
    }
}
