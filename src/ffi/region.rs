//! `rawdb_region`: a handle of a region, and everything done with its bytes.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::database::rawdb;
use super::status::{call, call_or, rawdb_status, RAWDB_OK};
use super::view::rawdb_view;
use super::{array, bytes, bytes_mut, invalid, object, region_name, Growable, Out, StructOut};
use crate::{AppendBuffer, Region, RegionInfo, Result};

/// A handle of a region, a named run of bytes: made by rawdb_region_create() or
/// rawdb_region_open(), ended by rawdb_region_close(). Any number of threads may use it at once,
/// and there may be several handles of one region. It may outlive the region and the database; it
/// then answers RAWDB_E_REMOVED or RAWDB_E_CLOSED.
pub struct rawdb_region {
    region: Region,
    append: Mutex<Option<AppendBuffer>>,
}

impl rawdb_region {
    fn into_raw(region: Region) -> *mut rawdb_region {
        Box::into_raw(Box::new(rawdb_region { region, append: Mutex::new(None) }))
    }

    /// The append that is open on this handle. What the lock protects is whole at any time, so a
    /// panic of another holder does not matter; after a fork there may be no holder to let go.
    fn append(&self) -> Result<MutexGuard<'_, Option<AppendBuffer>>> {
        self.check_process()?;
        Ok(self.append.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses a handle in a forked child. To be asked before any lock is taken.
    fn check_process(&self) -> Result<()> {
        self.region.inner.engine.check_process()
    }
}

/// Place and sizes of a region. Begin with RAWDB_REGION_INFO_INIT. Later versions may append
/// members; struct_size tells which of them a program knows.
#[repr(C)]
pub struct rawdb_region_info {
    /// sizeof(rawdb_region_info), set by RAWDB_REGION_INFO_INIT and left as it is.
    pub struct_size: usize,
    /// Where in the data file it begins, at present. 0 if it has never had a byte.
    pub start: u64,
    /// How many bytes it has.
    pub len: u64,
    /// How many it can have without being moved.
    pub reserved: u64,
}

// SAFETY: integers only, without padding, `struct_size` first.
unsafe impl Growable for rawdb_region_info {
    const INIT: &'static str = "RAWDB_REGION_INFO_INIT";
}

impl From<RegionInfo> for rawdb_region_info {
    fn from(info: RegionInfo) -> rawdb_region_info {
        rawdb_region_info {
            struct_size: size_of::<rawdb_region_info>(),
            start: info.start,
            len: info.len,
            reserved: info.reserved,
        }
    }
}

/// Opens the region `name`, creating it, empty, if there is none.
///
///   name        1 to RAWDB_MAX_NAME_LEN bytes of UTF-8 without control characters.
///   region_out  to be closed with rawdb_region_close(). NULL on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db, name or region_out is NULL.
///   RAWDB_E_INVALID_NAME      name is not as described.
///   RAWDB_E_READ_ONLY         there is no such region, and the database cannot be changed.
///   RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
///   RAWDB_E_PANIC
///
/// The creation is durable with the next flush. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_create(
    db: *mut rawdb,
    name: *const c_char,
    region_out: *mut *mut rawdb_region,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer.
        let region_out = unsafe { Out::needed(region_out, "region_out") }?;
        // SAFETY: pointer contract.
        let (db, name) = unsafe { (object(db, "db")?, region_name(name, "name")?) };
        region_out.put(rawdb_region::into_raw(db.database.create_region_if_needed(name)?));
        Ok(RAWDB_OK)
    })
}

/// Opens the region `name`, which must exist.
///
///   region_out  to be closed with rawdb_region_close(). NULL on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  db, name or region_out is NULL.
///   RAWDB_E_NOT_FOUND         there is no such region.
///   RAWDB_E_INVALID_NAME      no region can have that name.
///   RAWDB_E_FORKED, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_open(
    db: *mut rawdb,
    name: *const c_char,
    region_out: *mut *mut rawdb_region,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer.
        let region_out = unsafe { Out::needed(region_out, "region_out") }?;
        // SAFETY: pointer contract.
        let (db, name) = unsafe { (object(db, "db")?, region_name(name, "name")?) };
        region_out.put(rawdb_region::into_raw(db.database.region(name)?));
        Ok(RAWDB_OK)
    })
}

