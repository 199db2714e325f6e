//! A slave compared with its master where either of them, or both, are on another machine: reached
//! through a stand-in for ssh, which counts what goes over the link, or breaks it.

mod common;

use common::build::Options;
use common::build::bulk::{Bulk, Changes, PFS};
use common::patch::Image;
use common::program::{copy_to, err, events, out, patch, run, status, text};
use mallet::btree::{AsOf, Editor, good_data, put};
use mallet::format::node::LeafElement;
use mallet::format::record::rt;
use mallet::format::{Key, Tid};
use mallet::io::lock::{self, Lock};
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs here what it is asked to run there, as `MALLET_RSH` says: not at all, with every byte counted,
/// cut after so many bytes, behind a word of welcome.
const RSH: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$@" >> "$folder/log"
while [ "$1" != host ] && [ "$1" != old ]; do shift; done
host=$1; shift
[ "$1" = -p ] && shift 2
program=$1; shift
case $host:$program in
host:hammer|old:mallet) ;;
*) echo "$program: not found" >&2; exit 127 ;;
esac
case $MALLET_RSH in
count) tee -a "$folder/to" | "$MALLET_PROGRAM" "$@" | tee -a "$folder/from" ;;
cut) # What comes over the link ends although the program there has not.
    pipe=$(mktemp -u "$folder/pipe.XXXXXX")
    mkfifo "$pipe"
    exec 3<&0
    "$MALLET_PROGRAM" "$@" <&3 > "$pipe" 3<&- &
    exec dd bs=1 count="$MALLET_RSH_CUT" < "$pipe" 2> /dev/null 3<&- ;;
welcome) echo "Welcome to host"; exec "$MALLET_PROGRAM" "$@" ;;
broken) exit 255 ;;
silent) exec sleep 20 ;;
key) SSH_ORIGINAL_COMMAND="$program $*" exec "$MALLET_PROGRAM" \
    ssh-remote --only "$MALLET_RSH_ONLY" --path "$MALLET_RSH_PATH" ;;
*) exec "$MALLET_PROGRAM" "$@" ;;
esac
"#;

