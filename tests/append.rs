//! What goes over the wire when a large log grows: its new blocks and its inode.

mod common;

use common::program::{err, events, mallet, out, run, status, text};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

fn done(words: &[&str]) -> Output {
    told(words, b"")
}

/// What the program says, given `input`.
fn told(words: &[&str], input: &[u8]) -> Output {
    let mut child = mallet()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut to = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // Who does not want to read does not have to.
        scope.spawn(move || to.write_all(input));
        child.wait_with_output().expect("its end")
    });
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
    output
}

/// Bytes of which no block is like another.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let word = |at: u64| {
        (at ^ seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_le_bytes()
    };
    let mut all: Vec<u8> = (0..len as u64 / 8 + 1).flat_map(word).collect();
    all.truncate(len);
    all
}

fn volume(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    done(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
    format!("{}#1", text(&path))
}

fn status_of(spec: &str) -> Value {
    events(&out(&done(&["pfs-status", "--json", spec])), 0).swap_remove(0)
}

/// The TID behind the last one of a PFS.
fn next(spec: &str) -> String {
    let event = status_of(spec);
    let tid = event["sync_end_tid"].as_str().expect("a TID");
    let tid = u64::from_str_radix(tid.trim_start_matches("0x"), 16).expect("digits");
    format!("0x{:016x}", tid + 1)
}

/// Kinds of the records that a stream creates, sorted.
fn created(stream: &[u8]) -> Vec<u64> {
    let events = events(&out(&told(&["mirror-dump", "--json"], stream)), 0);
    let records = events.iter().filter(|event| event["type"] == "rec");
    let kind = |event: &Value| event["rt"].as_u64().expect("a record's type");
    let mut kinds: Vec<u64> = records.map(kind).collect();
    kinds.sort_unstable();
    kinds
}

/// A log of 96 MiB that ends within a block, and what is appended by one transaction: the block that
/// it ends in is new, and those behind it. Nothing else of the log goes, and little beside it.
#[test]
fn a_log_grows_by_its_new_blocks() {
    const LOG: usize = (96 << 20) + 12_345;
    const BLOCK: usize = 64 << 10;
    // What else is in the leaves on the way is named, each record in a hundred bytes.
    const NAMED: usize = 16 << 10;
    const INODE: u64 = 1;
    const DATA: u64 = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (master, slave) = (volume(folder, "master"), volume(folder, "slave"));
    done(&["pfs-master", "-q", &master]);
    let mut log = bytes(LOG, 1);
    told(&["put", "-q", &master, "-", "/log"], &log);
    done(&["mirror-copy", "-q", "-y", &master, &slave]);
    for (added, most) in [
        (1_000_000, 1_100_000 + (64 << 10)),
        (1 << 20, 1_100_000 + (64 << 10)),
        (100, BLOCK + NAMED),
        (BLOCK, 2 * BLOCK + NAMED),
    ] {
        let begin = next(&master);
        let more = bytes(added, added as u64);
        told(&["append", "-q", &master, "-", "/log"], &more);
        let stream = done(&["mirror-read", "-q", &master, &begin]).stdout;
        assert!(
            stream.len() > added && stream.len() <= most,
            "{}",
            stream.len()
        );
        let blocks = (log.len() + added).div_ceil(BLOCK) - log.len() / BLOCK;
        let expected: Vec<u64> = [INODE].into_iter().chain(vec![DATA; blocks]).collect();
        assert_eq!(created(&stream), expected, "{added} bytes added");
        log.extend(more);
        // It is all that the slave needs.
        told(&["mirror-write", "-q", &slave], &stream);
        let verified = run(&["mirror-verify", "--data", &master, &slave]);
        assert_eq!(status(&verified), 0, "{}", err(&verified));
        assert!(done(&["cat", &slave, "/log"]).stdout == log);
    }
    let image = slave.trim_end_matches("#1");
    done(&["check", "--data", image]);
    fs::remove_file(image).expect("a file");
}
