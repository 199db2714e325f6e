//! The command line's contract: help, exit statuses, errors, JSON, names on terminals.

mod common;

use common::golden::testdata;
use common::program::{copy_to, err, events, mallet, out, patch, run, run_on, status, text};
use serde_json::Value;
use std::fs::{self, File};

/// Where the volume header's label and signature stand.
const LABEL: u64 = 0x50;

/// Commands that read a volume and succeed on every sound one.
const READERS: [&str; 17] = [
    "info IMG --map",
    "show IMG",
    "show-undo IMG",
    "blockmap IMG",
    "check IMG --data --mirror-tid",
    "ls IMG",
    "ls -lR IMG /",
    "ls -R --sha256 IMG",
    "stat IMG /",
    "history IMG /",
    "diff IMG --from 0x100000001",
    "pfs-status IMG",
    "snapls IMG",
    "mirror-plan IMG",
    "mirror-plan IMG --from 0x100040000",
    "version IMG",
    "volume-list IMG -v",
];

fn pfs_image() -> String {
    text(&testdata("mirror/pfs.img")).to_owned()
}

fn three_volumes() -> Vec<String> {
    let name = |n| format!("multivol/vol{n}.img");
    (0..3)
        .map(|n| text(&testdata(&name(n))).to_owned())
        .collect()
}

#[test]
fn help_names_what_works() {
    let help = run(&["--help"]);
    assert_eq!(status(&help), 0);
    let shown = out(&help);
    for word in [
        "info",
        "show-undo",
        "check",
        "mirror-read",
        "pfs-status",
        "put",
        "batch",
        "--lock-wait",
        "SPEC is",
    ] {
        assert!(shown.contains(word), "{word} is not in the help");
    }
    for word in ["prune", "recover", "volume-add"] {
        let lists = |line: &str| line.split_whitespace().next() == Some(word);
        assert!(
            !shown.lines().any(lists),
            "{word} is in the help and does not exist"
        );
    }
    for command in READERS.map(|line| line.split(' ').next().unwrap_or_default()) {
        let help = run(&[command, "--help"]);
        assert_eq!(status(&help), 0, "{command}");
        assert!(out(&help).contains("Usage: mallet"), "{command}");
    }
    assert!(out(&run(&["--version"])).starts_with("mallet "));
}

#[test]
fn wrong_command_lines_end_with_2() {
    for line in [
        "",
        "frobnicate",
        "info",
        "info a b",
        "info a#",
        "info @5",
        "check --data",
        "-b 1.5x version a",
        "-S 0 version a",
        "--io fast version a",
        "ls a / --as-of 0xzz",
        "mirror-read a yesterday",
        "info host:/volume",
        "info /",
        "man frobnicate",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = run(&words);
        assert_eq!(status(&output), 2, "{line}: {}", err(&output));
        assert!(!err(&output).is_empty(), "{line}");
        assert_eq!(out(&output), "", "{line}");
    }
}

#[test]
fn scripts_hear_of_wrong_command_lines() {
    let output = run(&["--json", "info"]);
    let events = events(&out(&output), 2);
    assert!(
        events[0]["error"]
            .as_str()
            .is_some_and(|e| e.contains("required"))
    );
    assert_eq!(events[0]["command"], "info");
    // A help text is no event.
    assert!(out(&run(&["--json", "--help"])).contains("Usage"));
}