/// A folder with volumes and the stand-in.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn empty() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let rsh = folder.path().join("rsh");
        fs::write(&rsh, RSH).expect("a script");
        fs::set_permissions(&rsh, fs::Permissions::from_mode(0o755)).expect("its mode");
        Place { folder }
    }

    /// With a master and its slave, both PFS 1.
    fn new() -> Place {
        let place = Place::empty();
        for name in ["master", "slave"] {
            let path = place.path(name);
            place.good(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
        }
        let master = place.spec("master");
        place.good(&["pfs-master", &master, "label=data"]);
        place.change(1);
        place.good(&["mirror-copy", "-y", &master, &place.spec("slave")]);
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
            .env("HAMMER_RSH", self.path("rsh"))
            .env("MALLET_PROGRAM", env!("CARGO_BIN_EXE_mallet"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program")
    }

    /// Runs it with the stand-in set to `how`.
    fn run_over(&self, how: &str, words: &[&str]) -> Output {
        let output = self.command(words).env("MALLET_RSH", how).output();
        output.expect("the program")
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

    fn size(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |found| found.len())
    }
}

/// What it said with `--json`, the summary last.
fn told(output: &Output) -> Vec<Value> {
    events(&out(output), status(output))
}

/// `master` and `slave`, of which one or both are at `host`.
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
    let place = Place::new();
    for (from, to) in ends(&place, "host") {
        let output = place.good(&["mirror-verify", "--json", &from, &to]);
        let told = told(&output);
        let summary = told.last().expect("a summary");
        assert_eq!(
            (&summary["equal"], &summary["data"]),
            (&true.into(), &false.into())
        );
        assert!(summary["records"].as_u64().expect("a count") > 10);
        assert!(
            summary["link_bytes"].as_u64().expect("a count") < 3000,
            "{summary}"
        );
        let output = place.good(&["mirror-verify", "--data", &from, &to]);
        let line = out(&output);
        assert!(
            line.contains("is equal as of 0x") && line.contains("over the link"),
            "{line}"
        );
    }
    let output = place.good(&[
        "mirror-verify",
        "--json",
        &place.spec("master"),
        &place.spec("slave"),
    ]);
    assert!(told(&output)[0]["link_bytes"].is_null());
    // What is run over there.
    fs::remove_file(place.path("log")).expect("a log");
    let (master, slave) = (place.spec("master"), place.spec("slave"));
    let far = format!("ann@host:{slave}");
    place.good(&["mirror-verify", "-p", "2222", "-X", "--live", &master, &far]);
    place.good(&["mirror-status", "-v", &master, &far]);
    // Only mallet can be asked that: its own name is tried first.
    let mut expected = String::new();
    for program in ["mallet", "hammer"] {
        expected += &format!("-C -l ann host -p 2222 {program} -2 --live mirror-verify {slave}\n");
    }
    for program in ["mallet", "hammer"] {
        expected += &format!("-l ann host {program} -v -2 mirror-status {slave}\n");
    }
    assert_eq!(place.log(), expected);
}

#[test]
fn a_host_without_hammer_may_have_mallet() {
    let place = Place::new();
    for (from, to) in ends(&place, "old") {
        place.good(&["mirror-verify", &from, &to]);
        place.good(&["mirror-status", &from, &to]);
        let words = ["mirror-verify", "--remote-command", "hammer", &from, &to];
        let output = place.run(&words);
        assert_eq!(status(&output), 11, "{}", err(&output));
    }
    place.good(&[
        "mirror-verify",
        &place.far("old", "master"),
        &place.far("host", "slave"),
    ]);
}

#[test]
fn differences_have_their_names_and_their_status() {
    let place = Place::new();
    let old = copy_to(&place.path("master"), place.folder.path(), "old", 0);
    place.change(2);
    place.good(&["mirror-copy", &place.spec("master"), &place.spec("slave")]);
    let near = (format!("{}#1", text(&old)), place.spec("slave"));
    let here = place.run(&["mirror-verify", &near.0, &near.1]);
    assert_eq!(status(&here), 7);
    let named = |output: &Output| -> Vec<String> {
        let lines = out(output);
        let lines = lines.lines().filter(|line| line.starts_with("object "));
        lines.map(str::to_owned).collect()
    };
    assert!(named(&here).len() > 5);
    for (from, to) in [
        (format!("host:{}", near.0), near.1.clone()),
        (near.0.clone(), format!("host:{}", near.1)),
        (format!("host:{}", near.0), format!("old:{}", near.1)),
    ] {
        let output = place.run(&["mirror-verify", &from, &to]);
        assert_eq!(status(&output), 7, "{}", err(&output));
        assert_eq!(named(&output), named(&here));
    }
}

#[test]
fn what_the_other_end_refuses_is_the_exit_status() {
    let place = Place::new();
    let (master, slave) = (place.spec("master"), place.far("host", "slave"));
    let status_of = |words: &[&str]| {
        let output = place.run(words);
        (status(&output), err(&output))
    };
    let verify = |slave: &str| status_of(&["mirror-verify", &master, slave]);
    assert_eq!(verify(&slave).0, 0);
    // Nobody there, no volume there, no such PFS, another master's slave, a volume in use.
    let (code, said) = verify(&place.far("host", "nothing"));
    assert_eq!(code, 5, "{said}");
    let (code, said) = verify(&place.far("host", "rsh"));
    assert_eq!(code, 3, "{said}");
    let path = place.path("slave");
    let (code, said) = verify(&format!("host:{}#9", text(&path)));
    assert_eq!(code, 2, "{said}");
    let other = format!("{}#4", text(&path));
    let uuid = "shared-uuid=00000000-0000-0000-0000-000000000001";
    place.good(&["pfs-slave", "-q", &other, uuid]);
    let (code, said) = verify(&format!("host:{other}"));
    assert_eq!(code, 3, "{said}");
    let guard = lock::acquire(&path, 0, Lock::Write, Duration::ZERO).expect("a lock");
    for words in [
        ["mirror-verify", &master, &slave],
        ["mirror-status", &master, &slave],
    ] {
        let (code, said) = status_of(&words);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("ended with exit status: 4"), "{said}");
    }
    // Beside whoever holds it.
    let (code, said) = status_of(&["mirror-verify", "--live", &master, &slave]);
    assert_eq!(code, 0, "{said}");
    drop(guard);
    // Neither side is one that can be asked two-way.
    for words in [
        &["mirror-verify", &master][..],
        &["mirror-verify", "-2", &master, &master],
        &["mirror-status", "-2", &master, &master],
    ] {
        let (code, said) = status_of(words);
        assert_eq!(code, 2, "{said}");
    }
}

