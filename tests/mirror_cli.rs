//! `mirror-read`, `mirror-dump` and `mirror-plan` as commands, on the volumes shipped with the
//! project.

mod common;

use assert_cmd::cargo::cargo_bin;
use common::golden::testdata;
use common::patch::Image;
use common::program::{copy_to, patch};
use mallet::format::Offset;
use mallet::format::mrecord::Body;
use mallet::format::node::LeafElement;
use mallet::format::record::rt;
use mallet::mirror::Cycle;
use mallet::mirror::cycle::Found;
use mallet::mirror::dump::Dump;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use zerocopy::IntoBytes;

const INC12: [&str; 3] = ["0x1000b02d1", "--end-tid", "0x1000b83a0"];

fn mallet(args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("mallet"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    mallet(args).output().expect("a command that runs")
}

fn feed(args: &[&str], input: &[u8]) -> Output {
    let mut child = mallet(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a command that runs");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("the writer");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn spec(image: &Path, pfs: u32) -> String {
    format!("{}#{pfs}", image.display())
}

fn events(output: &[u8]) -> Vec<serde_json::Value> {
    let lines = text(output);
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    lines.lines().map(parse).collect()
}

#[test]
fn a_stream_is_read_dumped_and_planned() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let read = output(&[&["mirror-read", &spec], &INC12[..]].concat());
    assert_eq!(read.status.code(), Some(0), "{}", text(&read.stderr));
    assert!(text(&read.stderr).contains("succeeded"));

    let dumped = feed(&["mirror-dump"], &read.stdout);
    assert_eq!(dumped.status.code(), Some(0));
    assert_eq!(
        text(&dumped.stderr),
        "",
        "no complaint about a whole stream"
    );
    let lines = text(&dumped.stdout);
    let count = |word: &str| lines.lines().filter(|line| line.starts_with(word)).count() as u64;
    assert!(count("Record") > 500 && count("Pass") > 500 && count("Skip") > 10);

    let dumped = events(&feed(&["--json", "mirror-dump"], &read.stdout).stdout);
    let of = |kind: &str| dumped.iter().filter(|e| e["type"] == kind).count() as u64;
    assert_eq!((of("rec"), of("pass")), (count("Record"), count("Pass")));
    assert_eq!((of("pfsd"), of("sync"), of("term")), (2, 1, 1));

    let [_, window @ ..] = INC12;
    let plan = output(
        &[
            &["--json", "mirror-plan", &spec, "--from", INC12[0]],
            &window[..],
        ]
        .concat(),
    );
    let plan = &events(&plan.stdout)[0];
    assert_eq!(plan["type"], "plan");
    assert_eq!(plan["stream_bytes"], read.stdout.len());
    assert_eq!(plan["rec"], count("Record"));
    assert_eq!(plan["pass"], count("Pass"));
    assert_eq!(plan["skip"], count("Skip"));
    assert_eq!(plan["window"]["end"], "0x00000001000b83a0");
}

#[test]
fn headers_are_those_of_pfs_status() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let read = output(&[&["mirror-read", &spec], &INC12[..]].concat());
    let header = feed(&["mirror-dump", "header"], &read.stdout);
    assert_eq!(
        text(&header.stdout),
        "    sync-beg-tid=0x0000000000000001\n\
         \x20   sync-end-tid=0x00000001000b83a0\n\
         \x20   shared-uuid=45bfab25-ee10-d74b-87c0-3e37ca6742eb\n\
         \x20   unique-uuid=8ce8f34f-353a-1f42-b107-677ef3ae6c33\n\
         \x20   label=\"\"\n\
         \x20   prune-min=00:00:00\n\
         \x20   operating as a MASTER\n"
    );
}