#[test]
fn errors_name_the_volume_and_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("short"), [1; 100]).expect("a file");
    File::create(at("zeros"))
        .and_then(|f| f.set_len(1 << 20))
        .expect("a file");
    File::create(at("hammer2"))
        .and_then(|f| f.set_len(1 << 20))
        .expect("a file");
    patch(&at("hammer2"), 0, &0x4841_4d32_0517_2011_u64.to_le_bytes());
    let volumes = three_volumes();
    let missing = text(&at("missing")).to_owned();
    let cases = [
        (missing, 5, "No such file"),
        (text(&at("short")).to_owned(), 3, "too few"),
        (text(&at("zeros")).to_owned(), 3, "volume-signature"),
        (text(&at("hammer2")).to_owned(), 3, "HAMMER2"),
        (volumes[0].clone(), 3, "all 3 volumes"),
        (volumes[1].clone(), 3, "no volume 0"),
        (
            format!("{},{}", pfs_image(), pfs_image()),
            3,
            "one volume 0",
        ),
        (
            format!("{},{}", pfs_image(), volumes[1]),
            3,
            "expected file system",
        ),
        (format!("{}#99", pfs_image()), 2, "99"),
        (format!("{}#nobody", pfs_image()), 2, "nobody"),
    ];
    for (spec, code, hint) in cases {
        let line = if spec.contains('#') {
            "ls IMG"
        } else {
            "info IMG"
        };
        let output = run_on(line, &spec);
        let said = err(&output);
        assert_eq!(status(&output), code, "{spec}: {said}");
        assert!(said.contains(hint), "{spec}: {said}");
        let first = spec.split([',', '#']).next().unwrap_or_default();
        let named = volumes.iter().any(|v| said.contains(v.as_str()));
        assert!(named || said.contains(first), "{spec}: {said}");
        assert_eq!(said.matches("mallet: ").count(), 1, "{said}");
        // The same as an event.
        let output = run_on(&format!("--json {line}"), &spec);
        let told = events(&out(&output), code);
        let error = told.last().expect("a summary")["error"]
            .as_str()
            .unwrap_or_default();
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn a_destroyed_pfs_has_a_status() {
    let spec = format!("{}#2", pfs_image());
    let told = events(&out(&run_on("pfs-status --json IMG", &spec)), 0);
    assert_eq!((told.len(), &told[0]["deleted"]), (2, &Value::from(true)));
    let output = run_on("pfs-status IMG", &spec);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(out(&output).ends_with("PFS#2 is destroyed\n"));
    let none = format!("{}#99", pfs_image());
    assert_eq!(status(&run_on("pfs-status IMG", &none)), 2);
}

#[test]
fn check_looks_at_everything_and_counts_what_it_saw() {
    let image = pfs_image();
    let whole = run_on("check --data IMG", &image);
    let part = run_on("check --data IMG#1", &image);
    assert_eq!((status(&part), out(&part)), (0, out(&whole)));
    assert!(err(&part).contains("whole file system"), "{}", err(&part));
    let gauge = err(&run_on("check --data --progress always IMG", &image));
    assert!(gauge.contains("(100 %)"), "{gauge}");
    // The ring of UNDO records is no data.
    let told = events(&out(&run_on("check --data --json IMG", &image)), 0);
    let files: u64 = events(&out(&run_on("show --json IMG", &image)), 0)
        .iter()
        .filter(|e| e["type"] == "record" && e["data_offset"].as_str() >= Some("0xa"))
        .filter_map(|e| e["data_len"].as_u64())
        .sum();
    let summary = told.last().expect("a summary");
    assert_eq!(summary["data_bytes_verified"], files);
    assert!(files > 0);
}

#[test]
fn silent_warnings_are_hinted_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = copy_to(&testdata("mirror/pfs.img"), folder.path(), "img", 0);
    // The header's CRC is advisory: another label makes it stale.
    patch(&copy, LABEL, b"x");
    let shown = out(&run_on("check IMG", text(&copy)));
    assert!(
        shown.ends_with("0 errors, 1 warning; -v shows it\n"),
        "{shown}"
    );
}

#[test]
fn every_reader_reads_every_volume() {
    let three = three_volumes();
    // Volumes in any order.
    let three = format!("{},{},{}", three[2], three[0], three[1]);
    for spec in [
        pfs_image(),
        three,
        text(&testdata("live/start.img")).to_owned(),
    ] {
        for line in READERS {
            let plain = run_on(line, &spec);
            assert_eq!(status(&plain), 0, "{line} {spec}: {}", err(&plain));
            assert!(
                !out(&plain).is_empty() || line.starts_with("snapls"),
                "{line} {spec}"
            );
            let output = run_on(&format!("--json {line}"), &spec);
            assert_eq!(status(&output), 0, "{line} {spec}: {}", err(&output));
            let told = events(&out(&output), 0);
            let command = line.split(' ').next().unwrap_or_default();
            assert_eq!(told.last().expect("a summary")["command"], command);
        }
    }
}

#[test]
fn volumes_that_crashed_read_as_well() {
    for name in ["crash-v3-n180", "crash-v4-n053", "crash-v7-n151-drop2151"] {
        let spec = text(&testdata(&format!("crash/{name}.img"))).to_owned();
        for line in ["info IMG", "ls -lR IMG", "show IMG", "version IMG"] {
            let output = run_on(&format!("-v {line}"), &spec);
            assert_eq!(status(&output), 0, "{line} {name}: {}", err(&output));
            assert!(
                err(&output).contains("not cleanly unmounted"),
                "{line} {name}"
            );
        }
        let told = events(&out(&run_on("info --json IMG", &spec)), 0);
        assert_eq!(told[0]["undo"]["clean"], false);
    }
}

