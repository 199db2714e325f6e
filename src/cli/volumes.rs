//! What a file system is made of: `info`, `version`, `volume-list`.

use super::args::{InfoArgs, SpecArgs};
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open};
use super::show::open_damaged;
use super::{Context, Exit, Outcome, escape, size};
use crate::format::volume::{VERSION_MAX, VERSION_MIN, VolumeHeader};
use crate::format::{BIGBLOCK, Offset, Zone};
use crate::fs::{pfs, snapshot};
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use crate::store::usage::{self, Usage};
use serde_json::{Value, json};
use std::io::Write;
use uuid::Uuid;

/// What each version of the file system brought.
const VERSIONS: [(u32, &str); 7] = [
    (1, "the first"),
    (2, "directory entries beside the inodes"),
    (3, "snapshots and configuration kept on the volume"),
    (4, "UNDO in 512-byte steps with sequence numbers, REDO"),
    (5, "deduplication"),
    (6, "a directory hash that keeps similar names together"),
    (7, "CRC-32C"),
];

/// `version`.
pub fn version(args: &SpecArgs, cx: &Context) -> Outcome {
    let opened = open(cx, &args.spec)?;
    let current = opened.view.version();
    cx.events
        .summary(json!({"version": current, "min": VERSION_MIN, "max": VERSION_MAX}));
    if cx.json() {
        return Ok(Exit::Done);
    }
    let mut out = cx.out();
    writeln!(
        out,
        "version {current} (known: {VERSION_MIN} to {VERSION_MAX})"
    )?;
    if cx.ui.level() >= 0 {
        for (version, what) in VERSIONS {
            let mark = if version == current { '*' } else { ' ' };
            writeln!(out, "{mark} {version}  {what}")?;
        }
    }
    Ok(Exit::Done)
}

/// `volume-list`.
pub fn list(args: &SpecArgs, cx: &Context) -> Outcome {
    let opened = open(cx, &args.spec)?;
    let mut out = cx.out();
    for (number, name, header) in opened.view.volumes().volumes() {
        if cx.json() {
            cx.events
                .emit("volume", volume_event(number, name, header))?;
            continue;
        }
        let name = escape::name(name.as_bytes());
        match (cx.ui.level() > 0, number) {
            (false, _) => writeln!(out, "{name}")?,
            (true, 0) => writeln!(out, "0\t{name} (root)")?,
            (true, number) => writeln!(out, "{number}\t{name}")?,
        }
    }
    Ok(Exit::Done)
}

fn volume_event(number: u8, name: &str, header: &VolumeHeader) -> Value {
    json!({
        "number": number,
        "name": name,
        "root": number == 0,
        "version": header.version.get(),
        "buffer_start": header.buf_beg.get(),
        "buffer_bytes": header.buffer_space(),
    })
}

/// `info`.
pub fn info(args: &InfoArgs, cx: &Context) -> Outcome {
    let mut opened = open_damaged(cx, &args.spec)?;
    let version = opened.view.version();
    let mut used = Usage::default();
    let mut maps: Vec<(u8, String)> = Vec::new();
    let mut meter = cx.meter("info", "big-blocks");
    let mut status = Status::default();
    usage::walk(&mut opened.view, |block| {
        used.add(block, version);
        status.items += 1;
        if args.map {
            let volume = block.at.volume();
            if maps.last().is_none_or(|(number, _)| *number != volume) {
                maps.push((volume, String::new()));
            }
            if let Some((_, map)) = maps.last_mut() {
                map.push(symbol(block.entry.owner(), block.entry.bytes_free.get()));
            }
        }
        meter.at(&status)
    })?;
    drop(meter);
    file_system(cx, &opened)?;
    zones(cx, &used)?;
    volumes(cx, &opened)?;
    table(cx, &mut opened)?;
    for (number, map) in maps {
        draw(cx, number, &map)?;
    }
    Ok(Exit::Done)
}

