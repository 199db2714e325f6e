//! The program as a child process.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, to be given arguments.
pub fn mallet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mallet"))
}

/// Runs the program with these words.
pub fn run<S: AsRef<OsStr>>(words: &[S]) -> Output {
    mallet().args(words).output().expect("the program runs")
}

/// The words of `line`; `IMG` at the start of one stands for `image`.
pub fn words(line: &str, image: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| match word.strip_prefix("IMG") {
            Some(rest) => format!("{image}{rest}"),
            None => word.to_owned(),
        })
        .collect()
}

/// Runs the program with the [`words`] of `line`.
pub fn run_on(line: &str, image: &str) -> Output {
    run(&words(line, image))
}

/// The exit status; -1 if a signal ended it.
pub fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// Standard output as text.
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The events in `text`: every line an object with a type, the last one the summary with `status`.
pub fn events(text: &str, status: i32) -> Vec<Value> {
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for event in &events {
        assert!(event["type"].is_string(), "{event}");
    }
    let (last, others) = events.split_last().expect("a summary");
    assert_eq!(last["type"], "summary");
    assert_eq!(last["status"], status, "{last}");
    assert_eq!(last["error"].is_null(), status == 0, "{last}");
    assert!(others.iter().all(|event| event["type"] != "summary"));
    events
}

/// Copies `from` to byte `at` of a new file in `folder`, leaving holes where it has zeros.
pub fn copy_to(from: &Path, folder: &Path, name: &str, at: u64) -> PathBuf {
    let to = folder.join(name);
    let mut source = File::open(from).expect("an image");
    let mut target = File::create(&to).expect("a copy");
    let mut chunk = vec![0; 1 << 20];
    let mut pos = 0;
    loop {
        let len = source.read(&mut chunk).expect("the image");
        if len == 0 {
            break;
        }
        if chunk[..len].iter().any(|byte| *byte != 0) {
            target.seek(SeekFrom::Start(at + pos)).expect("a position");
            target.write_all(&chunk[..len]).expect("room for the copy");
        }
        pos += len as u64;
    }
    target.set_len(at + pos).expect("the copy's size");
    to
}

/// Overwrites the bytes at `at` of the file at `path`.
pub fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file to patch");
    file.seek(SeekFrom::Start(at)).expect("a position");
    file.write_all(bytes).expect("the patch");
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
