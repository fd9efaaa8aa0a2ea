// Writes to a database, opens it again, reads what it wrote, and meets an error.
package main

/*
#cgo pkg-config: rawdb
#include <stdlib.h>
#include <rawdb.h>
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

// A status and what the thread that met it says about it.
type Error struct {
	Status  C.rawdb_status
	Message string
}

func (e *Error) Error() string {
	return C.GoString(C.rawdb_status_name(e.Status)) + ": " + e.Message
}

// The last error is the thread's, and a goroutine may go on on another thread between two calls.
func call(f func() C.rawdb_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := f(); status != C.RAWDB_OK {
		return &Error{status, C.GoString(C.rawdb_last_error())}
	}
	return nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(path string, flags C.uint32_t) (db *C.rawdb, err error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	options := C.rawdb_options{flags: flags}
	options.struct_size = C.size_t(unsafe.Sizeof(options))
	err = call(func() C.rawdb_status { return C.rawdb_open(name, &options, &db) })
	return
}

func openRegion(db *C.rawdb, name string) (region *C.rawdb_region, err error) {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	err = call(func() C.rawdb_status { return C.rawdb_region_open(db, cName, &region) })
	return
}

func createRegion(db *C.rawdb, name string) (region *C.rawdb_region, err error) {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	err = call(func() C.rawdb_status { return C.rawdb_region_create(db, cName, &region) })
	return
}

func main() {
	path := "journal.rawdb"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}

	db, err := open(path, 0)
	check(err)
	region, err := createRegion(db, "journal")
	check(err)
	hello, world := []byte("hello, "), []byte("world\n")
	check(call(func() C.rawdb_status {
		return C.rawdb_region_truncate_write(region, 0, unsafe.Pointer(&hello[0]),
			C.size_t(len(hello)))
	}))
	check(call(func() C.rawdb_status {
		return C.rawdb_region_append(region, unsafe.Pointer(&world[0]), C.size_t(len(world)), nil)
	}))
	check(call(func() C.rawdb_status { return C.rawdb_flush(db) }))
	C.rawdb_region_close(region)
	check(call(func() C.rawdb_status { return C.rawdb_close(db) }))

	db, err = open(path, C.RAWDB_OPEN_NO_CREATE)
	check(err)
	region, err = openRegion(db, "journal")
	check(err)
	var view C.rawdb_view
	check(call(func() C.rawdb_status {
		return C.rawdb_region_view(region, 0, C.RAWDB_TO_END, &view)
	}))
	// Not a copy: the slice is good until the view is released.
	os.Stdout.Write(unsafe.Slice((*byte)(view.data), view.len))
	C.rawdb_view_release(&view)
	C.rawdb_region_close(region)

	if _, err = openRegion(db, "missing"); err != nil {
		fmt.Println(err)
	}
	check(call(func() C.rawdb_status { return C.rawdb_close(db) }))
}