#[test]
fn links_that_break() {
    let place = Place::new();
    let (master, slave) = (place.spec("master"), place.far("host", "slave"));
    let verify = ["mirror-verify", &master, &slave];
    let mut cut_off = 0;
    for cut in [1, 11, 12, 13, 200, 300, 320, 350, 380, 5000] {
        let mut command = place.command(&verify);
        command.env("MALLET_RSH", "cut");
        let output = command.env("MALLET_RSH_CUT", cut.to_string()).output();
        let output = output.expect("the program");
        match status(&output) {
            0 => assert!(cut > 300, "{cut}"),
            code => {
                assert_eq!(code, 11, "cut at {cut}: {}", err(&output));
                cut_off += 1;
            }
        }
    }
    assert!(cut_off > 6, "{cut_off}");
    for words in [verify, ["mirror-status", &master, &slave]] {
        let output = place.run_over("broken", &words);
        assert_eq!(status(&output), 11, "{}", err(&output));
        let output = place.run_over("welcome", &words);
        assert_eq!(status(&output), 11, "{}", err(&output));
        assert!(
            err(&output).contains("does something else speak there"),
            "{}",
            err(&output)
        );
    }
    let start = Instant::now();
    let output = place.run_over("silent", &["mirror-verify", "-t", "1", &master, &slave]);
    assert_eq!(status(&output), 9, "{}", err(&output));
    // It does not sleep to the end.
    assert!(start.elapsed() < Duration::from_secs(15));
}

/// A key that allows questions, and nothing else.
#[test]
fn forced_commands() {
    let place = Place::new();
    let (master, slave) = (place.spec("master"), place.far("host", "slave"));
    let with = |only: &str, words: &[&str]| {
        let mut command = place.command(words);
        command
            .env("MALLET_RSH", "key")
            .env("MALLET_RSH_ONLY", only);
        command.env("MALLET_RSH_PATH", place.spec("slave"));
        command.output().expect("the program")
    };
    let both = "mirror-verify,mirror-status";
    let (verify, live) = (
        ["mirror-verify", &master, &slave],
        ["mirror-verify", "--live", &master, &slave],
    );
    let lag = ["mirror-status", &master, &slave];
    for (only, words, code) in [
        (both, &verify[..], 0),
        (both, &live, 0),
        (both, &lag, 0),
        ("mirror-verify", &verify, 0),
        ("mirror-verify", &lag, 2),
        ("mirror-status", &verify, 2),
        ("mirror-read,mirror-write", &verify, 2),
        ("mirror-read", &lag, 2),
        (both, &["mirror-copy", &master, &slave], 2),
        (
            both,
            &["mirror-verify", &slave, &place.far("host", "master")],
            2,
        ),
    ] {
        let output = with(only, words);
        assert_eq!(status(&output), code, "{only} {words:?}: {}", err(&output));
        let refused = err(&output).contains("this key does not allow");
        assert_eq!(refused, code == 2, "{}", err(&output));
    }
}