/// Frees a handle; the region itself, other handles and views of it stay as they are. An append
/// that was begun with this handle and not ended is abandoned. NULL does nothing.
///
/// Any thread, also after rawdb_close(), but it is the last call with `region`: no other may be
/// running.
///
/// Since 0.1.0.
#[no_mangle]
pub unsafe extern "C" fn rawdb_region_close(region: *mut rawdb_region) {
    call_or((), || {
        if !region.is_null() {
            // SAFETY: pointer contract: `into_raw` made the box, and this is the last use of it.
            let region = unsafe { Box::from_raw(region) };
            if region.check_process().is_err() {
                // At the fork another thread may have been freeing the append that is still noted
                // here; only that thread would know, and the child does not have it.
                std::mem::forget(region);
            }
        }
    });
}

/// Appends `len` bytes. Appends from several threads land one after the other, each in one piece.
///
///   data        the bytes; NULL is allowed when len is 0. It may be a view's.
///   offset_out  where in the region the first of them is, or NULL. 0 on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL, or data is and len is not 0.
///   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_TOO_LARGE         the region cannot be that long.
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
///
/// On failure the region is as before. Visible at once, durable with the next flush: none of the
/// bytes, or all. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_append(
    region: *mut rawdb_region,
    data: *const c_void,
    len: usize,
    offset_out: *mut u64,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let offset_out = unsafe { Out::optional(offset_out) };
        // SAFETY: pointer contract.
        let (region, data) = unsafe { (object(region, "region")?, bytes(data, len, "data")?) };
        offset_out.put(region.region.write(data)?);
        Ok(RAWDB_OK)
    })
}

/// Writes `len` bytes at `offset`, over what is there, and past the end of the region where they
/// reach beyond it. offset may be anything from 0 to the region's length.
///
///   data  the bytes; NULL is allowed when len is 0. It may be a view's.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL, or data is and len is not 0.
///   RAWDB_E_OUT_OF_BOUNDS     offset is beyond the end of the region.
///   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_TOO_LARGE         the region cannot be that long.
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
///
/// On failure the region is as before; except that on a copy-on-write file system RAWDB_E_NO_SPACE
/// may come in the middle of an overwrite, and leave some of its pages overwritten (DISK SPACE). A
/// view keeps the bytes it shows: where they would be overwritten, the region is moved. Visible at once, durable with the next flush; before that,
/// bytes below the last flushed length may or may not survive, each 512-byte sector by itself (see
/// DURABILITY). Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_write_at(
    region: *mut rawdb_region,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let (region, data) = unsafe { (object(region, "region")?, bytes(data, len, "data")?) };
        region.region.write_at(data, offset)?;
        Ok(RAWDB_OK)
    })
}

/// Writes `count` values of `value_len` bytes each, each at its offset, within the present
/// length of the region: all of them or, when it fails, none. Where values overlap, the later one
/// counts. It is one write to other writers of the region, and much cheaper than many.
///
///   offsets  `count` of them, in any order; ascending is fastest.
///   values   `count * value_len` bytes, one value after the other. Either may be NULL when it has
///            nothing to hold.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL, or offsets or values is where something is needed;
///                             count * value_len is more than memory can hold.
///   RAWDB_E_OUT_OF_BOUNDS     one of the values would not end within the region.
///   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE,
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
///
/// Views and durability as with rawdb_region_write_at(). Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_write_batch(
    region: *mut rawdb_region,
    offsets: *const u64,
    values: *const c_void,
    value_len: usize,
    count: usize,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let (region, offsets) =
            unsafe { (object(region, "region")?, array(offsets, count, "offsets")?) };
        let len = count.checked_mul(value_len).ok_or_else(|| {
            invalid(format!("{count} values of {value_len} bytes are more than memory can hold"))
        })?;
        // SAFETY: pointer contract.
        let values = unsafe { bytes(values, len, "values") }?;
        region.region.write_batch(offsets, values, value_len)?;
        Ok(RAWDB_OK)
    })
}

/// Shortens the region to `len` bytes. It only shortens: to the length it has is allowed and does
/// nothing.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL.
///   RAWDB_E_OUT_OF_BOUNDS     len is more than the region has.
///   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
///   RAWDB_E_IO                a sync failed earlier; see rawdb_flush().
///   RAWDB_E_PANIC
///
/// Views keep the bytes they show. Visible at once, durable with the next flush. That flush returns
/// the disk space behind the new end where it is large (rawdb_options.reclaim_threshold), otherwise
/// rawdb_compact() does. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_truncate(
    region: *mut rawdb_region,
    len: u64,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(region, "region") }?.region.truncate(len)?;
        Ok(RAWDB_OK)
    })
}