fn file_system(cx: &Context, opened: &Opened) -> anyhow::Result<()> {
    let view = &opened.view;
    let (header, undone) = (view.header(), view.undone());
    let fsid = Uuid::from_bytes_le(header.fsid);
    let ring = header.zone(Zone::UNDO);
    let (first, next) = (ring.first_offset.get(), ring.next_offset.get());
    if cx.json() {
        let mut fields = Fields::new();
        put_name(&mut fields, "label", header.label());
        let more = json!({
            "fsid": fsid.to_string(),
            "version": header.version.get(),
            "volumes": header.vol_count.get(),
            "bigblocks": header.stat_bigblocks.get(),
            "bigblocks_free": header.stat_freebigblocks.get(),
            "inodes": header.stat_inodes.get(),
            "next_tid": hex(header.next_tid.get()),
            "btree_root": hex(header.btree_root.get()),
            "undo": {
                "bytes": header.undo_bytes(),
                "first": hex(first),
                "next": hex(next),
                "clean": undone.records == 0,
                "records": undone.records,
                "bytes_to_undo": undone.bytes,
            },
        });
        cx.events
            .emit("filesystem", super::show::with(Value::Object(fields), more))?;
        return Ok(());
    }
    let mut out = cx.out();
    let blocks = |count: i64| {
        let bytes = u64::try_from(count).unwrap_or(0).saturating_mul(BIGBLOCK);
        format!("{count} big-blocks ({})", size::human(bytes))
    };
    writeln!(out, "label        {}", escape::name(header.label()))?;
    writeln!(out, "file system  {fsid}")?;
    writeln!(out, "version      {}", header.version)?;
    writeln!(out, "space        {}", blocks(header.stat_bigblocks.get()))?;
    writeln!(
        out,
        "free         {}",
        blocks(header.stat_freebigblocks.get())
    )?;
    writeln!(out, "inodes       {}", header.stat_inodes)?;
    writeln!(out, "next TID     {}", header.next_tid())?;
    writeln!(out, "B-Tree root  {}", Offset(header.btree_root.get()))?;
    let state = match undone.records {
        0 => "nothing to undo".to_owned(),
        records => format!("{records} records ({}) to undo", size::human(undone.bytes)),
    };
    writeln!(
        out,
        "UNDO FIFO    {}, {state}",
        size::human(header.undo_bytes())
    )?;
    Ok(())
}

fn zones(cx: &Context, used: &Usage) -> anyhow::Result<()> {
    let mut out = cx.out();
    if !cx.json() {
        writeln!(out, "\nowner          big-blocks        used        free")?;
    }
    for (zone, usage) in (0u8..).map(Zone).zip(&used.zones) {
        if usage.bigblocks == 0 {
            continue;
        }
        let free = u64::try_from(usage.bytes_free).unwrap_or(0);
        let bytes = u64::try_from(usage.bytes_used()).unwrap_or(0);
        if cx.json() {
            cx.events.emit(
                "zone",
                json!({
                    "zone": zone.0,
                    "owner": zone.label(),
                    "bigblocks": usage.bigblocks,
                    "bytes_used": usage.bytes_used(),
                    "bytes_free": usage.bytes_free,
                }),
            )?;
            continue;
        }
        writeln!(
            out,
            "{:2} {:11} {:10}  {:>10}  {:>10}",
            zone.0,
            zone.label(),
            usage.bigblocks,
            size::human(bytes),
            size::human(free)
        )?;
    }
    if used.damaged > 0 {
        let text = format!(
            "{} entries of the freemap are damaged; see check",
            used.damaged
        );
        cx.ui.warn(text);
    }
    Ok(())
}

