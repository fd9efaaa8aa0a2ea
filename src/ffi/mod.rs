//! The C interface. `include/rawdb.h` is generated from the items and doc comments in this module,
//! which therefore speak to a C programmer. Nothing lives here but conversion, checks and the guard
//! that keeps panics inside.
//!
//! Pointer contract, on which the `unsafe` blocks stand: every pointer that a caller passes is
//! NULL, or valid and aligned for what the header says about that parameter, for as long as the
//! call lasts; a handle came from this library and has not been closed. NULL is checked for, the
//! rest cannot be.
#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_void, CStr};
use std::fmt::Display;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use crate::{Error, ErrorKind, Result};

mod database;
#[cfg(test)]
mod layout;
mod library;
mod names;
mod region;
mod status;
#[cfg(test)]
mod tests;
mod view;

/// A struct whose later versions may have more members.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct_size: usize`, has only integers for members, so that
/// every bit pattern is a value, and has no padding.
unsafe trait Growable {
    /// The macro that initialises it in C.
    const INIT: &'static str;
}

/// `struct_size` and one member more: less is not a struct that any header has declared.
const MIN_STRUCT_SIZE: usize = 16;
/// More is not a newer version but a `struct_size` that was never set; bytes that far out must not
/// even be looked at.
const MAX_STRUCT_SIZE: usize = 4096;

#[cold]
fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cold]
fn is_null(what: impl Display) -> Error {
    invalid(format!("{what} is NULL"))
}

/// # Safety
/// The pointer contract, for an object that nobody changes through another pointer meanwhile.
unsafe fn object<'a, T>(ptr: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { ptr.as_ref() }.ok_or_else(|| is_null(what))
}

/// Where `count` values of the caller's are, checked for what a slice must not be: at NULL, or
/// larger than any object in memory. Without values it may be anywhere, so it is not looked at.
#[inline]
fn buffer<T>(ptr: *const T, count: usize, what: &str) -> Result<*const T> {
    if count == 0 {
        return Ok(NonNull::dangling().as_ptr());
    }
    if ptr.is_null() || count > isize::MAX as usize / size_of::<T>() {
        return Err(no_buffer(ptr.is_null(), count, what));
    }
    Ok(ptr)
}

#[cold]
fn no_buffer(null: bool, count: usize, what: &str) -> Error {
    invalid(match null {
        true => format!("{what} is NULL, but its length is {count}"),
        false => format!("{what} has a length of {count}, more than memory can hold"),
    })
}

/// # Safety
/// The pointer contract.
unsafe fn array<'a, T>(ptr: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    let ptr = buffer(ptr, count, what)?;
    // SAFETY: the caller's promise, and what `buffer` checked.
    Ok(unsafe { slice::from_raw_parts(ptr, count) })
}

/// # Safety
/// The pointer contract.
unsafe fn bytes<'a>(ptr: *const c_void, len: usize, what: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { array(ptr.cast(), len, what) }
}

/// # Safety
/// The pointer contract, for a buffer that nobody else uses meanwhile.
unsafe fn bytes_mut<'a>(ptr: *mut c_void, len: usize, what: &str) -> Result<&'a mut [u8]> {
    let ptr = buffer(ptr.cast::<u8>(), len, what)?;
    // SAFETY: the caller's promise, and what `buffer` checked.
    Ok(unsafe { slice::from_raw_parts_mut(ptr.cast_mut(), len) })
}

/// # Safety
/// The pointer contract, for a string that ends with NUL.
unsafe fn c_str<'a>(ptr: *const c_char, what: impl Display) -> Result<&'a CStr> {
    if ptr.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: the caller's promise; not NULL.
    Ok(unsafe { CStr::from_ptr(ptr) })
}

/// # Safety
/// The pointer contract, for a string that ends with NUL.
unsafe fn region_name<'a>(ptr: *const c_char, what: impl Display) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let name = unsafe { c_str(ptr, &what) }?;
    name.to_str().map_err(|error| {
        Error::new(
            ErrorKind::InvalidName,
            format!("{what} \"{}\" is not UTF-8: {error}", name.to_bytes().escape_ascii()),
        )
    })
}

