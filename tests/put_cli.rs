//! The commands that change contents, from the command line: trees come back as they went in, what
//! cannot be done changes nothing.

mod common;

use common::program::{err, events, mallet, out, run, status};
use mallet::fs::newfs::{NewFs, newfs};
use mallet::io::{self, Device};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

const MIB: u64 = 1 << 20;
const START: u64 = 1_700_000_000_000_000;

fn make(devices: &mut [Box<dyn Device>]) {
    let what = NewFs {
        label: b"put".to_vec(),
        version: 7,
        undo_bytes: Some(8 * MIB),
        fsid: [7; 16],
        now: START,
    };
    newfs(devices, &what).expect("a file system");
}

/// Bytes that differ from place to place.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A fresh image file.
fn image(folder: &Path) -> PathBuf {
    let path = folder.join("volume.img");
    File::create(&path)
        .expect("a file")
        .set_len(400 * MIB)
        .expect("it grows");
    let options = io::OpenOptions {
        write: true,
        ..io::OpenOptions::default()
    };
    make(&mut [io::open(&path, &options).expect("it opens")]);
    path
}

fn good(words: &[&str]) -> Output {
    let output = run(words);
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
    output
}

fn batch(image: &str, script: &str, more: &[&str]) -> Output {
    let mut child = mallet()
        .args(["batch", image])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("a pipe");
    // It may end before it has read all.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    child.wait_with_output().expect("it ends")
}

/// What `ls -R` says, without times.
fn listing(image: &str) -> Vec<String> {
    let output = good(&["ls", "-R", "--sha256", "--json", image]);
    let mut lines = Vec::new();
    for event in events(&out(&output), 0) {
        if event["type"] == "entry" {
            let part = |key: &str| event[key].to_string();
            let parts = [
                "path", "kind", "mode", "uid", "gid", "size", "nlinks", "sha256",
            ];
            lines.push(parts.map(part).join(" "));
        }
    }
    lines
}

/// Everything of a folder that `put` and `get` are to keep.
fn host_picture(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = vec![folder.to_path_buf()];
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let name = path.strip_prefix(folder).expect("below").to_path_buf();
        let body = match () {
            () if meta.is_dir() => {
                let mut below: Vec<_> = fs::read_dir(&path)
                    .expect("readable")
                    .map(|e| e.expect("an entry").path())
                    .collect();
                below.sort();
                below.reverse();
                rest.extend(below);
                String::new()
            }
            () if meta.is_symlink() => format!("{:?}", fs::read_link(&path).expect("a link")),
            () if meta.is_file() => {
                let same = first.entry(meta.ino()).or_insert(name.clone()).clone();
                let sum = crc32(&fs::read(&path).expect("readable"));
                format!("{} {sum:08x} as {}", meta.len(), same.display())
            }
            () => String::new(),
        };
        let time = match meta.is_symlink() {
            true => 0,
            false => meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000,
        };
        let mode = meta.mode();
        let (uid, gid) = (meta.uid(), meta.gid());
        lines.push(format!(
            "{} {mode:o} {uid}:{gid} {time} {body}",
            name.display()
        ));
    }
    lines
}

fn crc32(bytes: &[u8]) -> u32 {
    mallet::format::crc::crc32(bytes)
}

fn sample_tree(folder: &Path) {
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("deep/deeper/deepest")).expect("folders");
    for (index, len) in [
        0, 1, 16, 8191, 8192, 8193, 16384, 1_048_576, 1_500_000, 5_000_000,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(at(&format!("file{len}")), noise(len, index as u64)).expect("space");
    }
    fs::write(at("deep/deeper/deepest/f"), "text").expect("space");
    fs::hard_link(at("file16"), at("deep/again")).expect("a link");
    fs::hard_link(at("file16"), at("zz")).expect("a link");
    symlink("short", at("short link")).expect("a link");
    symlink("l".repeat(200), at("deep/long link")).expect("a link");
    let pipe = at("pipe");
    nix_fifo(&pipe);
    let sparse = File::create(at("sparse")).expect("a file");
    sparse.set_len(9 * MIB).expect("it grows");
    sparse.write_all_at(b"here", 6 * MIB + 3).expect("space");
    for (name, mode) in [
        ("file1", 0o4711),
        ("deep", 0o1750),
        ("pipe", 0o620),
        ("sparse", 0o400),
    ] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_234_567_890_123_456);
    for name in ["file8192", "deep/deeper"] {
        File::open(at(name))
            .expect("it opens")
            .set_modified(time)
            .expect("a time");
    }
}