#[test]
fn a_volume_inside_a_larger_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["a@1", "b", "c"];
    let places = [512u64, 1 << 20, 0];
    let mut specs = Vec::new();
    for ((volume, name), at) in three_volumes().iter().zip(names).zip(places) {
        let copy = copy_to(volume.as_ref(), folder.path(), name, at);
        // A name that looks like an offset needs one.
        specs.push(format!("{}@{at}", text(&copy)));
    }
    let spec = specs.join(",");
    let inside = run_on("ls -R --sha256 --json IMG", &spec);
    assert_eq!(status(&inside), 0, "{}", err(&inside));
    let plain = run_on("ls -R --sha256 --json IMG", &three_volumes().join(","));
    assert_eq!(out(&inside), out(&plain));
    let spec = specs[1].replace("@1048576", "@1M");
    let said = err(&run_on("info IMG", &spec));
    assert!(
        said.contains("b@1048576") && said.contains("no volume 0"),
        "{said}"
    );
    let beyond = run_on("info IMG", &specs[1].replace("@1048576", "@1T"));
    assert_eq!(status(&beyond), 2);
}

#[test]
fn a_volume_in_a_partition_is_pointed_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = copy_to(&testdata("mirror/pfs.img"), folder.path(), "disk", 1 << 20);
    // An MBR with one partition from sector 2048 on.
    let sectors = (fs::metadata(&disk).expect("the disk").len() / 512 - 2048) as u32;
    patch(&disk, 446 + 4, &[0x6c]);
    patch(&disk, 446 + 8, &2048u32.to_le_bytes());
    patch(&disk, 446 + 12, &sectors.to_le_bytes());
    patch(&disk, 510, &[0x55, 0xaa]);
    let output = run_on("info IMG", text(&disk));
    assert_eq!(status(&output), 3);
    let spec = format!("{}@1048576", text(&disk));
    assert!(err(&output).contains(&spec), "{}", err(&output));
    assert_eq!(status(&run_on("info IMG", &spec)), 0);
}