#[test]
fn an_empty_window_is_idle() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let args = [
        "mirror-read",
        "-B",
        &spec,
        "0x1000b83a1",
        "--end-tid",
        "0x1000b83a0",
    ];
    let read = output(&args);
    assert_eq!(read.status.code(), Some(0));
    assert!(text(&read.stderr).contains("Mirror-read: No work to do"));
    let dumped = events(&feed(&["--json", "mirror-dump"], &read.stdout).stdout);
    let kinds: Vec<_> = dumped
        .iter()
        .map(|e| e["type"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(kinds, ["pfsd", "pfsd", "idle", "term", "summary"]);
}

#[test]
fn slaves_give_what_they_have() {
    let spec = spec(&testdata("mirror/pfs.img"), 5);
    let read = output(&["mirror-read", &spec]);
    assert_eq!(read.status.code(), Some(0), "{}", text(&read.stderr));
    let status = events(&feed(&["--json", "mirror-dump", "header"], &read.stdout).stdout);
    assert_eq!(
        (&status[0]["kind"], &status[0]["type"]),
        (&"slave".into(), &"pfsd".into())
    );
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let pfs = testdata("mirror/pfs.img");
    let skips = spec(&testdata("skips/m.img"), 1);
    for (args, status, complaint) in [
        (vec!["mirror-read", &spec(&pfs, 2)], 2, "destroyed"),
        (vec!["mirror-read", &spec(&pfs, 9)], 2, "no PFS"),
        (
            vec!["mirror-read", &skips, "--end-tid", "0xffffffffffff"],
            2,
            "beyond the last TID",
        ),
    ] {
        let read = output(&args);
        let stderr = text(&read.stderr);
        assert_eq!(read.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
        assert!(read.stdout.is_empty());
    }
}

#[test]
fn broken_streams_are_refused() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let read = output(&[&["mirror-read", &spec], &INC12[..]].concat()).stdout;
    let mut flipped = read.clone();
    flipped[read.len() / 2] ^= 0x40;
    let longer = [&read[..], b"x"].concat();
    for broken in [
        &read[..read.len() - 1],
        &read[..read.len() - 24],
        &flipped,
        &longer,
        b"",
    ] {
        let dumped = feed(&["mirror-dump"], broken);
        assert_eq!(dumped.status.code(), Some(11), "{}", text(&dumped.stderr));
        assert!(text(&dumped.stderr).contains("the stream is broken at byte"));
        let told = events(&feed(&["mirror-dump", "--json"], broken).stdout);
        let summary = told.last().expect("a summary");
        assert_eq!(summary["complete"], false, "{summary}");
        assert_eq!(summary["records"], told.len() - 1, "{summary}");
    }
}

#[test]
fn time_and_bandwidth_are_limited_and_the_rest_follows() {
    let dir = tempfile::tempdir().expect("a folder");
    let cycle = dir.path().join("cycle");
    let cycle = cycle.to_str().expect("a path of text");
    let spec = spec(&testdata("skips/m.img"), 1);
    let all = output(&["mirror-read", "-B", &spec]).stdout;

    let part = output(&[
        "mirror-read",
        "-B",
        "-b",
        "2m",
        "-t",
        "2",
        "-c",
        cycle,
        &spec,
    ]);
    assert_eq!(part.status.code(), Some(9), "{}", text(&part.stderr));
    assert!(text(&part.stderr).contains("interrupted by timer at"));
    let sent = part.stdout.len();
    assert!(
        (1 << 20..6 << 20).contains(&sent),
        "{sent} bytes in about 2 s at 2 MiB/s"
    );
    let dumped = feed(&["mirror-dump"], &part.stdout);
    assert!(text(&dumped.stderr).contains("stopped"));
    assert_eq!(fs::metadata(cycle).expect("a cycle file").len(), 48);

    let rest = output(&["mirror-read", "-B", "-c", cycle, &spec]);
    assert_eq!(rest.status.code(), Some(0), "{}", text(&rest.stderr));
    assert!(text(&rest.stderr).contains("Mirror-read: Resuming at object"));
    // Nothing changed meanwhile: the two are the whole, with one SKIP for what came first.
    let (mut seen, mut expected) = (elements(&part.stdout), elements(&all));
    seen.extend(elements(&rest.stdout));
    seen.dedup();
    expected.dedup();
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected);
}

/// The REC of a stream, as bytes.
fn elements(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut dump = Dump::new(stream);
    let mut elements = Vec::new();
    while let Some(record) = dump.next().expect("a sound stream") {
        if let Body::Record { .. } = record.body {
            elements.push(record.bytes.to_vec());
        }
    }
    elements
}

#[test]
fn a_reader_that_leaves_breaks_the_link() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let mut child = mallet(&["mirror-read", &spec])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a command that runs");
    let mut some = [0; 4096];
    let mut stdout = child.stdout.take().expect("its output");
    stdout.read_exact(&mut some).expect("a part of the stream");
    drop(stdout);
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(11), "{}", text(&output.stderr));
}

/// A copy of the volume in which the data of a record of PFS 1 is damaged; the record's element.
fn damaged(folder: &Path) -> (PathBuf, LeafElement) {
    let from = testdata("skips/m.img");
    let copy = copy_to(&from, folder, "m.img", 0);
    let image = Image::over(&from);
    let place = image.find(|leaf| {
        leaf.base.key().localization.pfs() == 1
            && leaf.base.rec_type.get() == rt::DATA
            && leaf.data_len.get() == 16384
    });
    let at = Offset(place.leaf.data_offset().0 + 5000);
    patch(&copy, image.byte(at), &[image.read(at, 1)[0] ^ 8]);
    (copy, place.leaf)
}

/// The marks of a stream.
fn marks(stream: &[u8]) -> Vec<String> {
    let told = events(&feed(&["--json", "mirror-dump"], stream).stdout);
    let kinds = told.iter().filter_map(|e| e["type"].as_str());
    kinds
        .filter(|kind| ["sync", "idle", "term"].contains(kind))
        .map(str::to_owned)
        .collect()
}