#[test]
fn how_far_slaves_elsewhere_are() {
    let place = Place::new();
    let lag = |from: &str, to: &str| {
        let output = place.good(&["mirror-status", "--json", from, to]);
        let told = told(&output);
        let rows = told.iter().filter(|event| event["type"] == "status");
        let rows: Vec<&Value> = rows.collect();
        assert_eq!((rows.len(), &rows[0]["spec"]), (2, &from.into()));
        assert!(rows[0]["lag_tids"].is_null());
        let row = rows[1].clone();
        assert_eq!((&row["kind"], &row["id"]), (&"slave".into(), &1.into()));
        row
    };
    for (from, to) in ends(&place, "host") {
        let now = lag(&from, &to);
        assert_eq!(
            (&now["lag_tids"], &now["lag_bytes"]),
            (&0.into(), &0.into())
        );
    }
    place.change(3);
    let here = lag(&place.spec("master"), &place.spec("slave"));
    let bytes = here["lag_bytes"].as_u64().expect("a lag");
    // Both files, inodes, entries.
    assert!((340_000..420_000).contains(&bytes), "{here}");
    for (from, to) in ends(&place, "host") {
        let now = lag(&from, &to);
        for field in ["lag_tids", "lag_bytes", "lag_seconds", "sync_end_tid"] {
            assert_eq!(now[field], here[field], "{field}");
        }
        let table = out(&place.good(&["mirror-status", &from, &to]));
        assert_eq!(table.lines().count(), 3);
        assert!(
            table.contains(" TIDs, ") && table.contains(" KiB, "),
            "{table}"
        );
    }
}

/// A master of more than 100 000 records, at `path`.
fn large(path: &Path) {
    let bulk = Bulk {
        files: 35_000,
        files_per_dir: 1000,
        sizes: 100..=900,
        changes: Changes::None,
        scattered: false,
    };
    let (_, bytes) = bulk.needs(&Options::new(path, 7, 0));
    bulk.build(&Options::new(path, 7, bytes + (256 << 20)));
}

fn volume(path: &Path, write: bool) -> VolumeSet {
    let options = mallet::io::OpenOptions {
        write,
        ..mallet::io::OpenOptions::default()
    };
    let device = mallet::io::open(path, &options).expect("a device");
    VolumeSet::open(vec![device]).expect("a volume")
}

/// A record of file data in the middle of PFS 1.
fn victim(path: &Path) -> LeafElement {
    let mut view = View::open(volume(path, false), &ViewOptions::default()).expect("a view");
    let mut all = AsOf::new(Key::pfs_min(PFS), Key::pfs_max(PFS), Tid::MAX);
    let mut blocks = 0;
    while let Some(leaf) = all.next(&mut view).expect("a readable tree") {
        blocks += usize::from(leaf.base.rec_type.get() == rt::DATA);
        if blocks == 23_456 {
            return leaf;
        }
    }
    panic!("only {blocks} blocks");
}