fn nix_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

#[test]
fn trees_come_back_as_they_went_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).expect("a folder");
    sample_tree(&from);
    let words = |path: &Path| path.to_str().expect("text").to_owned();
    let put = good(&["put", "--json", image, &words(&from), "/tree"]);
    let last = events(&out(&put), 0).pop().expect("a summary");
    assert_eq!(
        (&last["hard_links"], &last["symlinks"], &last["nodes"]),
        (&2.into(), &2.into(), &1.into())
    );
    assert!(
        last["tid"].is_string() && last["records"].as_u64() > Some(30),
        "{last}"
    );
    good(&["get", image, "/tree", &words(&to)]);
    assert_eq!(host_picture(&from), host_picture(&to));
    good(&["check", "--data", image]);
    // Holes take no space.
    let blocks = |folder: &Path| {
        fs::metadata(folder.join("sparse"))
            .expect("it is there")
            .blocks()
    };
    assert!(blocks(&to) < 1000);
    // Again, with changes: what the source lacks stays, what is in the way goes.
    let before = listing(image);
    fs::remove_file(from.join("file1")).expect("removed");
    symlink("x", from.join("file1")).expect("a link");
    fs::remove_file(from.join("zz")).expect("removed");
    fs::write(from.join("zz"), "its own").expect("space");
    fs::remove_file(from.join("file8193")).expect("removed");
    fs::write(from.join("file8191"), "shorter").expect("space");
    fs::set_permissions(from.join("deep/deeper"), fs::Permissions::from_mode(0o700))
        .expect("a mode");
    let dry = good(&["put", "-n", "--json", image, &words(&from), "/tree"]);
    let dry = events(&out(&dry), 0).pop().expect("a summary");
    assert_eq!(before, listing(image));
    let put = good(&["put", "--json", image, &words(&from), "/tree"]);
    let put = events(&out(&put), 0).pop().expect("a summary");
    for key in [
        "files",
        "blocks_written",
        "blocks_same",
        "hard_links",
        "symlinks",
        "bytes",
    ] {
        assert_eq!(put[key], dry[key], "{key}");
    }
    fs::write(from.join("file8193"), noise(8193, 5)).expect("space");
    let time = fs::metadata(to.join("file8193"))
        .expect("it is there")
        .modified()
        .expect("a time");
    File::open(from.join("file8193"))
        .expect("it opens")
        .set_modified(time)
        .expect("a time");
    let again = folder.path().join("again");
    good(&["get", image, "/tree", &words(&again)]);
    let root_time = |line: &String| !line.starts_with(' ');
    let keep = |folder: &Path| -> Vec<String> {
        host_picture(folder).into_iter().filter(root_time).collect()
    };
    assert_eq!(keep(&from), keep(&again));
    good(&["check", "--data", image]);
}

