//! The names in a database: remove, rename, retain, list (`rawdb_region_iter`).

use std::ffi::c_char;

use super::database::rawdb;
use super::region::rawdb_region_info;
use super::status::{call, call_or, rawdb_status, RAWDB_DONE, RAWDB_OK};
use super::{array, invalid, is_null, object, region_name, Out, StructOut};
use crate::{Error, ErrorKind, RegionInfo};

/// The regions of a database as they were when rawdb_list() was called. One thread at a time may
/// use it. It does not depend on the database and may outlive it.
pub struct rawdb_region_iter {
    /// Names end with NUL.
    regions: Vec<(String, RegionInfo)>,
    next: usize,
}

/// With rawdb_rename(): a region that has the new name already is replaced.
pub const RAWDB_RENAME_REPLACE: u32 = 1;

/// Removes the region `name`. The name is free at once; handles of the region answer
/// RAWDB_E_REMOVED from now on, and are still to be closed; open views of it stay good.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db or name is NULL.
///   RAWDB_E_NOT_FOUND         there is no such region.
///   RAWDB_E_INVALID_NAME      no region can have that name.
///   RAWDB_E_BUSY              an append to it is open (rawdb_region_append_begin).
///   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
///
/// Durable with the next flush; until then a power loss brings the region back as it was last flushed.
/// Its space is free after that flush, and after the last view of it. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_remove(db: *mut rawdb, name: *const c_char) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let (db, name) = unsafe { (object(db, "db")?, region_name(name, "name")?) };
        db.database.remove(name)?;
        Ok(RAWDB_OK)
    })
}

/// Gives the region `from` the name `to`. Handles, views and an open append of it stay good.
///
///   flags  0, or RAWDB_RENAME_REPLACE: a region named `to` is removed in the same step.
///
/// No moment and no crash shows both regions of that name, or neither: "write the new version under
/// another name, rename it over the old one, flush" exchanges contents atomically. Renaming a
/// region to the name it has does nothing.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db, from or to is NULL; flags has unknown bits.
///   RAWDB_E_NOT_FOUND         there is no region named `from`.
///   RAWDB_E_ALREADY_EXISTS    there is one named `to`, and RAWDB_RENAME_REPLACE was not given.
///   RAWDB_E_INVALID_NAME      no region can have the name `from`, or the name `to`.
///   RAWDB_E_BUSY              an append to the region that would be replaced is open
///                             (rawdb_region_append_begin); neither has been renamed or removed.
///   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
///
/// Durable with the next flush. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_rename(
    db: *mut rawdb,
    from: *const c_char,
    to: *const c_char,
    flags: u32,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let db = unsafe { object(db, "db") }?;
        // SAFETY: pointer contract.
        let (from, to) = unsafe { (region_name(from, "from")?, region_name(to, "to")?) };
        let unknown = flags & !RAWDB_RENAME_REPLACE;
        if unknown != 0 {
            return Err(invalid(format!("flags has unknown bits {unknown:#x}")));
        }
        db.database.rename(from, to, flags & RAWDB_RENAME_REPLACE != 0)?;
        Ok(RAWDB_OK)
    })
}

/// Removes every region whose name is not among `names`, all of them in one step, as rawdb_remove()
/// does with one. Names that no region has are ignored, so that (NULL, 0) removes all regions.
///
///   names  `count` strings, in any order; NULL is allowed when count is 0.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db is NULL, or names or one of them is.
///   RAWDB_E_INVALID_NAME      no region can have one of the names.
///   RAWDB_E_BUSY              an append to one of the regions that would be removed is open
///                             (rawdb_region_append_begin).
///   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
///   RAWDB_E_NO_MEMORY         there is no memory for a list of that length.
///   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
///
/// On failure no region has been removed. Durable with the next flush. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_retain(
    db: *mut rawdb,
    names: *const *const c_char,
    count: usize,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let db = unsafe { object(db, "db") }?;
        // SAFETY: pointer contract.
        let given = unsafe { array(names, count, "names") }?;
        let mut names = Vec::new();
        // The caller chose the size.
        names.try_reserve_exact(count).map_err(|_| {
            Error::new(ErrorKind::NoMemory, format!("no memory for a list of {count} names"))
        })?;
        for (i, &name) in given.iter().enumerate() {
            // SAFETY: pointer contract.
            names.push(unsafe { region_name(name, format_args!("names[{i}]")) }?);
        }
        db.database.retain(&names)?;
        Ok(RAWDB_OK)
    })
}

/// Takes a snapshot of names and sizes, sorted by name (byte by byte), to go through with
/// rawdb_region_iter_next(). What happens to the regions later does not change it.
///
///   iter_out  to be freed with rawdb_region_iter_free(). NULL on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db or iter_out is NULL.
///   RAWDB_E_FORKED, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_list(
    db: *mut rawdb,
    iter_out: *mut *mut rawdb_region_iter,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer.
        let iter_out = unsafe { Out::needed(iter_out, "iter_out") }?;
        // SAFETY: pointer contract.
        let mut regions = unsafe { object(db, "db") }?.database.list()?;
        for (name, _) in &mut regions {
            name.push('\0');
        }
        iter_out.put(Box::into_raw(Box::new(rawdb_region_iter { regions, next: 0 })));
        Ok(RAWDB_OK)
    })
}

/// Gives the next region of the snapshot.
///
///   name_out  its name, which belongs to the iterator and is valid until that is freed. NULL
///             unless the call answers RAWDB_OK.
///   info_out  its place and sizes, begun with RAWDB_REGION_INFO_INIT. Zero, but for struct_size,
///             unless the call answers RAWDB_OK.
///
/// RAWDB_OK with a region, RAWDB_DONE after the last one (and again, if called again), or
///   RAWDB_E_INVALID_ARGUMENT  iter, name_out or info_out is NULL, or info_out has a struct_size
///                             that was not set. The iterator has not moved on.
///   RAWDB_E_PANIC
///
/// One thread at a time.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_iter_next(
    iter: *mut rawdb_region_iter,
    name_out: *mut *const c_char,
    info_out: *mut rawdb_region_info,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer. Both outputs are set before
        // the first way out.
        let (name_out, info_out) =
            unsafe { (Out::needed(name_out, "name_out"), StructOut::needed(info_out, "info_out")) };
        let (name_out, info_out) = (name_out?, info_out?);
        // SAFETY: pointer contract, and the header allows one thread at a time.
        let iter = unsafe { iter.as_mut() }.ok_or_else(|| is_null("iter"))?;
        let Some((name, info)) = iter.regions.get(iter.next) else {
            return Ok(RAWDB_DONE);
        };
        iter.next += 1;
        name_out.put(name.as_ptr().cast());
        info_out.put((*info).into());
        Ok(RAWDB_OK)
    })
}

/// Frees an iterator and the names it gave out. NULL does nothing. The last call with `iter`.
///
/// Since 0.1.0.
#[no_mangle]
pub unsafe extern "C" fn rawdb_region_iter_free(iter: *mut rawdb_region_iter) {
    call_or((), || {
        if !iter.is_null() {
            // SAFETY: pointer contract: `rawdb_list` made the box, and this is the last use of it.
            drop(unsafe { Box::from_raw(iter) });
        }
    });
}
