//! Keys to records: search, range cursors, the TID-filtered scan.

pub mod cursor;
pub mod dump;
mod path;
pub mod record;
pub mod scan;

pub use cursor::{AsOf, Cursor, lookup};
pub use record::{Data, data, good_data};
pub use scan::{LeafStep, Scan, Step};
