//! Keys to records: search, range cursors, the TID-filtered scan, changes.

pub mod cursor;
pub mod dump;
pub mod edit;
mod path;
pub mod put;
pub mod record;
pub mod scan;

pub use cursor::{AsOf, Cursor, lookup};
pub use edit::Editor;
pub use record::{Data, data, good_data};
pub use scan::{LeafStep, Scan, Step};
