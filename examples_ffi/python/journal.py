"""Writes to a database, opens it again, reads what it wrote, and meets an error."""

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

OPEN_NO_CREATE = 2
TO_END = 2**64 - 1


class Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("min_file_len", c_uint64),
        ("max_address_space", c_uint64),
        ("reclaim_threshold", c_uint64),
    ]


class View(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("len", c_size_t), ("pin_", c_void_p)]


class Error(Exception):
    """A status and what the library says about it."""


library = ctypes.CDLL("librawdb.so.0")
library.rawdb_status_name.restype = c_char_p
library.rawdb_last_error.restype = c_char_p


def check(status, _function, _arguments):
    if status != 0:
        name, message = library.rawdb_status_name(status), library.rawdb_last_error()
        raise Error(f"{name.decode()}: {message.decode()}")


def function(name, *arguments, result=c_int32):
    f = library[name]
    f.argtypes, f.restype = arguments, result
    if result is c_int32:
        f.errcheck = check
    return f


rawdb_open = function("rawdb_open", c_char_p, POINTER(Options), POINTER(c_void_p))
rawdb_flush = function("rawdb_flush", c_void_p)
rawdb_close = function("rawdb_close", c_void_p)
region_create = function("rawdb_region_create", c_void_p, c_char_p, POINTER(c_void_p))
region_open = function("rawdb_region_open", c_void_p, c_char_p, POINTER(c_void_p))
region_close = function("rawdb_region_close", c_void_p, result=None)
region_append = function(
    "rawdb_region_append", c_void_p, c_char_p, c_size_t, POINTER(c_uint64)
)
region_truncate_write = function(
    "rawdb_region_truncate_write", c_void_p, c_uint64, c_char_p, c_size_t
)
region_view = function("rawdb_region_view", c_void_p, c_uint64, c_uint64, POINTER(View))
view_release = function("rawdb_view_release", POINTER(View), result=None)


def main(path):
    db, region, view = c_void_p(), c_void_p(), View()

    rawdb_open(path, None, byref(db))
    region_create(db, b"journal", byref(region))
    region_truncate_write(region, 0, b"hello, ", 7)
    region_append(region, b"world\n", 6, None)
    rawdb_flush(db)
    region_close(region)
    rawdb_close(db)

    options = Options(struct_size=ctypes.sizeof(Options), flags=OPEN_NO_CREATE)
    rawdb_open(path, byref(options), byref(db))
    region_open(db, b"journal", byref(region))
    region_view(region, 0, TO_END, byref(view))
    sys.stdout.write(ctypes.string_at(view.data, view.len).decode())
    view_release(byref(view))
    region_close(region)

    try:
        region_open(db, b"missing", byref(region))
    except Error as error:
        print(error)
    rawdb_close(db)


main((sys.argv[1] if len(sys.argv) > 1 else "journal.rawdb").encode())