#[test]
fn what_cannot_be_copied_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let from = folder.path().join("from");
    fs::create_dir(&from).expect("a folder");
    fs::write(from.join("a"), noise(3_000_000, 3)).expect("space");
    symlink("l".repeat(1025), from.join("b")).expect("a link");
    let source = from.to_str().expect("text");
    let before = listing(image);
    let failed = |words: &[&str], code: i32, text: &str| {
        let output = run(words);
        assert_eq!(status(&output), code, "{words:?}: {}", err(&output));
        assert!(err(&output).contains(text), "{words:?}: {}", err(&output));
        assert_eq!(before, listing(image), "{words:?}");
    };
    failed(&["put", image, source, "/tree"], 1, "/tree/b");
    fs::remove_file(from.join("b")).expect("removed");
    fs::write(from.join("b@@-1"), "x").expect("space");
    failed(&["put", image, source, "/tree"], 1, "/tree/b@@-1");
    fs::remove_file(from.join("b@@-1")).expect("removed");
    fs::hard_link(image, from.join("c")).expect("a link");
    failed(
        &["put", image, source, "/tree"],
        2,
        "is a volume of the file system",
    );
    failed(
        &["put", image, image, "/self"],
        2,
        "is a volume of the file system",
    );
    failed(&["put", image, "/nowhere", "/x"], 5, "/nowhere");
    failed(&["put", image, "/dev/null", "/x"], 2, "/dev/null");
    failed(&["put", image, source, "/missing/x"], 1, "missing");
    failed(
        &["put", image, &format!("{source}/a"), "/"],
        2,
        "root directory",
    );
    failed(
        &[
            "put",
            image,
            &format!("{source}/a"),
            "/x@@0x0000000100000000",
        ],
        2,
        "history",
    );
    failed(&["rm", image, "/x"], 1, "/x: is not there");
    failed(&["mkdir", image, "/x/y"], 1, "x");
    failed(&["chmod", image, "999", "/"], 2, "999");
    failed(&["batch", "-n", image], 0, "0 changes");
}

/// A dry run says what the real one would meet on a volume that is too small.
#[test]
fn what_does_not_fit_is_said_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let file = |name: &str, mib: usize| {
        let path = folder.path().join(name);
        fs::write(&path, noise(mib << 20, mib as u64)).expect("space");
        path.to_str().expect("text").to_owned()
    };
    let (big, most, some) = (file("big", 400), file("most", 296), file("some", 100));
    let dry = |source: &str| run(&["put", "-n", image, source, "/x"]);
    let output = dry(&big);
    assert_eq!(status(&output), 10, "{}", err(&output));
    let said = err(&output);
    assert!(
        said.contains("are needed, and") && said.contains("free"),
        "{said}"
    );
    assert_eq!(status(&run(&["put", image, &big, "/x"])), 10);
    for fits in [&most, &some] {
        assert_eq!(status(&dry(fits)), 0, "{fits}: {}", err(&dry(fits)));
    }
    good(&["put", image, &most, "/most"]);
    // It fitted before.
    assert_eq!(status(&dry(&some)), 10);
    assert_eq!(status(&run(&["put", image, &some, "/x"])), 10);
    // What is there takes no space again.
    good(&["put", "-n", image, &most, "/most"]);
    // Zeros become holes.
    let hole = folder.path().join("hole");
    let sparse = File::create(&hole).expect("a file");
    sparse.set_len(4 << 30).expect("it grows");
    good(&["put", "-n", image, hole.to_str().expect("text"), "/hole"]);
    // The last free bytes are in big-blocks that are in use: a dry run and a real one agree on them,
    // one file after the other.
    let mut ends = Vec::new();
    for at in 0..200 {
        let (source, path) = (file("one", 1), format!("/one-{at}"));
        let planned = status(&run(&["put", "-n", image, &source, &path]));
        let done = status(&run(&["put", image, &source, &path]));
        ends.push((planned, done));
        if done == 10 {
            break;
        }
    }
    let last = ends.pop().expect("one at least");
    assert_eq!(last, (10, 10));
    assert!(
        ends.len() > 5 && ends.iter().all(|end| *end == (0, 0)),
        "{ends:?}"
    );
}

