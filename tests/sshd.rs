//! Mirroring through the system's ssh to a real sshd on this machine: with a key that may do anything,
//! and with one whose forced command is `mallet ssh-remote`. The sshd is the test's own: on a port that
//! is free, with keys made for it, running as whoever runs the test. Skipped aloud where there is none.

mod common;

use common::companion::{Master, equal, format, seen};
use common::program::{err, mallet, status, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where programs for root are.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/libexec"];
/// What an sshd that root runs wants to exist.
const EMPTY: &str = "/run/sshd";

fn skipped(why: &str) {
    // Not by a macro that the test runner captures: a skip is to be seen.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn found(name: &str) -> Option<PathBuf> {
    let places = PLACES.map(|place| Path::new(place).join(name));
    places.into_iter().find(|path| path.is_file())
}

/// A running sshd, and what is needed to get in.
struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    user: String,
    /// Whether the folder that it wants was made for it.
    made: bool,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.made {
            let _ = fs::remove_dir(EMPTY);
        }
    }
}

fn key(folder: &Path, name: &str) -> Option<String> {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", text(&path)])
        .status();
    made.is_ok_and(|made| made.success())
        .then(|| fs::read_to_string(path.with_extension("pub")).expect("a public key"))
}

impl Sshd {
    /// `None`, said aloud, where that is not possible. `forced` is what the second key may do.
    fn start(forced: &str) -> Option<Sshd> {
        let (Some(program), Some(_)) = (found("sshd"), found("ssh")) else {
            skipped("no sshd is installed");
            return None;
        };
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let keys = ["host", "any", "forced"].map(|name| key(folder.path(), name));
        let [Some(_), Some(any), Some(second)] = keys else {
            skipped("ssh-keygen makes no keys");
            return None;
        };
        let program_path = env!("CARGO_BIN_EXE_mallet");
        let allowed = format!("{any}restrict,command=\"{program_path} {forced}\" {second}");
        fs::write(at("allowed"), allowed).expect("a file");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nLogLevel ERROR\n",
            text(&at("host")),
            text(&at("allowed")),
        );
        fs::write(at("config"), config).expect("a file");
        let uid = nix::unistd::geteuid();
        let made = uid.is_root() && fs::create_dir(EMPTY).is_ok();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let Some(user) = user else {
            skipped("whoever runs this has no name to log in by");
            return None;
        };
        let child = Command::new(program)
            .args(["-D", "-e", "-f", text(&at("config"))])
            .stdin(Stdio::null())
            .stderr(fs::File::create(at("sshd.log")).expect("a file"))
            .spawn();
        let Ok(child) = child else {
            skipped("sshd does not start");
            return None;
        };
        let sshd = Sshd {
            child,
            folder,
            port,
            user: user.name,
            made,
        };
        for name in ["any", "forced"] {
            sshd.script(name);
        }
        sshd.answers().then_some(sshd)
    }

    /// A program that is ssh with a key.
    fn script(&self, key: &str) {
        let at = |name: &str| self.folder.path().join(name);
        let script = format!(
            "#!/bin/sh\nexec ssh -F none -i {} -o IdentitiesOnly=yes -o BatchMode=yes \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile={} -o LogLevel=ERROR \"$@\"\n",
            text(&at(key)),
            text(&at("known")),
        );
        let path = self.shell(key);
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    fn shell(&self, key: &str) -> PathBuf {
        self.folder.path().join(format!("ssh-{key}"))
    }

    /// Whether one can log in, which an account that is locked cannot.
    fn answers(&self) -> bool {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if start.elapsed() > Duration::from_secs(20) {
                skipped(&format!("sshd does not listen: {}", self.log()));
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let output = self.ssh("any", &["true"]);
        if !output.status.success() {
            let (said, log) = (err(&output), self.log());
            skipped(&format!("sshd does not let {} in: {said}{log}", self.user));
        }
        output.status.success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("sshd.log")).unwrap_or_default()
    }

    fn ssh(&self, key: &str, words: &[&str]) -> Output {
        let place = format!("{}@127.0.0.1", self.user);
        Command::new(self.shell(key))
            .args(["-p", &self.port.to_string(), &place])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("ssh runs")
    }

    fn command(&self, key: &str, words: &[&str]) -> Command {
        let mut command = mallet();
        command
            .args(words)
            .args(["-p", &self.port.to_string()])
            .args(["--remote-command", env!("CARGO_BIN_EXE_mallet")])
            .env("HAMMER_RSH", self.shell(key))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, key: &str, words: &[&str]) -> Output {
        self.command(key, words).output().expect("the program runs")
    }

    fn far(&self, spec: &str) -> String {
        format!("{}@127.0.0.1:{spec}", self.user)
    }
}