#[test]
fn options_before_and_after() {
    let image = pfs_image();
    let before = run_on("-q --json version IMG", &image);
    let after = run_on("version IMG -q --json", &image);
    assert_eq!(out(&before), out(&after));
    assert!(out(&before).contains(r#""version":7"#));
    let quiet = run_on("version -q IMG", &image);
    assert_eq!(out(&quiet).lines().count(), 1);
}

#[test]
fn engines_agree() {
    let image = pfs_image();
    let usual = run_on("show IMG", &image);
    for engine in [
        "--io posix",
        "--io posix --direct off",
        "--direct off",
        "-C 1m",
    ] {
        let output = run_on(&format!("show IMG {engine}"), &image);
        assert_eq!(status(&output), 0, "{engine}: {}", err(&output));
        assert!(out(&output) == out(&usual), "{engine}");
    }
}

#[test]
fn names_cannot_act_on_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = copy_to(
        &testdata("mirror/pfs.img"),
        folder.path(),
        "\x1b]0;x\x07\n.img",
        0,
    );
    // The header's CRC is advisory, so the label can be changed at will.
    patch(&copy, LABEL, b"\x1b[31mred\xff\x9b\0");
    for line in ["info IMG", "volume-list IMG", "-v version IMG"] {
        let output = run_on(line, text(&copy));
        assert_eq!(status(&output), 0, "{line}: {}", err(&output));
        for text in [out(&output), err(&output)] {
            let control = text
                .chars()
                .find(|c| c.is_control() && *c != '\n' && *c != '\t');
            assert_eq!(control, None, "{line}: {text:?}");
        }
    }
    assert!(out(&run_on("info IMG", text(&copy))).contains("\\x1b[31mred\\xff\\x9b"));
    let told = events(&out(&run_on("info --json IMG", text(&copy))), 0);
    assert_eq!(told[0]["label_hex"], "1b5b33316d726564ff9b");
    // An error about such a file is as harmless.
    let missing = err(&run_on("info IMG.no", text(&copy)));
    assert!(
        !missing.contains('\x1b') && missing.contains("\\x1b]0;x"),
        "{missing}"
    );
}

#[test]
fn dumps_agree_with_each_other() {
    for spec in [pfs_image(), three_volumes().join(",")] {
        let told = |line: &str| events(&out(&run_on(line, &spec)), 0);
        let summary = |line: &str| told(line).last().expect("a summary").clone();
        let (check, show) = (summary("check --json IMG"), told("show --json IMG"));
        let count = |kind: &str| show.iter().filter(|event| event["type"] == kind).count();
        assert_eq!(check["nodes"], count("node"), "{spec}");
        assert_eq!(check["records"], count("record"), "{spec}");
        let sound = |event: &&Value| event["type"] == "record" && event["data"] != "good";
        assert_eq!(show.iter().find(sound), None, "{spec}");
        // Records come in the order of their keys.
        let field = |event: &Value, name: &str| -> u64 {
            let digits = event[name]
                .as_str()
                .and_then(|text| text.strip_prefix("0x"));
            u64::from_str_radix(digits.expect("hexadecimal"), 16).expect("digits")
        };
        let keys: Vec<_> = show
            .iter()
            .filter(|event| event["type"] == "record")
            .map(|event| {
                let signed = |name| field(event, name).cast_signed();
                let kind = event["rec_type"].as_u64();
                let place = (field(event, "localization"), signed("obj"), kind);
                (place, signed("key"), field(event, "create_tid"))
            })
            .collect();
        assert!(keys.is_sorted(), "{spec}");
        let zones: u64 = told("info --json IMG")
            .iter()
            .filter(|event| event["type"] == "zone")
            .filter_map(|event| event["bigblocks"].as_u64())
            .sum();
        assert_eq!(summary("blockmap --json IMG")["bigblocks"], zones, "{spec}");
    }
}

#[test]
fn what_is_shown_can_be_chosen() {
    let image = text(&testdata("skips/m.img")).to_owned();
    let all = events(&out(&run_on("show --json IMG", &image)), 0);
    let keys = |events: &[Value]| -> Vec<String> {
        let records = events.iter().filter(|event| event["type"] == "record");
        records
            .map(|r| format!("{}{}{}", r["localization"], r["obj"], r["index"]))
            .collect()
    };
    let last = all
        .iter()
        .rfind(|event| event["type"] == "record")
        .expect("a record");
    let object = last["obj"].as_str().expect("a text");
    for (line, field, value) in [
        (
            "show --json IMG --lo 10001".to_owned(),
            "localization",
            "0x00010001",
        ),
        (format!("show --json IMG --obj {object}"), "obj", object),
    ] {
        let some = events(&out(&run_on(&line, &image)), 0);
        let wanted: Vec<Value> = all
            .iter()
            .filter(|e| e["type"] != "record" || e[field] == value)
            .cloned()
            .collect();
        assert!(!keys(&some).is_empty(), "{line}");
        assert_eq!(keys(&some), keys(&wanted), "{line}");
        let nodes = |events: &[Value]| events.iter().filter(|e| e["type"] == "node").count();
        assert!(nodes(&some) < nodes(&all), "{line} visits everything");
    }
}

#[test]
fn a_damaged_tree_is_shown_with_marks() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = copy_to(&testdata("mirror/pfs.img"), folder.path(), "img", 0);
    let all = events(&out(&run_on("show --json IMG", text(&copy))), 0);
    let info = events(&out(&run_on("info --json IMG", text(&copy))), 0);
    let start = info
        .iter()
        .find(|e| e["type"] == "volume")
        .expect("a volume")["buffer_start"]
        .as_u64()
        .expect("a number");
    let short = |event: &Value, field: &str| {
        let digits = event[field].as_str().and_then(|v| v.strip_prefix("0x"));
        u64::from_str_radix(digits.expect("an address"), 16).expect("digits") & ((1 << 52) - 1)
    };
    let leaf = all.iter().find(|e| e["kind"] == "leaf").expect("a leaf");
    let record = all
        .iter()
        .find(|e| e["type"] == "record")
        .expect("a record");
    // One bit of a leaf's reserved bytes, and one byte of a record's data.
    patch(&copy, start + short(leaf, "at") + 4, &[1]);
    patch(&copy, start + short(record, "data_offset"), &[0xff]);
    let output = run_on("show --json IMG", text(&copy));
    let told = events(&out(&output), 6);
    assert_eq!(status(&output), 6);
    assert_eq!(told.len(), all.len());
    let changed: Vec<&Value> = told
        .iter()
        .zip(&all)
        .filter(|(now, then)| now != then)
        .map(|(now, _)| now)
        .collect();
    assert_eq!(changed[0]["problems"], serde_json::json!(["crc"]));
    assert_eq!(changed[1]["data"], "bad-crc");
    assert_eq!(changed[2]["damaged"], 2);
    assert_eq!(changed.len(), 3);
    // Others refuse it, and say where.
    let output = run_on("ls -R IMG", text(&copy));
    assert_eq!(status(&output), 6, "{}", err(&output));
}

#[test]
fn pages_and_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = mallet()
        .args(["man", "--all"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(status(&output), 0);
    let pages = fs::read_dir(folder.path()).expect("pages").count();
    assert!(pages > 15, "{pages} pages");
    let page = out(&run(&["man", "mirror-read"]));
    assert!(
        page.contains(".SH SYNOPSIS") && page.contains("mallet"),
        "{page}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&run(&["completions", shell]));
        assert!(script.contains("mirror-read"), "{shell}");
    }
}