#[test]
fn small_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let file = folder.path().join("f");
    fs::write(&file, "hello").expect("space");
    let file = file.to_str().expect("text");
    good(&["mkdir", image, "-p", "/a/b/c"]);
    good(&["mkdir", image, "-p", "/a/b/c"]);
    good(&["put", image, file, "/a/f"]);
    good(&["append", image, file, "/a/f"]);
    good(&["append", image, file, "/a/new"]);
    good(&["truncate", image, "/a/f", "7"]);
    good(&["ln", image, "/a/f", "/a/g"]);
    good(&["ln", image, "-s", "../f", "/a/s"]);
    good(&["chmod", image, "u=rw,go=r", "/a/f"]);
    good(&["chown", image, "12:13", "/a/f"]);
    good(&["mv", image, "/a/new", "/a/b/moved"]);
    assert_eq!(out(&good(&["cat", image, "/a/g"])), "hellohe");
    let lines = listing(image);
    let line = |path: &str| {
        let start = format!("\"{path}\" ");
        lines
            .iter()
            .find(|l| l.starts_with(&start))
            .unwrap_or_else(|| panic!("{path}: {lines:#?}"))
    };
    assert!(
        line("/a/g").contains("\"file\" \"0644\" 12 13 7 2"),
        "{}",
        line("/a/g")
    );
    assert!(line("/a/s").contains("\"symlink\""));
    assert!(line("/a/b/moved").contains(" 5 1 "));
    assert_eq!(status(&run(&["rm", image, "/a"])), 1);
    assert_eq!(status(&run(&["mv", image, "/a", "/a/b/x"])), 1);
    assert_eq!(status(&run(&["ln", image, "/a", "/d"])), 1);
    good(&["rm", image, "-f", "/none"]);
    good(&["rm", image, "-r", "/a"]);
    assert_eq!(listing(image).len(), 1);
    good(&["check", "--data", image]);
    // History is there.
    assert!(out(&good(&["history", image, "/"])).lines().count() > 0);
}

#[test]
fn an_interrupted_put_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let before = listing(image);
    let mut child = mallet()
        .args(["put", image, "-", "/f"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&noise(20 << 20, 1)).expect("it reads");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    assert_eq!(status(&output), 9, "{}", err(&output));
    assert_eq!(before, listing(image));
    good(&["check", "--data", image]);
}

#[test]
fn batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path());
    let image = image.to_str().expect("text");
    let file = folder.path().join("a file");
    fs::write(&file, "hello").expect("space");
    let script = format!(
        "# begin\nmkdir /d\nput '{0}' \"/d/a \\\"b\"\nsync\n\nln -s x /d/l\nsync\nsync\nchmod 700 /d",
        file.display()
    );
    let output = batch(image, &script, &["--json"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let all = events(&out(&output), 0);
    let tids: Vec<String> = all
        .iter()
        .filter(|e| e["type"] == "transaction")
        .map(|e| e["tid"].to_string())
        .collect();
    assert_eq!(tids.len(), 3);
    assert!(tids.is_sorted());
    assert_eq!(all.last().expect("a summary")["changes"], 4);
    let before = listing(image);
    assert_eq!(before.len(), 4);
    // The second transaction fails in its last line; the first stays.
    let output = batch(image, "mkdir /e\nsync\nmkdir /g\nrm /d\nmkdir /h\n", &[]);
    assert_eq!(status(&output), 1);
    assert!(
        err(&output).contains("line 4: ") && err(&output).contains("1 transaction before"),
        "{}",
        err(&output)
    );
    let after = listing(image);
    assert_eq!(after.len(), 5);
    assert!(after.iter().any(|l| l.starts_with("\"/e\"")));
    for (script, text) in [
        ("mkdir '/x", "line 1: a quote"),
        ("\nfrob /x", "line 2: "),
        ("put - /x", "line 1: "),
    ] {
        let output = batch(image, script, &[]);
        assert_eq!(status(&output), 2, "{script}");
        assert!(err(&output).contains(text), "{script}: {}", err(&output));
    }
    assert_eq!(after, listing(image));
    good(&["check", "--data", image]);
}