/// Writes `len` bytes at `offset` and lets the region end with them: its length is offset + len
/// afterwards, in one step. offset may be anything from 0 to the region's length.
///
/// Parameters, statuses, views and durability as with rawdb_region_write_at(): RAWDB_OK, or
/// RAWDB_E_INVALID_ARGUMENT, RAWDB_E_OUT_OF_BOUNDS, RAWDB_E_BUSY, RAWDB_E_REMOVED, RAWDB_E_CLOSED,
/// RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY,
/// RAWDB_E_IO, RAWDB_E_PANIC. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_truncate_write(
    region: *mut rawdb_region,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let (region, data) = unsafe { (object(region, "region")?, bytes(data, len, "data")?) };
        region.region.truncate_write(offset, data)?;
        Ok(RAWDB_OK)
    })
}

/// Gives writable room of `len` bytes, to be filled in place and appended by
/// rawdb_region_append_end(): an append without copying. Nothing is visible before that.
///
/// Until then, whatever would write to the region or remove it, through any handle, by
/// rawdb_remove(), rawdb_retain() or a replacing rawdb_rename(), answers RAWDB_E_BUSY and changes
/// nothing; views and other regions are not affected.
///
///   buffer_out  the room, what is in it is undefined. Any thread may fill it. It belongs to the
///               library and is valid until rawdb_region_append_end(), or rawdb_region_close() on
///               this handle, which abandons the append. NULL on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region or buffer_out is NULL.
///   RAWDB_E_BUSY              an append is open, on this handle or another.
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_TOO_LARGE         the region cannot be that long.
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_append_begin(
    region: *mut rawdb_region,
    len: usize,
    buffer_out: *mut *mut c_void,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; NULL is a value of a raw pointer.
        let buffer_out = unsafe { Out::needed(buffer_out, "buffer_out") }?;
        // SAFETY: pointer contract.
        let region = unsafe { object(region, "region") }?;
        let mut buffer = region.region.append_begin(len)?;
        let room = buffer.as_mut_ptr();
        // The engine has one append open per region, so this handle has none.
        *region.append()? = Some(buffer);
        buffer_out.put(room.cast());
        Ok(RAWDB_OK)
    })
}

/// Appends the first `written` bytes of the room that rawdb_region_append_begin() gave on this
/// handle, and ends the append. 0 appends nothing, so that it abandons the append.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL, or no append is open on this handle.
///   RAWDB_E_OUT_OF_BOUNDS     written is more than was asked for.
///   RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY,
///   RAWDB_E_IO, RAWDB_E_PANIC
///
/// On failure nothing has been appended, and the append is still open: the room is valid until
/// another call of this function succeeds, or rawdb_region_close().
///
/// Visible at once, durable with the next flush, as with rawdb_region_append(). Any thread, not
/// only the one that began; nobody may be writing to the room any more.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_append_end(
    region: *mut rawdb_region,
    written: usize,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let region = unsafe { object(region, "region") }?;
        let mut append = region.append()?;
        let Some(buffer) = &*append else {
            return Err(invalid("no append is open on this handle".to_owned()));
        };
        buffer.publish(written)?;
        *append = None;
        Ok(RAWDB_OK)
    })
}

/// Sets room aside so that the region can grow to `capacity` bytes without being moved, and
/// allocates the disk space: until it is that long, appends cannot fail with RAWDB_E_NO_SPACE (this
/// second part not with RAWDB_OPEN_GUARDED). The room is kept, also when the region moves to leave
/// viewed bytes behind, until rawdb_compact(), which returns what is not in use. A smaller capacity
/// than there is does nothing; the length does not change.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL.
///   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
///   RAWDB_E_TOO_LARGE         no region can be that long.
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_reserve(
    region: *mut rawdb_region,
    capacity: u64,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(region, "region") }?.region.reserve(capacity)?;
        Ok(RAWDB_OK)
    })
}

/// Copies `len` bytes from `offset` into `buffer`. All of them must be within the region. What is
/// copied was there at one moment, also while other threads write.
///
///   buffer  NULL is allowed when len is 0. Filled with zeros on failure.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL, or buffer is and len is not 0.
///   RAWDB_E_OUT_OF_BOUNDS     the bytes are not all within the region.
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_read(
    region: *mut rawdb_region,
    offset: u64,
    buffer: *mut c_void,
    len: usize,
) -> rawdb_status {
    // SAFETY: pointer contract; nobody else uses the buffer during the call.
    let buffer = || unsafe { bytes_mut(buffer, len, "buffer") };
    let status = call(|| {
        // SAFETY: pointer contract.
        unsafe { object(region, "region") }?.region.read(offset, buffer()?)?;
        Ok(RAWDB_OK)
    });
    if status != RAWDB_OK {
        call_or((), || buffer().unwrap_or_default().fill(0));
    }
    status
}

