//! Volumes matched to a set (format.md §4.3).

use crate::error::Result;
use crate::format::Fault;
use crate::format::volume::VolumeHeader;
use crate::io::Device;

/// The volumes of one file system, in any order, checked to belong together.
pub struct VolumeSet {}

impl VolumeSet {
    /// Reads the headers of `devices` and checks that they are all volumes of one file system.
    pub fn open(devices: Vec<Box<dyn Device>>) -> Result<VolumeSet> {
        let _ = devices;
        todo!()
    }

    /// The root volume's header as it is on the device.
    pub fn root_header(&self) -> &VolumeHeader {
        todo!()
    }

    /// Every volume's number, device name and header.
    pub fn volumes(&self) -> Vec<(u8, &str, &VolumeHeader)> {
        todo!()
    }

    /// What is advisory and not right: stale header CRCs.
    pub fn warnings(&self) -> &[Fault] {
        todo!()
    }
}
