//! rawdb is an embedded storage engine: many named, growable byte regions in one memory-mapped
//! file, used like a small file system and read without copying.
//!
//! ```
//! use rawdb::Database;
//!
//! # let dir = tempfile::tempdir()?;
//! let db = Database::open(dir.path())?;
//! let region1 = db.create_region_if_needed("region1")?;
//! let region2 = db.create_region_if_needed("region2")?;
//! region1.write(&[0, 1, 2, 3, 4])?; // appends
//! region2.write_at(&[5, 6, 7, 8, 9], 0)?;
//! db.flush()?;
//! {
//!     let reader = region1.create_reader();
//!     let _data = reader.read_all();
//! }
//! region1.remove()?;
//! db.compact()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Database`] is a directory with two files, and a third while it is open for writing. A [`Region`] is a named run of bytes in it that
//! can be appended to, overwritten, shortened, renamed and removed. A [`View`] is a slice of a
//! region's bytes, straight from the page cache: they do not change, move or vanish while it is
//! open, whatever is done to the region or the database, and nothing ever waits for it.
//!
//! The death of the process loses nothing that had returned. [`Database::flush`] is the point of
//! durability for everything else that can happen. It is atomic over all regions, and writers do not
//! wait for it. A full disk is an error, not a signal.
//!
//! The same engine has a C interface, declared in `include/rawdb.h`.

#[cfg(not(target_os = "linux"))]
compile_error!("rawdb relies on fallocate, hole punching and flock as Linux has them");

mod biased;
mod cancel;
mod database;
mod durable;
mod engine;
mod error;
// Exported by name to C; nothing of it is for Rust.
mod ffi;
mod flush;
mod fork;
mod format;
mod growth;
mod live;
#[cfg(all(test, loom))]
mod models;
mod options;
mod pieces;
mod prefetch;
mod reclaim;
mod recovery;
mod region;
mod resting;
mod space;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod steps;
#[cfg(not(feature = "simulation"))]
mod steps;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod storage;
#[cfg(not(feature = "simulation"))]
mod storage;
mod sync;
mod table;
mod view;

pub use database::{Database, Stats};
pub use error::{Error, ErrorKind, Result};
pub use format::{MAX_NAME_LEN, PAGE_SIZE};
pub use options::Options;
pub use region::{AppendBuffer, Region, RegionInfo};
pub use view::{Reader, View};