/// Gives the bytes of the region from `offset` on, without copying them. See rawdb_view for what
/// a view promises.
///
///   len       how many bytes, all within the region; or RAWDB_TO_END. offset may be the length of
///             the region; the view is empty then.
///   view_out  the view, to be released with rawdb_view_release(). Zero on failure. It is written
///             over: release what it holds first.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region or view_out is NULL.
///   RAWDB_E_OUT_OF_BOUNDS     the bytes are not all within the region.
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
///
/// Takes tens of nanoseconds, whatever the length, unless it has to wait for an overwrite (see
/// THREAD SAFETY). What is viewed is not durable for being visible. Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_view(
    region: *mut rawdb_region,
    offset: u64,
    len: u64,
    view_out: *mut rawdb_view,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract; all zeros is an empty view.
        let view_out = unsafe { Out::needed(view_out, "view_out") }?;
        // SAFETY: pointer contract.
        let view = unsafe { object(region, "region") }?.region.view(offset, len)?;
        view_out.put(view.into());
        Ok(RAWDB_OK)
    })
}

/// How many bytes the region has. 0 for NULL, when the region has been removed or the database
/// closed, and in a forked child; rawdb_region_get_info() tells that apart from an empty region.
/// Cannot fail; any thread.
///
/// Since 0.1.0.
#[no_mangle]
pub unsafe extern "C" fn rawdb_region_len(region: *const rawdb_region) -> u64 {
    call_or(0, || {
        // SAFETY: pointer contract.
        let region = unsafe { region.as_ref() }.filter(|it| it.check_process().is_ok());
        region.map_or(0, |region| region.region.len())
    })
}

/// Copies the name of the region into `buffer`, as snprintf() would: at most capacity - 1 bytes,
/// and a NUL after them. It returns the length of the whole name in bytes, without the NUL, so that
/// capacity or more means that the name was cut off (perhaps within a character). With a capacity
/// of 0 nothing is written, and buffer may be NULL. RAWDB_MAX_NAME_LEN + 1 bytes are always enough.
///
/// After rawdb_rename() it is the new name, after rawdb_remove() or rawdb_close() the last one. For
/// a region of NULL, and in a forked child, it is "". Cannot fail; any thread.
///
/// Since 0.1.0.
#[no_mangle]
pub unsafe extern "C" fn rawdb_region_name(
    region: *const rawdb_region,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    call_or(0, || {
        let room = if buffer.is_null() { 0 } else { capacity };
        if room > 0 {
            // SAFETY: pointer contract; there is room for one byte.
            unsafe { buffer.write(0) };
        }
        // SAFETY: pointer contract.
        let region = unsafe { region.as_ref() }.filter(|it| it.check_process().is_ok());
        let Some(region) = region else {
            return 0;
        };
        let name = region.region.inner.name();
        if room > 0 {
            let copied = name.len().min(room - 1);
            // SAFETY: pointer contract; copied + 1 is at most the room.
            unsafe {
                ptr::copy_nonoverlapping(name.as_ptr().cast(), buffer, copied);
                buffer.add(copied).write(0);
            }
        }
        name.len()
    })
}

/// Tells place and sizes of the region.
///
///   info_out  begun with RAWDB_REGION_INFO_INIT. Zero on failure, but for struct_size.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region or info_out is NULL, or struct_size was not set (the struct
///                             is then left as it is).
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_get_info(
    region: *const rawdb_region,
    info_out: *mut rawdb_region_info,
) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        let info_out = unsafe { StructOut::needed(info_out, "info_out") }?;
        // SAFETY: pointer contract.
        info_out.put(unsafe { object(region, "region") }?.region.info()?.into());
        Ok(RAWDB_OK)
    })
}

/// As rawdb_flush(), for the bytes and the length of this region alone, atomically; other regions
/// may or may not become durable with it.
///
/// RAWDB_OK, or
///   RAWDB_E_INVALID_ARGUMENT  region is NULL.
///   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED
///   RAWDB_E_IO                a sync failed, now or earlier; see rawdb_flush().
///   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
///
/// Any thread.
///
/// Since 0.1.0.
#[no_mangle]
#[must_use]
pub unsafe extern "C" fn rawdb_region_flush(region: *mut rawdb_region) -> rawdb_status {
    call(|| {
        // SAFETY: pointer contract.
        unsafe { object(region, "region") }?.region.flush()?;
        Ok(RAWDB_OK)
    })
}