fn volume(folder: &Path, name: &str, size: &str) -> PathBuf {
    let path = folder.join(name);
    format(&path, size);
    path
}

/// A program that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stream follows a master that changes, and ends when it is asked to.
fn follows(sshd: &Sshd, master: &mut Master, slave: &Path, from: &str, to: &str) {
    let log = sshd.folder.path().join("stream.log");
    let child = sshd
        .command("any", &["mirror-stream", "-q", from, to])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("a file"))
        .spawn();
    let mut stream = Running(child.expect("the program runs"));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    for _ in 0..3 {
        master.change(8);
        master.mark();
        let (tid, _) = master.journal.lock().expect("no panic").last();
        let start = Instant::now();
        while seen(slave) < tid {
            let ended = stream.0.try_wait().expect("a child");
            assert!(ended.is_none(), "{from} {to}: it ended: {}", said());
            let waited = start.elapsed() > Duration::from_secs(60);
            assert!(!waited, "{from} {to}: it does not follow: {}", said());
            thread::sleep(Duration::from_millis(20));
        }
    }
    let pid = Pid::from_raw(stream.0.id().try_into().expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("it is ours");
    let ended = stream.0.wait().expect("a child");
    assert_eq!(ended.code(), Some(0), "{from} {to}: {}", said());
    equal(slave, master);
}

#[test]
fn through_a_real_sshd() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let slave = folder.path().join("slave");
    let to = format!("{}#1", text(&slave));
    let forced = format!("ssh-remote --only mirror-write --path {to}");
    let Some(sshd) = Sshd::start(&forced) else {
        return;
    };
    let mut master = Master::new(&volume(folder.path(), "master", "96m"), 5);
    let from = master.spec();
    volume(folder.path(), "slave", "1g");
    let (far_from, far_to) = (sshd.far(&from), sshd.far(&to));
    let copy = |key: &str, from: &str, to: &str| sshd.run(key, &["mirror-copy", "-y", from, to]);
    for (from, to) in [(&from, &far_to), (&far_from, &to), (&far_from, &far_to)] {
        for _ in 0..2 {
            master.change(10);
            master.mark();
            let output = copy("any", from, to);
            assert_eq!(status(&output), 0, "{from} {to}: {}", err(&output));
            equal(&slave, &master);
        }
    }
    for (from, to) in [(&from, &far_to), (&far_from, &to), (&far_from, &far_to)] {
        follows(&sshd, &mut master, &slave, from, to);
    }
    // The key that may do one thing does it, and nothing else.
    master.mark();
    let output = copy("forced", &from, &far_to);
    assert_eq!(status(&output), 0, "{}", err(&output));
    equal(&slave, &master);
    let other = folder.path().join("other");
    for (from, to) in [
        (&far_from, &to),
        (&far_to, &to),
        (&from, &sshd.far(&from)),
        (&from, &sshd.far(text(&other))),
    ] {
        let output = copy("forced", from, to);
        assert_ne!(status(&output), 0, "{from} {to}");
        let said = err(&output);
        assert!(
            said.contains("this key does not allow"),
            "{from} {to}: {said}"
        );
    }
    for words in [&[][..], &["true"], &["cat", "/etc/passwd"]] {
        let output = sshd.ssh("forced", words);
        assert!(!output.status.success(), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        assert!(
            err(&output).contains("this key does not allow"),
            "{words:?}"
        );
    }
    equal(&slave, &master);
}
