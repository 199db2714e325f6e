//! The volume headers, as far as opening them has not proved them (format.md §21 rule 1).

use super::Run;
use crate::format::volume::VolumeHeader;
use crate::format::{Fault, Offset, Rule, Zone};
use std::mem::offset_of;

/// Checks the blockmap of `header`, the root header of the picture, and reports stale CRCs.
pub(super) fn check(run: &mut Run<'_>, header: &VolumeHeader) {
    for fault in run.media.stale.clone() {
        let name = run.media.name(fault.at).to_owned();
        run.sink.warn(fault, name);
    }
    for zone in (8..16).map(Zone) {
        let entry = header.zone(zone);
        let place = offset_of!(VolumeHeader, blockmap) + 40 * usize::from(zone.0);
        let at = Offset::new(Zone::RAW_VOLUME, 0, place as u64);
        for (name, value) in [
            ("next_offset", entry.next_offset.get()),
            ("alloc_offset", entry.alloc_offset.get()),
        ] {
            // The iterator stands at the start of the next zone once a zone is used to its end.
            let end = name == "next_offset" && value == (u64::from(zone.0) + 1) << 60;
            if Offset(value).zone() != zone && !(end && zone.0 < 15) {
                let expected = format!("a {name} in {zone}");
                let fault = Fault::new(Rule::Blockmap, at, expected, Offset(value));
                run.sink.error(fault, format!("blockmap entry of {zone}"));
            }
        }
    }
}
