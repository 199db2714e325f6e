//! The commands for contents, as a person and as a script use them.

mod common;

use common::build::Options;
use common::build::files::{Content, Files, Object};
use common::golden;
use common::program::{err, events, out, run, run_on, status, text};
use mallet::format::record::ObjType;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A small volume with history, a slave and names of all kinds.
struct Volume {
    dir: tempfile::TempDir,
    image: String,
    /// TIDs: before and after the file `/text` was rewritten.
    tids: [String; 2],
}

fn volume() -> Volume {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("volume");
    let options = Options::new(&path, 7, 512 << 20);
    let mut files = Files::new(&options);
    let root = Object::root(0);
    let sub = files.mkdir(root, b"sub");
    let file = files.file(root, b"text", &Content::Bytes(b"first\n".to_vec()));
    files.file(sub, b"in", &Content::Pattern(70_000));
    files.symlink(root, b"link", b"text");
    files.symlink(root, b"dir link", b"sub");
    files.special(root, b"pipe", ObjType::Fifo, 0, 0);
    files.special(root, b"null", ObjType::CharDevice, 1, 3);
    files.file(root, b"esc\x1b[31m\xff\n", &Content::Bytes(vec![7]));
    let before = files.tid();
    files.rewrite(file, &Content::Bytes(b"the second\n".to_vec()), 1);
    let after = files.tid();
    files.snapshot(0, "new text");
    files.pfs_master(1, "master");
    files.file(Object::root(1), b"m", &Content::Pattern(10));
    files.pfs_slave(2, 1, "slave");
    files.symlink(root, b"pfs", b"@@PFS00002");
    files.build(&options);
    Volume {
        image: text(&path).to_owned(),
        dir,
        tids: [before.to_string(), after.to_string()],
    }
}

/// Runs the program on the volume; its output, which must have ended with `expected`.
fn say(volume: &Volume, line: &str, expected: i32) -> String {
    let output = run_on(line, &volume.image);
    assert_eq!(status(&output), expected, "{line}: {}", err(&output));
    out(&output)
}

/// The same with `--json`.
fn tell(volume: &Volume, line: &str, expected: i32) -> Vec<Value> {
    let output = run_on(&format!("{line} --json"), &volume.image);
    assert_eq!(status(&output), expected, "{line}: {}", err(&output));
    events(&out(&output), expected)
}

#[test]
fn listings_for_people() {
    let v = volume();
    let names = "dir link\nesc\\x1b[31m\\xff\\n\nlink\nnull\npfs\npipe\nsub\ntext\n";
    assert_eq!(say(&v, "ls IMG", 0), names);
    assert_eq!(say(&v, "ls IMG /sub", 0), "in\n");
    assert_eq!(say(&v, "ls -R IMG /sub", 0), "/sub\n/sub/in\n");
    assert_eq!(say(&v, "ls IMG /text", 0), "/text\n");
    assert_eq!(say(&v, "ls IMG /pfs", 0), "m\n", "looked through");
    assert_eq!(say(&v, "ls IMG#slave", 0), "m\n");
    let long = say(&v, "ls -l IMG", 0);
    assert!(
        long.contains("crw-r--r--   1     0     0          1,3 "),
        "{long}"
    );
    assert!(long.contains(" link -> text\n"), "{long}");
    assert!(long.contains(" pfs -> @@0x0000000100000"), "{long}");
    assert!(
        long.contains("-rw-r--r--   1     0     0           11 "),
        "{long}"
    );
    assert!(!long.contains('\x1b'));
    let sums = say(&v, "ls --sha256 IMG /text", 0);
    let sum = "1804b0ddeff8ee18b78f52da6c9169ab433e61eda9d33fecf9d4acb980b311c7";
    assert_eq!(sums, format!("{sum} /text\n"));
    assert_eq!(status(&run_on("ls IMG /nothing", &v.image)), 1);
    assert_eq!(status(&run_on("ls IMG#9", &v.image)), 2);
}

