//! `mirror-write` as people, scripts and peers see it.

mod common;

use common::golden;
use common::program::{err, events, mallet, out, run_on, status, text};
use mallet::format::mrecord::{self, Body};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

const UPDATE: &str = "Source can update synctid to 0x";

/// Starts the program with the words of `line`; its input is open.
fn start(line: &str, image: &str) -> Child {
    mallet()
        .args(common::program::words(line, image))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

/// Runs it with this input.
fn feed(line: &str, image: &str, input: &[u8]) -> Output {
    let mut child = start(line, image);
    let mut stdin = child.stdin.take().expect("its input");
    // It may have seen enough before the end.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("its end")
}

fn newfs(folder: &Path) -> String {
    let image = folder.join("slave.img");
    let image = text(&image).to_owned();
    let made = run_on("newfs -y -L SLAVE --size 512m -u 8m IMG", &image);
    assert_eq!(status(&made), 0, "{}", err(&made));
    image
}

fn said(output: &Output) -> (i32, String) {
    (status(output), out(output) + &err(output))
}

#[test]
fn a_slave_is_made_and_follows() {
    let Some(dir) = golden::dir() else { return };
    let stream = |name: &str| golden::bytes(&dir, &format!("mirror/{name}.mir"));
    let folder = tempfile::tempdir().expect("a folder");
    let image = newfs(folder.path());
    let first = feed("mirror-write -y IMG#1", &image, &stream("full-5"));
    assert_eq!(status(&first), 0, "{}", err(&first));
    assert_eq!(out(&first), format!("{UPDATE}0000000100028320\n"));
    let second = feed("--json mirror-write IMG#1", &image, &stream("inc-5-10"));
    let told = events(&out(&second), 0);
    let names: Vec<&str> = told.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(names, ["batch", "acknowledged", "terminated", "summary"]);
    assert_eq!(told[1]["tid"], "0x0000000100058630");
    let last = told.last().expect("a summary");
    assert_eq!(last["acknowledged"], "0x0000000100058630");
    assert!(last["created"].as_u64() > Some(0), "{last}");
    let told = run_on("pfs-status --json IMG#1", &image);
    let told = events(&out(&told), 0);
    assert_eq!(
        (&told[0]["kind"], &told[0]["sync_end_tid"]),
        (&"slave".into(), &"0x0000000100058630".into())
    );
    let checked = run_on("check --data IMG", &image);
    assert_eq!(status(&checked), 0, "{}", out(&checked));
    // An older one, and one of another master.
    let (code, text) = said(&feed("mirror-write IMG#1", &image, &stream("full-5")));
    assert!(code == 3 && text.contains("older"), "{code}: {text}");
    let (code, text) = said(&feed("mirror-write IMG#0", &image, &stream("full-5")));
    assert!(code == 3 && text.contains("no slave"), "{code}: {text}");
    // Cut off, and no stream at all.
    let cut = stream("inc-10-20");
    let (code, text) = said(&feed("mirror-write IMG#1", &image, &cut[..cut.len() / 2]));
    assert!(code == 11 && text.contains("cut off"), "{code}: {text}");
    let (code, _) = said(&feed("mirror-write IMG#1", &image, b"hello"));
    assert_eq!(code, 11);
    // The rest, as a two-way source would send it to a peer that is never behind.
    let third = feed("-y -2 mirror-write IMG#1", &image, &cut);
    assert_eq!(status(&third), 0, "{}", err(&third));
    let answers: Vec<String> = common::streams::records(&third.stdout)
        .iter()
        .map(|record| match Body::parse(record, 0) {
            Ok(Body::Pfsd(pfsd)) => format!("pfsd {:x}", pfsd.pfs.sync_end_tid.get()),
            Ok(Body::Update(tid)) => format!("update {tid:x}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, ["pfsd 100058630", "update 1000a0cd0"]);
}

/// Damage at the source: exit status, and what is missing.
#[test]
fn damage_is_listed() {
    let Some(dir) = golden::dir() else { return };
    let full = golden::bytes(&dir, "mirror/full-5.mir");
    let mut bad = Vec::new();
    let mut left = 1;
    for record in common::streams::records(&full) {
        let mut kind = u32::from_le_bytes([record[12], record[13], record[14], record[15]]);
        if kind == 1 && record[48] == 0x10 && left > 0 {
            (kind, left) = (kind | 0xc000_0000, 0);
        }
        mrecord::append(&mut bad, kind, &[&record[16..]]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let image = newfs(folder.path());
    let output = feed("mirror-write -y IMG#2", &image, &bad);
    let (code, text) = said(&output);
    assert!(
        code == 6 && text.contains("not acknowledged"),
        "{code}: {text}"
    );
    assert!(
        text.contains("object 0x") && text.contains("bytes "),
        "{text}"
    );
    assert!(!text.contains(UPDATE), "{text}");
    let output = feed("mirror-write --accept-damage IMG#2", &image, &bad);
    let (code, text) = said(&output);
    assert!(code == 6 && text.contains(UPDATE), "{code}: {text}");
}

/// Asked to end while nothing comes, it ends, and what came is kept; nobody else gets in meanwhile.
#[test]
fn signals_and_locks() {
    let Some(dir) = golden::dir() else { return };
    let full = golden::bytes(&dir, "mirror/full-5.mir");
    let folder = tempfile::tempdir().expect("a folder");
    let image = newfs(folder.path());
    let mut child = start("mirror-write -y IMG#1", &image);
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(&full[..full.len() / 2]).expect("it reads");
    let (code, text) = said(&feed("mirror-write --lock-wait 0 IMG#1", &image, &full));
    // Whoever is first; the other one finds it busy.
    if code != 4 {
        assert!(matches!(code, 0 | 2), "{code}: {text}");
    }
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGTERM).expect("a signal");
    let start = Instant::now();
    let output = child.wait_with_output().expect("its end");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(status(&output), 9, "{}", err(&output));
    drop(stdin);
    let again = feed("mirror-write -y IMG#1", &image, &full);
    assert_eq!(status(&again), 0, "{}", err(&again));
    let checked = run_on("check --data IMG", &image);
    assert_eq!(status(&checked), 0, "{}", out(&checked));
}