/// An output: zero from the start, so that it is set on every way out of the call.
struct Out<T>(*mut T);

impl<T> Out<T> {
    /// An output that the caller may leave out by passing NULL.
    ///
    /// # Safety
    /// The pointer contract; all zeros is a value of `T`.
    unsafe fn optional(ptr: *mut T) -> Out<T> {
        if !ptr.is_null() {
            // SAFETY: the caller's promise; not NULL.
            unsafe { ptr.write_bytes(0, 1) };
        }
        Out(ptr)
    }

    /// # Safety
    /// As for `optional`.
    unsafe fn needed(ptr: *mut T, what: &str) -> Result<Out<T>> {
        // SAFETY: the caller's promise.
        let out = unsafe { Out::optional(ptr) };
        if ptr.is_null() {
            return Err(is_null(what));
        }
        Ok(out)
    }

    fn put(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: `optional` was promised a pointer that is valid for this call; not NULL.
            unsafe { self.0.write(value) };
        }
    }
}

/// `struct_size` of a struct of the caller's, within reason.
///
/// # Safety
/// The pointer contract.
unsafe fn struct_size<T: Growable>(ptr: *const T, what: &str) -> Result<usize> {
    if ptr.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: the caller's promise; not NULL, and every `Growable` begins with this member.
    let size = unsafe { ptr.cast::<usize>().read() };
    if !(MIN_STRUCT_SIZE..=MAX_STRUCT_SIZE).contains(&size) {
        return Err(invalid(format!(
            "{what} has a struct_size of {size}: initialise it with {}",
            T::INIT
        )));
    }
    Ok(size)
}

/// Reads a struct of a caller who may know fewer members (they are zero) or more of them (they must
/// be zero).
///
/// # Safety
/// The pointer contract, for `struct_size` bytes.
unsafe fn read_struct<T: Growable>(ptr: *const T, what: &str) -> Result<T> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(ptr, what) }?;
    let known = size.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller's promise covers `size` bytes, `value` has room for `known` of them, and
    // every bit pattern is a value of a `Growable`.
    let (value, tail) = unsafe {
        ptr::copy_nonoverlapping(ptr.cast::<u8>(), value.as_mut_ptr().cast(), known);
        (value.assume_init(), slice::from_raw_parts(ptr.cast::<u8>().add(known), size - known))
    };
    if tail.iter().any(|&byte| byte != 0) {
        return Err(invalid(format!(
            "{what} sets members that this version of the library does not know \
             (struct_size {size}, known are {known} bytes)"
        )));
    }
    Ok(value)
}

/// An output struct of a caller who may know fewer members (only those are written) or more of them
/// (they become zero). All but `struct_size` is zero from the start, as with [`Out`].
struct StructOut<T> {
    ptr: *mut T,
    size: usize,
}

impl<T: Growable> StructOut<T> {
    /// # Safety
    /// The pointer contract, for `struct_size` bytes.
    unsafe fn needed(ptr: *mut T, what: &str) -> Result<StructOut<T>> {
        // SAFETY: the caller's promise.
        let size = unsafe { struct_size(ptr, what) }?;
        let first = size_of::<usize>();
        // SAFETY: the caller's promise covers `size` bytes, and `size` is at least MIN_STRUCT_SIZE.
        unsafe { ptr.cast::<u8>().add(first).write_bytes(0, size - first) };
        Ok(StructOut { ptr, size })
    }

    fn put(self, value: T) {
        let first = size_of::<usize>();
        let known = self.size.min(size_of::<T>());
        // SAFETY: `needed` was promised `size` bytes, valid for this call, and `value` has `known`
        // of them, initialised because a `Growable` has no padding.
        unsafe {
            ptr::copy_nonoverlapping(
                ptr::from_ref(&value).cast::<u8>().add(first),
                self.ptr.cast::<u8>().add(first),
                known - first,
            );
        }
    }
}