fn volumes(cx: &Context, opened: &Opened) -> anyhow::Result<()> {
    let mut out = cx.out();
    if !cx.json() {
        writeln!(out, "\nvolume")?;
    }
    for (number, name, header) in opened.view.volumes().volumes() {
        if cx.json() {
            cx.events
                .emit("volume", volume_event(number, name, header))?;
            continue;
        }
        let name = escape::name(name.as_bytes());
        let space = size::human(header.buffer_space());
        writeln!(out, "{number:6}  {space:>10}  {name}")?;
    }
    Ok(())
}

/// The PFSs, each with the number of its snapshots.
fn table(cx: &Context, opened: &mut Opened) -> anyhow::Result<()> {
    let pfss = pfs::all(&mut opened.view)?;
    if !cx.json() {
        writeln!(
            cx.out(),
            "\nPFS     kind       snapshots  end                 label"
        )?;
    }
    for pfs in pfss {
        let snapshots = snapshot::count(&mut opened.view, pfs.id)?;
        if cx.json() {
            let mut fields = Fields::new();
            fields.insert("id".into(), pfs.id.into());
            put_name(&mut fields, "label", pfs.data.label());
            let more = json!({
                "kind": if pfs.is_slave() { "slave" } else { "master" },
                "deleted": pfs.is_deleted(),
                "sync_end_tid": hex(pfs.sync_end.0),
                "snapshots": snapshots,
            });
            cx.events
                .emit("pfs", super::show::with(Value::Object(fields), more))?;
            continue;
        }
        let kind = match (pfs.is_deleted(), pfs.is_slave()) {
            (true, _) => "destroyed",
            (false, true) => "slave",
            (false, false) => "master",
        };
        let label = escape::name(pfs.data.label());
        writeln!(
            cx.out(),
            "{:6}  {kind:9}  {snapshots:9}  {}  {label}",
            pfs.id,
            pfs.sync_end
        )?;
    }
    Ok(())
}

/// Big-blocks on one line of a map.
const MAP_WIDTH: usize = 64;

/// One big-block on the map: who owns it; in upper case more than half full.
fn symbol(owner: Zone, free: i32) -> char {
    let symbol = match owner {
        Zone::FREE => return '.',
        Zone::UNDO => return 'u',
        Zone::FREEMAP => return 'f',
        Zone::UNAVAILABLE => return '-',
        Zone::BTREE => 'b',
        Zone::META => 'm',
        Zone::LARGE_DATA => 'd',
        Zone::SMALL_DATA => 's',
        _ => return '?',
    };
    match i64::from(free) * 2 < BIGBLOCK.cast_signed() {
        true => symbol.to_ascii_uppercase(),
        false => symbol,
    }
}

fn draw(cx: &Context, volume: u8, map: &str) -> anyhow::Result<()> {
    if cx.json() {
        cx.events
            .emit("map", json!({"volume": volume, "bigblocks": map}))?;
        return Ok(());
    }
    let mut out = cx.out();
    writeln!(
        out,
        "\nvolume {volume}, a character for 8 MiB: . free, b B-Tree, m meta, d large data, s small \
         data, u UNDO,\nf freemap; upper case: more than half full"
    )?;
    // Every symbol is one byte.
    for (line, symbols) in map.as_bytes().chunks(MAP_WIDTH).enumerate() {
        let start = Offset::new(
            Zone::RAW_BUFFER,
            volume,
            (line * MAP_WIDTH) as u64 * BIGBLOCK,
        );
        writeln!(out, "{start}  {}", String::from_utf8_lossy(symbols))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_told() {
        let told: Vec<u32> = VERSIONS.iter().map(|(version, _)| *version).collect();
        let known: Vec<u32> = (VERSION_MIN..=VERSION_MAX).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn symbols() {
        let half = BIGBLOCK as i32 / 2;
        assert_eq!(symbol(Zone::META, half), 'm');
        assert_eq!(symbol(Zone::META, half - 1), 'M');
        // Deduplication makes it more than full.
        assert_eq!(symbol(Zone::LARGE_DATA, i32::MIN), 'D');
        assert_eq!(symbol(Zone(13), 0), '?');
    }
}