#[test]
fn listings_as_of() {
    let v = volume();
    let size = |when: &str| {
        let words = ["ls", "-l", &v.image, "/text", "--as-of", when];
        let output = run(&words);
        assert_eq!(status(&output), 0, "{}", err(&output));
        let line = out(&output);
        line.split_whitespace().nth(4).map(str::to_owned)
    };
    assert_eq!(size(&v.tids[0]).as_deref(), Some("6"));
    assert_eq!(size(&v.tids[1]).as_deref(), Some("11"));
    assert_eq!(size("new text").as_deref(), Some("11"));
    assert_eq!(size("1h").as_deref(), Some("11"));
    let then = run(&["ls", &v.image, "--as-of", "1990-01-01T00:00:00Z"]);
    assert_eq!(status(&then), 2);
    assert!(
        err(&then).contains("before the first record"),
        "{}",
        err(&then)
    );
    let told = tell(&v, "ls IMG --as-of 1h", 0);
    assert!(told.last().expect("a summary")["as_of"].is_string());
    let path = format!("/text@@{}", v.tids[0]);
    assert_eq!(say(&v, &format!("cat IMG {path}"), 0), "first\n");
}

#[test]
fn listings_for_scripts() {
    let v = volume();
    let told = tell(&v, "ls -R --sha256 IMG /", 0);
    let paths: Vec<_> = told.iter().filter_map(|e| e["path"].as_str()).collect();
    let expected = [
        "/",
        "/dir link",
        "/esc\u{1b}[31m\u{fffd}\n",
        "/link",
        "/null",
        "/pfs",
        "/pipe",
        "/sub",
        "/sub/in",
        "/text",
    ];
    assert_eq!(paths, expected);
    let at = |path: &str| told.iter().find(|e| e["path"] == path).expect("an entry");
    assert_eq!(
        at("/esc\u{1b}[31m\u{fffd}\n")["path_hex"],
        "2f6573631b5b33316dff0a"
    );
    let entry = at("/text");
    assert_eq!(
        (&entry["type"], &entry["kind"]),
        (&"entry".into(), &"file".into())
    );
    assert_eq!(
        (&entry["mode"], &entry["size"]),
        (&"0644".into(), &11.into())
    );
    assert_eq!(entry["tid"], Value::from(v.tids[1].clone()));
    assert_eq!(entry["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(at("/null")["rdev"], "1,3");
    assert_eq!(
        (&at("/link")["target"], &at("/link")["kind"]),
        (&"text".into(), &"symlink".into())
    );
    assert_eq!(
        (&at("/pipe")["kind"], &at("/sub")["kind"]),
        (&"fifo".into(), &"dir".into())
    );
    for field in ["obj", "uid", "gid", "nlinks", "mtime_us", "ctime_us"] {
        assert!(!entry[field].is_null(), "{field}");
    }
    let summary = told.last().expect("a summary");
    assert_eq!(
        (&summary["objects"], &summary["errors"]),
        (&10.into(), &0.into())
    );
    let stat = tell(&v, "stat IMG /link", 0);
    assert_eq!(
        (&stat[0]["target"], &stat[0]["pfs"]),
        (&"text".into(), &0.into())
    );
}

#[test]
fn one_object() {
    let v = volume();
    assert_eq!(say(&v, "cat IMG /link", 0), "the second\n");
    assert_eq!(status(&run_on("cat IMG /sub", &v.image)), 2);
    assert_eq!(run_on("cat IMG /sub/in", &v.image).stdout.len(), 70_000);
    let stat = say(&v, "stat IMG /text", 0);
    assert!(
        stat.contains("size    11\n") && stat.contains("kind    file\n"),
        "{stat}"
    );
    let output = run_on("cat IMG /text --json", &v.image);
    assert_eq!(out(&output), "the second\n");
    events(&err(&output), 0);
}

#[test]
fn copies() {
    let v = volume();
    let dest = v.dir.path().join("out");
    let get = |more: &[&str]| {
        let words = [&["get", &v.image, "/", text(&dest)], more].concat();
        run(&words)
    };
    let first = get(&[]);
    assert_eq!(status(&first), 0, "{}", err(&first));
    let read = |name: &str| fs::read(dest.join(name)).expect("a copy");
    assert_eq!(read("text"), b"the second\n");
    assert_eq!(read("sub/in").len(), 70_000);
    assert_eq!(
        fs::read_link(dest.join("pfs")).expect("a link"),
        PathBuf::from("@@PFS00002")
    );
    let again = get(&["--json"]);
    assert_eq!(status(&again), 1);
    let told = events(&out(&again), 1);
    assert!(
        told.iter()
            .any(|e| e["type"] == "problem" && e["path"] == "text")
    );
    fs::write(dest.join("text"), "mine").expect("a change");
    assert_eq!(status(&get(&[])), 1);
    assert_eq!(read("text"), b"mine", "what is there stays");
    let forced = get(&["-F"]);
    assert_eq!(status(&forced), 0, "{}", err(&forced));
    assert_eq!(read("text"), b"the second\n");
    let old = v.dir.path().join("old");
    let words = ["get", &v.image, "/text", text(&old), "--as-of", &v.tids[0]];
    assert_eq!(status(&run(&words)), 0);
    assert_eq!(fs::read(&old).expect("a copy"), b"first\n");
}

#[test]
fn histories_and_differences() {
    let v = volume();
    let text = say(&v, "history IMG /text", 0);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("/text\t") && lines[0].ends_with(" clean {"),
        "{text}"
    );
    assert!(
        lines[1].ends_with(" size=6") && lines[2].ends_with(" size=11"),
        "{text}"
    );
    assert_eq!((lines.len(), lines[3]), (4, "}"));
    let told = tell(&v, "history IMG /text", 0);
    let sizes: Vec<_> = told.iter().filter_map(|e| e["size"].as_u64()).collect();
    assert_eq!(sizes, [6, 11]);
    assert_eq!(told[1]["tid"], Value::from(v.tids[1].clone()));
    let part = say(&v, "history -v IMG /text@4,3", 0);
    assert!(
        part.contains(" 't.'\n") && part.contains(" 'sec'\n"),
        "{part}"
    );
    let line = format!("diff IMG --from {} --to {}", v.tids[0], v.tids[1]);
    let differences = say(&v, &line, 0);
    assert_eq!(
        differences,
        "* /text (content, size), size 6 to 11, 11 bytes changed\n"
    );
    let told = tell(&v, &line, 0);
    assert_eq!(
        (&told[0]["change"], &told[0]["from"]["size"]),
        (&"changed".into(), &6.into())
    );
    let all = say(&v, "diff IMG --from 0x100000001", 0);
    assert!(
        all.contains("+ /sub/in\n") && all.contains("+ /pfs\n"),
        "{all}"
    );
    assert!(status(&run_on("history IMG /nothing", &v.image)) == 1);
}

#[test]
fn pseudo_file_systems_and_snapshots() {
    let v = volume();
    let told = tell(&v, "pfs-status IMG", 0);
    assert_eq!(told.len(), 4);
    let slave = &told[2];
    assert_eq!((&slave["id"], &slave["kind"]), (&2.into(), &"slave".into()));
    assert_eq!(
        (&slave["label"], &slave["deleted"]),
        (&"slave".into(), &false.into())
    );
    assert_eq!(slave["shared_uuid"], told[1]["shared_uuid"]);
    assert_ne!(slave["unique_uuid"], told[1]["unique_uuid"]);
    assert_eq!(tell(&v, "pfs-status IMG#slave", 0)[0], *slave);
    let text = say(&v, "pfs-status IMG#2", 0);
    assert!(
        text.contains("#2\tPFS#2 {\n    sync-beg-tid=0x0000000000000001\n"),
        "{text}"
    );
    let end = "    label=\"slave\"\n    prune-min=00:00:00\n    operating as a SLAVE\n    \
               snapshots directory defaults to /var/hammer/<pfs>\n}\n";
    assert!(text.ends_with(end), "{text}");
    let snapshots = say(&v, "snapls IMG", 0);
    let lines: Vec<_> = snapshots.lines().collect();
    assert!(lines[0].ends_with("\tPFS#0") && lines[1].starts_with("Transaction ID\t"));
    assert!(lines[2].starts_with(&format!("{}\t", v.tids[1])) && lines[2].ends_with("\tnew text"));
    let told = tell(&v, "snapls IMG", 0);
    assert_eq!((&told[0]["label"], told.len()), (&"new text".into(), 2));
}

/// Reading changes no byte of the volume.
#[test]
fn readers_leave_the_volume_as_it_is() {
    let v = volume();
    let picture = || {
        let meta = fs::metadata(&v.image).expect("the volume");
        (
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            meta.blocks(),
        )
    };
    let before = picture();
    for line in [
        "ls -lR --sha256 IMG",
        "cat IMG /text",
        "history IMG /text",
        "pfs-status IMG",
    ] {
        say(&v, line, 0);
    }
    assert_eq!(before, picture());
}

/// An entry as the kernel's listings have it, without what events do not carry.
fn line(entry: &Value, pfs: u32) -> String {
    let number = |name: &str| entry[name].as_u64().expect("a number");
    let word = |name: &str| entry[name].as_str().expect("a word");
    let time = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let kind = match word("kind") {
        "dir" => 'd',
        "file" => 'f',
        "symlink" => 'l',
        _ => 'o',
    };
    let mut line = format!(
        "{kind} {} mode={} nlink={} uid={} gid={} size={} mtime={} ctime={} obj={} lo={:08x}",
        word("path"),
        word("mode"),
        number("nlinks"),
        (number("uid") as u32).cast_signed(),
        (number("gid") as u32).cast_signed(),
        number("size"),
        time(number("mtime_us")),
        time(number("ctime_us")),
        word("obj").trim_start_matches("0x"),
        pfs << 16,
    );
    match kind {
        'f' => line += &format!(" sha256={}", word("sha256")),
        'l' => line += &format!(" -> {}", word("target")),
        'o' => {
            let (code, rdev) = match word("kind") {
                "chr" => (0, word("rdev")),
                _ => (7, "0,0"),
            };
            line += &format!(" type={code} rdev={rdev}");
        }
        _ => {}
    }
    line
}

fn listed(image: &Path, spec: &str) -> Vec<Value> {
    let spec = format!("{}{spec}", text(image));
    let output = run(&["ls", "-R", "--json", "--sha256", &spec, "/"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let told = events(&out(&output), 0);
    told.into_iter().filter(|e| e["type"] == "entry").collect()
}

/// The events of `ls -R --json --sha256` say what the kernel's listings say.
#[test]
fn events_against_the_kernels_listings() {
    let Some(golden) = golden::dir() else { return };
    for name in [
        "small/small-v1",
        "small/small-v7",
        "mirror/pfs",
        "edge/edge",
        "maint/maint-1-dedup",
    ] {
        let image = golden::file(&golden, &format!("{name}.img"));
        let listing = golden::bytes(&golden, &format!("{name}.lst"));
        let listing = String::from_utf8(listing).expect("names in UTF-8");
        for section in listing.split("== PFS ").skip(1) {
            let pfs: u32 = section
                .split([' ', '\n'])
                .next()
                .expect("a number")
                .parse()
                .expect("one");
            let ours = listed(&image, &format!("#{pfs}"));
            let kernels = section.lines().skip(1);
            let kernels = kernels.take_while(|l| !l.starts_with("# "));
            let kernels: Vec<_> = kernels.collect();
            assert_eq!(ours.len(), kernels.len(), "{name} PFS {pfs}");
            for (ours, kernels) in ours.iter().zip(kernels) {
                let crc = kernels
                    .find(" crc=")
                    .map(|at| at..at + " crc=01234567".len());
                let mut kernels = kernels.to_owned();
                if let Some(crc) = crc {
                    kernels.replace_range(crc, "");
                }
                assert_eq!(line(ours, pfs), kernels, "{name} PFS {pfs}");
            }
        }
    }
}