#[test]
fn damage_is_listed_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    let good = output(&["mirror-read", &spec(&testdata("skips/m.img"), 1)]).stdout;
    let (image, leaf) = damaged(dir.path());
    let (spec, object) = (spec(&image, 1), leaf.base.obj_id.get());

    let bad = output(&["mirror-read", &spec]);
    let stderr = text(&bad.stderr);
    assert_eq!(bad.status.code(), Some(6), "{stderr}");
    assert!(
        stderr.contains(&format!("object 0x{object:016x}, bytes ")),
        "{stderr}"
    );
    assert!(stderr.contains("--accept-damage"), "{stderr}");
    assert_eq!(bad.stdout.len(), good.len());
    let dumped = feed(&["mirror-dump"], &bad.stdout);
    assert_eq!(dumped.status.code(), Some(0));
    assert_eq!(text(&dumped.stdout).matches("(BAD CRC)").count(), 1);
    assert_eq!(marks(&bad.stdout), ["idle", "term"]);
    let bad = output(&["--json", "mirror-read", &spec]);
    let told = events(&bad.stderr);
    let damage: Vec<_> = told.iter().filter(|e| e["type"] == "damage").collect();
    assert_eq!((damage.len(), &damage[0]["what"]), (1, &"data-crc".into()));
    assert_eq!(told.last().expect("a summary")["damaged"], 1);

    let accepted = output(&["mirror-read", "--accept-damage", &spec]);
    let stderr = text(&accepted.stderr);
    assert_eq!(accepted.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains(&format!("object 0x{object:016x}, bytes ")));
    assert_eq!(marks(&accepted.stdout), ["sync", "term"]);
}

/// The cycle file of a stream that met damage and was interrupted says to go on at the damage.
#[test]
fn cycle_files_do_not_pass_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let (image, leaf) = damaged(dir.path());
    let (spec, path) = (spec(&image, 1), dir.path().join("cycle"));
    let cycle = path.to_str().expect("a path of text");
    let limits = ["-b", "2m", "-t", "2", "-B", "-c", cycle];
    let part = output(&[&["mirror-read", &spec], &limits[..]].concat());
    let stderr = text(&part.stderr);
    assert_eq!(part.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("interrupted by timer at"), "{stderr}");
    assert_eq!(marks(&part.stdout), ["term"]);
    let Ok(Found::Cycle(file)) = Cycle::load(&path) else {
        panic!("a cycle file")
    };
    assert_eq!(file.stopped_at(1), Some(leaf.base.key()));
    let rest = output(&["mirror-read", &spec, "-B", "-c", cycle]);
    assert_eq!(rest.status.code(), Some(6), "{}", text(&rest.stderr));
    assert_eq!(marks(&rest.stdout), ["idle", "term"]);

    // The original's says nothing of use but the TID.
    let mut forgetful = file;
    forgetful.base.btype = b'R';
    forgetful.store(&path).expect("a cycle file");
    let all = output(&["mirror-read", &spec, "-B", "-c", cycle]);
    assert!(text(&all.stderr).contains("is sent again"));
    assert_eq!(all.stdout, output(&["mirror-read", &spec, "-B"]).stdout);
}

#[test]
fn plans_list_impossible_records() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = testdata("skips/m.img");
    let copy = copy_to(&from, dir.path(), "m.img", 0);
    let image = Image::over(&from);
    let place = image.find(|leaf| {
        leaf.base.key().localization.pfs() == 1 && leaf.base.rec_type.get() == rt::DATA
    });
    image.edit_leaf(&place, |leaf| leaf.data_len.set(-1));
    let node = image.node(place.node);
    patch(&copy, image.byte(place.node), node.as_bytes());
    let spec = spec(&copy, 1);
    let plan = output(&["mirror-plan", &spec]);
    let stderr = text(&plan.stderr);
    assert_eq!(plan.status.code(), Some(6), "{stderr}");
    let object = place.leaf.base.obj_id.get();
    assert!(
        stderr.contains(&format!("object 0x{object:016x}")),
        "{stderr}"
    );
    let told = events(&output(&["--json", "mirror-plan", &spec]).stdout);
    let of = |kind: &str| told.iter().filter(|e| e["type"] == kind).count();
    assert_eq!((of("damage"), of("plan")), (1, 1));
}

/// With -v a stream says what it scans, on standard error; without it does not.
#[test]
fn scans_are_told_to_those_who_ask() {
    let spec = spec(&testdata("skips/m.img"), 1);
    let args = [&["mirror-read", &spec], &INC12[..]].concat();
    let quiet = output(&args);
    let told = output(&[&args[..], &["-v"]].concat());
    assert_eq!(told.stdout, quiet.stdout);
    assert!(!text(&quiet.stderr).contains("scan obj="));
    let stderr = text(&told.stderr);
    let line = stderr.lines().rfind(|line| line.contains("scan obj="));
    let line = line.expect("a line on the scan");
    assert!(
        line.contains(" tids=00000001000b02d1:00000001000b83a0 "),
        "{line}"
    );
    let bytes = line.rsplit(' ').next().and_then(|n| n.parse().ok());
    // All but SYNC and TERM.
    assert_eq!(bytes, Some(quiet.stdout.len() - 2 * 24), "{line}");
}