/// One record of a slave elsewhere is not the master's: it is named, and next to nothing was sent.
#[test]
fn one_record_among_many_costs_little_on_the_link() {
    let place = Place::empty();
    let (master, slave) = (place.path("master"), place.path("slave"));
    large(&master);
    place.good(&["newfs", "-L", "slave", "--size", "1g", "-y", text(&slave)]);
    let (from, to) = (place.spec("master"), place.spec("slave"));
    place.good(&["mirror-copy", "-q", "-y", &from, &to]);
    let leaf = victim(&slave);
    let end = leaf.base.key.get();
    let len = i64::from(leaf.data_len.get());
    let named = format!(
        "object 0x{:016x}, bytes {} to {end}: ",
        leaf.base.obj_id.get(),
        end - len
    );
    let find = |words: &[&str], how: &str| {
        for name in ["to", "from"] {
            let _ = fs::remove_file(place.path(name));
        }
        let output = place.run_over("count", words);
        assert_eq!(status(&output), 7, "{}", err(&output));
        let lines = out(&output);
        let found = lines.lines().filter(|line| line.starts_with("object "));
        let found: Vec<&str> = found.collect();
        assert_eq!(found.len(), 1, "{lines}");
        assert!(found[0].starts_with(&format!("{named}{how}")), "{lines}");
        let crossed = place.size("to") + place.size("from");
        println!(
            "{crossed} bytes; {}\n{}",
            found[0],
            lines.lines().last().expect("a line")
        );
        assert!(place.size("to") > 100 && place.size("from") > 1000);
        assert!(crossed < 100_000, "{crossed} bytes");
        crossed
    };
    // Another byte with its CRC.
    let options = StoreOptions::default();
    let mut store = Store::open(volume(&slave, true), &options).expect("a store");
    let mut txn = store.begin(1).expect("a transaction");
    let mut data = good_data(&mut txn, &leaf).expect("good data").to_vec();
    data[7] ^= 1;
    put::overwrite(&mut Editor::new(), &mut txn, &leaf, &data).expect("an overwrite");
    txn.commit().expect("a commit");
    drop(store);
    let far = format!("host:{to}");
    let crossed = find(&["mirror-verify", &from, &far], "differs");
    // The program says the same of what it cost.
    let output = place.run(&["mirror-verify", "--json", &from, &far]);
    let told = told(&output);
    let summary = told.last().expect("a summary");
    assert!(summary["records"].as_u64().expect("a count") > 100_000);
    assert_eq!(summary["link_bytes"], crossed);
    let difference = told.iter().find(|event| event["type"] == "difference");
    assert_eq!(difference.expect("a difference")["what"], "differs");
    // The other way round the master is asked.
    let crossed = find(&["mirror-verify", &format!("host:{from}"), &to], "differs");
    assert!(crossed > 1000);
    let both = ["mirror-verify", &format!("host:{from}"), &far];
    assert!(find(&both, "differs") > crossed);
    // A byte that its CRC does not know of: only who reads it can tell.
    let mut view = View::open(volume(&slave, false), &ViewOptions::default()).expect("a view");
    let at = victim(&slave).data_offset();
    let byte = view.bytes(at, 1).expect("the data")[0];
    let place_of = u64::try_from(view.header().buf_beg.get()).expect("a place") + at.short();
    drop(view);
    patch(&slave, place_of, &[byte ^ 1]);
    find(
        &["mirror-verify", "--data", &from, &far],
        "damaged in the slave",
    );
    // A tree that cannot be read, which shows while an answer is being made.
    let image = Image::over(&slave);
    let mut found = image.records().into_iter();
    let found = found.find(|found| found.leaf.base.key() == leaf.base.key());
    let node = found.expect("the record").node;
    patch(&slave, image.byte(node), &[0xff; 64]);
    let output = place.run(&["mirror-verify", &from, &far]);
    assert_eq!(status(&output), 6, "{}", err(&output));
    let said = err(&output);
    assert!(said.contains("ended with exit status: 6"), "{said}");
}

/// Far ends and near ones beside a writer that never rests: they agree, or say that they could not
/// look. (That a view taken anew is gone on with is shown without chance in `mirror_verify`.)
#[test]
fn beside_a_writer() {
    let place = Place::new();
    let (master, slave) = (place.spec("master"), place.spec("slave"));
    for n in 10..20 {
        place.change(n);
    }
    place.good(&["mirror-copy", "-q", &master, &slave]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let file = place.path("small");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&file, format!("{written}")).expect("a file");
                let name = format!("/w{}", written % 20);
                let output = run(&["put", "-q", &master, text(&file), &name]);
                assert_eq!(status(&output), 0, "{}", err(&output));
                written += 1;
            }
            written
        });
        let (mut held, mut overtaken, mut renewed) = (0, 0, 0);
        for (n, from) in [&master, &place.far("host", "master")]
            .repeat(10)
            .iter()
            .enumerate()
        {
            let depth: &[&str] = if n % 4 < 2 { &["--data"] } else { &[] };
            let mut words = vec!["mirror-verify", "-v", "--live", from, &slave];
            words.extend(depth);
            let output = place.run(&words);
            renewed += err(&output).matches("overtaken by a writer").count();
            match status(&output) {
                0 => held += 1,
                9 => {
                    assert!(
                        err(&output).contains("try again once less"),
                        "{}",
                        err(&output)
                    );
                    overtaken += 1;
                }
                code => panic!("{code}: {}{}", out(&output), err(&output)),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let written = writer.join().expect("a writer");
        println!(
            "{held} comparisons beside {written} changes, {overtaken} overtaken, {renewed} views taken anew"
        );
        assert!(held > 0 && written > 0);
    });
}
