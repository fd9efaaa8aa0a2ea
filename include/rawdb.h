/*
 * rawdb: an embedded storage engine.
 *
 * A database is a directory. It holds any number of regions: named runs of bytes that grow, that
 * are written and read in place through one memory mapping, and that become durable together, in
 * one atomic flush.
 *
 *
 * QUICK EXAMPLE
 *
 *     #include <rawdb.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         rawdb *db = NULL;
 *         rawdb_region *log = NULL;
 *         rawdb_view view = RAWDB_VIEW_INIT;
 *         rawdb_status s, closed;
 *
 *         s = rawdb_open("example.rawdb", NULL, &db);
 *         if (s == RAWDB_OK) s = rawdb_region_create(db, "log", &log);
 *         if (s == RAWDB_OK) s = rawdb_region_append(log, "hello\n", 6, NULL);
 *         if (s == RAWDB_OK) s = rawdb_flush(db);
 *         if (s == RAWDB_OK) s = rawdb_region_view(log, 0, RAWDB_TO_END, &view);
 *         if (s == RAWDB_OK) fwrite(view.data, 1, view.len, stdout);
 *         if (s != RAWDB_OK) fprintf(stderr, "%s: %s\n", rawdb_status_name(s), rawdb_last_error());
 *
 *         rawdb_view_release(&view);
 *         rawdb_region_close(log);
 *         closed = rawdb_close(db);
 *         return s == RAWDB_OK && closed == RAWDB_OK ? 0 : 1;
 *     }
 *
 *
 * ARGUMENTS AND RESULTS
 *
 * A function that can fail returns a rawdb_status: RAWDB_OK (0), or a negative RAWDB_E_* constant.
 * A call that fails has changed nothing, unless its description says otherwise, and
 * rawdb_last_error() has the details. RAWDB_E_INVALID_ARGUMENT is the answer to NULL where
 * something is needed, and to a buffer or array of the caller's of more than PTRDIFF_MAX bytes;
 * only an empty buffer, (NULL, 0), and what is said to be optional may be NULL. RAWDB_E_PANIC can
 * come from any of them, and should never.
 *
 * Outputs (parameters named ..._out) come back set whenever they are not NULL: the result on
 * success; NULL or zero on failure, also if another argument is the reason.
 *
 * Structs that may grow begin with struct_size, which their RAWDB_..._INIT macro sets. A program
 * and a library of different versions get along: members that the program does not know are taken
 * as zero and not written, members that the library does not know are set to zero, or must be zero
 * where they are input. A struct_size below 16 or above 4096 was not set, and is refused.
 *
 *
 * THREAD SAFETY
 *
 * Any number of threads may use a rawdb or a rawdb_region at once. What a call wrote is seen by
 * every call that begins after it has returned.
 *
 * Writers of one region take turns. Nobody ever waits for an open view. Opening or releasing one,
 * and so rawdb_region_read(), can wait for an overwrite in place of the same region that is copying
 * its bytes just then, and never for a sync. Writes and views of different regions do not slow each
 * other down, except where a region has to be given more space.
 *
 * The exceptions:
 *
 * - Close and free functions are the last use of what they end: no other call with it may be
 *   running.
 * - A rawdb_region_iter and a rawdb_view struct are for one thread at a time. The bytes of a view
 *   are for any number.
 * - rawdb_last_error() and rawdb_last_os_error() are about the calling thread.
 * - Nothing here may be called from a signal handler.
 *
 * No call is a cancellation point: a thread that is cancelled (pthread_cancel) meanwhile finishes the
 * call first, and ends at the next cancellation point of the program. Asynchronous cancelability
 * must be off during calls.
 *
 *
 * OWNERSHIP
 *
 * What rawdb_open(), rawdb_region_create(), rawdb_region_open(), rawdb_list() and
 * rawdb_region_view() give is the caller's, to be ended with rawdb_close(), rawdb_region_close(),
 * rawdb_region_iter_free() and rawdb_view_release(): once, in any order, also when the database has
 * been closed or the region removed. All four accept NULL.
 *
 * The library never gives out memory for free(), and keeps no pointer to the caller's memory after
 * a call has returned. How long a pointer of the library is valid is said where it is given out.
 *
 *
 * DURABILITY
 *
 * What survives what:
 *
 *                               process death    power loss, kernel crash, restart
 *   a call that has returned    yes              no
 *   a completed rawdb_flush()   yes              yes
 *
 * What a call has written is seen at once by every call after it. It outlives the process: when that
 * is killed, aborts or crashes, and the system stays up, the next rawdb_open() finds the effect of
 * every call that had returned, at once and with nothing to repair. (A call that had not is found done
 * or not done; where it overwrites bytes in place, perhaps in part.) That holds for the files where
 * they are: a copy of them is as of the last flush. It takes a third file beside the two others,
 * "live", which rawdb_close() removes, and a system that has /proc.
 *
 * rawdb_flush() makes durable what was written before it. It is atomic and about everything: after
 * a power loss or a crash of the kernel the database opens as it stood at the last completed flush,
 * or at one that was in progress; never a mixture of the two, never a length without its bytes,
 * never a removed region back. What came after that flush is gone, with one exception.
 *
 * The exception: bytes that a flush has made durable and that were then overwritten in place
 * (rawdb_region_write_at, _write_batch, _truncate_write, or a truncation and new appends) are, for
 * each 512-byte sector by itself, as of the flush or as of one of the writes since. Where that is
 * not good enough, write the new contents to a region of another name, rawdb_rename() it over the
 * old one with RAWDB_RENAME_REPLACE, and flush: that is atomic.
 *
 * A flush trusts the device: on one that reports a sync as done before it is, nothing can be
 * durable. When a sync fails, what had been written since the last flush may be lost already and
 * must not be built upon: all writing and flushing answers RAWDB_E_IO until the database is
 * reopened, and then it is as of the last flush.
 *
 *
 * DISK SPACE
 *
 * A full disk is a status, RAWDB_E_NO_SPACE, never a signal: space is allocated before it is
 * written to.
 *
 * The data file is sparse; what counts is not its length but the disk that it occupies. That is
 * taken, and returned without being asked, in pieces of 2 MiB, aligned in the file, because the
 * kernel may use pages of up to that size and a store into one allocates all of it. Small regions
 * share pieces. What is free within a piece that is in use is returned by rawdb_compact(), and at
 * the end of the file by rawdb_close(). With RAWDB_OPEN_GUARDED there are no such pieces.
 *
 * A call that fails has changed nothing, with one exception: on a copy-on-write file system (btrfs,
 * zfs, xfs with reflink copies) an overwrite of several pages (rawdb_region_write_at, _write_batch,
 * _truncate_write) may meet the full disk between two of them, and what came before cannot be put
 * back, because that takes space as well. The same holds where a device fails again. The length is
 * as before, and each page of 4 KiB in the range as before or as written.
 *
 *
 * MEMORY
 *
 * Where address space runs out, or the heap has no room for something of a size that the caller
 * or the files chose, the answer is RAWDB_E_NO_MEMORY. That is with guarded writes (see CAVEATS) the
 * room of an append and a copy of what is overwritten, the list of names to be retained, and the
 * table of a database that is opened:
 *
 *   rawdb_region_append_begin(), rawdb_region_write_at(), rawdb_region_write_batch(),
 *   rawdb_region_truncate_write(), rawdb_retain(), rawdb_open()
 *
 * What else the library takes from the heap is small, or grows with the number of regions. When
 * that cannot be had, the process ends by abort(), as Rust programs do; what was flushed is safe.
 * A call that succeeds takes nothing from the heap if it is one of these:
 *
 *   rawdb_version_number(), rawdb_version_string(), rawdb_status_name(), rawdb_status_message(),
 *   rawdb_last_os_error(), rawdb_get_stats(), rawdb_region_iter_next(), rawdb_region_iter_free(),
 *   rawdb_region_close(), rawdb_region_read(), rawdb_region_view(), rawdb_region_len(),
 *   rawdb_region_name(), rawdb_region_get_info()
 *
 * (but for the first time that two threads meet in opening views of one region), and, in a region
 * that has been changed since the last flush, has room for the bytes (rawdb_region_reserve) and is
 * not viewed where they go, without guarded writes:
 *
 *   rawdb_region_append(), rawdb_region_write_at(), rawdb_region_write_batch(),
 *   rawdb_region_truncate(), rawdb_region_truncate_write(), rawdb_region_append_begin(),
 *   rawdb_region_append_end()
 *
 * Any other call may end the process so, and also one that fails, as it keeps a message.
 *
 *
 * CAVEATS
 *
 * - fork(), also _Fork() and clone(): a database belongs to the process that opened it, so open
 *   databases after the fork. In a child every call with an inherited rawdb or rawdb_region answers
 *   RAWDB_E_FORKED, reading ones too; those without a status answer as for NULL. Closing handles and
 *   releasing views there does nothing to the files or the parent. The bytes of an inherited view are
 *   good for as long as the parent keeps it, and until the child calls rawdb_close(). A child that
 *   lives on (a daemon) should call that: it closes the descriptors and unmaps the database, so that
 *   the lock goes with the parent. Without it the lock stays with the child until that ends or calls
 *   exec (descriptors are close-on-exec). Before Linux 4.14, and in emulators, fork() alone is noticed.
 *   Of a process with threads, fork() alone makes a child that may call anything here: the other two
 *   leave it the C library's own locks as they are.
 * - A filter of system calls (seccomp) that refuses membarrier() has to be set before the process opens
 *   a database, in all threads that use it. One that comes later may end the process by abort(), with
 *   a message on stderr: threads could no longer take turns safely.
 * - Every call gets by with 32 KiB of stack, so that fibers can make it, in a release build and without
 *   the progress function's own. A panic takes more where RUST_BACKTRACE has it print where it was.
 * - Network file systems (NFS, SMB and the like) keep neither locks nor mappings in step between
 *   machines. Do not put a database there.
 * - A disk that is taken away after the death of a process, and comes back without a restart of the
 *   system, has lost what was not written to it. The library notices that for file systems directly
 *   on a disk (from Linux 5.15 on), and opens the database as of its last flush; elsewhere remove the
 *   file "live" first. Where the process that died could ask the system for the number of the disk and
 *   the one that opens cannot (a sandbox), or the other way round, rawdb_open() answers RAWDB_E_IO.
 * - A directory for a new database is new or empty (RAWDB_OPEN_SHARE_DIRECTORY has it shared). Files of
 *   other programs are never overwritten or removed, also not where they have the names of a database's.
 * - Other programs must not change the files of an open database. One that shortens the data file
 *   makes this process die of SIGBUS; one that writes to it changes what views show.
 * - To copy a database, close it first. A copy of the files of an open one is at best the last
 *   flush, and may be none. After the death of a process, open and close it first, or the copy is as
 *   of the last flush.
 * - A disk that cannot read its own bytes back (a media error) makes reading them through the
 *   mapping end in SIGBUS, for rawdb_region_read() as for views. Only the disk knows; there is no
 *   checksum over the bytes of regions.
 * - Where a block that has been allocated is not certain to be there when it is stored to (no
 *   fallocate(), copy-on-write, an unknown file system), the library writes as with
 *   RAWDB_OPEN_GUARDED by itself, so that a full disk is a status there too.
 * - Beyond the limit on the size of files (ulimit -f) a call answers RAWDB_E_TOO_LARGE. Only where the
 *   limit is lowered below the size of an open database may there be a SIGXFSZ, until it has been flushed.
 * - The data file is mapped into a large window of reserved address space. Under a limit on that
 *   (ulimit -v, valgrind) the library takes a smaller one by itself, and leaves 16 MiB to the heap.
 * - Files are mapped without being locked in memory, also after mlockall(MCL_FUTURE), and are not in
 *   core dumps, whatever coredump_filter says. madvise(MADV_DODUMP) has the bytes of a view dumped.
 */

#ifndef RAWDB_H
#define RAWDB_H

/* Made from src/ffi by tests/header.rs: change that, not this. */

#include <stddef.h>
#include <stdint.h>

/* The version of this header; rawdb_version_number() tells that of the library in use. Before 1.0,
 * another minor version may be another interface. */
#define RAWDB_VERSION_MAJOR 0
#define RAWDB_VERSION_MINOR 1
#define RAWDB_VERSION_PATCH 0
#define RAWDB_VERSION_STRING "0.1.0"
/* For comparisons, in the preprocessor too. */
#define RAWDB_VERSION_NUMBER \
  (RAWDB_VERSION_MAJOR * 1000000 + RAWDB_VERSION_MINOR * 1000 + RAWDB_VERSION_PATCH)

/* Stands before every function. Define it before including this header to have something else
 * there. */
#ifndef RAWDB_API
#if defined(__GNUC__)
#define RAWDB_API __attribute__((visibility("default")))
#else
#define RAWDB_API
#endif
#endif

/* Stands before every function that can fail: the compiler warns if its status is not looked at.
 * Define it as nothing before including this header to turn that off. */
#ifndef RAWDB_NODISCARD
#if defined(__GNUC__)
#define RAWDB_NODISCARD __attribute__((warn_unused_result))
#else
#define RAWDB_NODISCARD
#endif
#endif

/* Initialisers: rawdb_options options = RAWDB_OPTIONS_INIT; */
#define RAWDB_OPTIONS_INIT { sizeof(rawdb_options), 0, 0, 0, 0, 0 }
#define RAWDB_STATS_INIT { sizeof(rawdb_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define RAWDB_REGION_INFO_INIT { sizeof(rawdb_region_info), 0, 0, 0 }
#define RAWDB_VIEW_INIT { NULL, 0, NULL }


/**
 * The longest name of a region in bytes, without the NUL that ends it.
 */
#define RAWDB_MAX_NAME_LEN 1024

/**
 * Open for reading only: the database must exist, nothing is written to it, and every call that
 * would change it answers RAWDB_E_READ_ONLY. It can be open so any number of times at once, in one
 * process or several, while nobody has it open for writing.
 */
#define RAWDB_OPEN_READ_ONLY 1

/**
 * Do not create the database: RAWDB_E_NOT_FOUND if there is none.
 */
#define RAWDB_OPEN_NO_CREATE 2

/**
 * Only create the database: RAWDB_E_ALREADY_EXISTS if there is one.
 */
#define RAWDB_OPEN_CREATE_NEW 4

/**
 * Map the region bytes read-only and write them with pwrite(): a stray pointer of the program then
 * faults instead of corrupting the database, for a system call per write.
 */
#define RAWDB_OPEN_GUARDED 8

/**
 * Create the database in a directory that holds other files, too. Without this flag such a directory is
 * refused: the path may be a mistake.
 */
#define RAWDB_OPEN_SHARE_DIRECTORY 16

/**
 * With rawdb_rename(): a region that has the new name already is replaced.
 */
#define RAWDB_RENAME_REPLACE 1

/**
 * Length of a view that goes from its offset to the end of the region.
 */
#define RAWDB_TO_END UINT64_MAX

/**
 * An open database: made by rawdb_open(), ended by rawdb_close(). Any number of threads may use it
 * at once.
 */
typedef struct rawdb rawdb;

/**
 * A handle of a region, a named run of bytes: made by rawdb_region_create() or
 * rawdb_region_open(), ended by rawdb_region_close(). Any number of threads may use it at once,
 * and there may be several handles of one region. It may outlive the region and the database; it
 * then answers RAWDB_E_REMOVED or RAWDB_E_CLOSED.
 */
typedef struct rawdb_region rawdb_region;

/**
 * The regions of a database as they were when rawdb_list() was called. One thread at a time may
 * use it. It does not depend on the database and may outlive it.
 */
typedef struct rawdb_region_iter rawdb_region_iter;

/**
 * What a call answers: RAWDB_OK, RAWDB_DONE (rawdb_region_iter_next only), or one of the negative
 * RAWDB_E_* constants. The numbers are never changed or used again for something else; later
 * versions may add some, so treat every negative value as a failure. rawdb_last_error() has the
 * details of a failure.
 */
typedef int32_t rawdb_status;

/**
 * How rawdb_open() opens. Begin with RAWDB_OPTIONS_INIT, which asks for the defaults, and change
 * what you need:
 *
 *   rawdb_options options = RAWDB_OPTIONS_INIT;
 *   options.flags = RAWDB_OPEN_NO_CREATE;
 *
 * Later versions may append members; struct_size tells which of them a program knows.
 */
typedef struct rawdb_options {
  /**
   * sizeof(rawdb_options), set by RAWDB_OPTIONS_INIT.
   */
  size_t struct_size;
  /**
   * RAWDB_OPEN_* flags, or-ed. READ_ONLY or NO_CREATE cannot be together with CREATE_NEW.
   */
  uint32_t flags;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Let the data file never be shorter than so many bytes. It is sparse: this costs no disk
   * space, and spares growing it step by step. 0: as long as needed.
   */
  uint64_t min_file_len;
  /**
   * Take at most so many bytes of address space for mapping the data file. A database that needs
   * more does not open, and growing beyond it fails: RAWDB_E_NO_MEMORY. 0: the library's choice:
   * four times the file, and 1 TiB at first; less where many databases are open in the process, and
   * half of what ulimit -v leaves at most, as long as the file fits.
   */
  uint64_t max_address_space;
  /**
   * Return disk space without being asked: after a flush, stretches of freed space of at least
   * so many bytes become holes in the data file, as far as they are whole pieces (see DISK
   * SPACE). 0: 1 MiB. UINT64_MAX: never, rawdb_compact() does.
   */
  uint64_t reclaim_threshold;
} rawdb_options;

/**
 * What rawdb_compact() calls before each of its steps: `done` of `total` are behind it. Anything
 * but 0 stops the work.
 *
 * It runs on the thread that called rawdb_compact(), before that call returns. It may call
 * anything but rawdb_close() on this database; rawdb_compact() on it answers RAWDB_E_BUSY, and by
 * another thread waits for this one to return. It must return: no exception, no longjmp() and no
 * pthread_exit() may leave it; pthread_cancel() takes effect after rawdb_compact(). (In the child of
 * a fork() that it makes, rawdb_compact() answers RAWDB_E_FORKED.)
 */
typedef int32_t (*rawdb_progress_fn)(void *context, uint64_t done, uint64_t total);

/**
 * What a database consists of at one moment. Begin with RAWDB_STATS_INIT. Later versions may
 * append members; struct_size tells which of them a program knows.
 */
typedef struct rawdb_stats {
  /**
   * sizeof(rawdb_stats), set by RAWDB_STATS_INIT and left as it is.
   */
  size_t struct_size;
  /**
   * Regions.
   */
  uint64_t region_count;
  /**
   * Bytes in regions: the sum of their lengths.
   */
  uint64_t live_bytes;
  /**
   * Bytes of the data file set aside for regions to grow into, their lengths included.
   */
  uint64_t reserved_bytes;
  /**
   * Bytes of the data file that are free for use by any region.
   */
  uint64_t free_bytes;
  /**
   * Bytes that were given up and become free with the next flush.
   */
  uint64_t pending_bytes;
  /**
   * Bytes that were given up and become free when the views of them are released.
   */
  uint64_t pinned_bytes;
  /**
   * Length of the data file, most of which may be holes.
   */
  uint64_t file_len;
  /**
   * Bytes of disk that the data file occupies (see DISK SPACE).
   */
  uint64_t disk_bytes;
  /**
   * Grows with every flush that had a change of the region table to write: of a length, a name
   * or a place. Overwriting in place is none.
   */
  uint64_t generation;
} rawdb_stats;

/**
 * Place and sizes of a region. Begin with RAWDB_REGION_INFO_INIT. Later versions may append
 * members; struct_size tells which of them a program knows.
 */
typedef struct rawdb_region_info {
  /**
   * sizeof(rawdb_region_info), set by RAWDB_REGION_INFO_INIT and left as it is.
   */
  size_t struct_size;
  /**
   * Where in the data file it begins, at present. 0 if it has never had a byte.
   */
  uint64_t start;
  /**
   * How many bytes it has.
   */
  uint64_t len;
  /**
   * How many it can have without being moved.
   */
  uint64_t reserved;
} rawdb_region_info;

/**
 * Bytes of a region as they were when rawdb_region_view() was called. They never change, move or
 * vanish until rawdb_view_release(), whatever happens to region and database meanwhile; and no
 * call waits or fails because of a view. What it costs: space that was given up stays occupied,
 * and an overwrite of viewed bytes moves the region instead, so release views that are no longer
 * needed.
 *
 * The struct belongs to the caller. A copy of it is the same view: release one of them, once.
 */
typedef struct rawdb_view {
  /**
   * The bytes, for reading only; any number of threads may read them. Must not be looked at when
   * len is 0, and may be NULL then.
   */
  const uint8_t *data;
  /**
   * How many there are.
   */
  size_t len;
  /**
   * The library's own.
   */
  const void *pin_;
} rawdb_view;

/**
 * The call did what it was asked to do.
 */
#define RAWDB_OK 0

/**
 * There is nothing more to iterate over. Not an error.
 */
#define RAWDB_DONE 1

/**
 * An argument is NULL, out of range, or contradicts another.
 */
#define RAWDB_E_INVALID_ARGUMENT -1

/**
 * There is no region, or no database, of that name.
 */
#define RAWDB_E_NOT_FOUND -2

/**
 * There is a region, or a database, of that name already, or files of other programs where a database is
 * to be created.
 */
#define RAWDB_E_ALREADY_EXISTS -3

/**
 * An offset or a length reaches beyond the region, or beyond the buffer that was asked for.
 */
#define RAWDB_E_OUT_OF_BOUNDS -4

/**
 * The size asked for exceeds what a file, or a limit on files, or this format allows.
 */
#define RAWDB_E_TOO_LARGE -5

/**
 * The name is empty, longer than RAWDB_MAX_NAME_LEN bytes, not UTF-8, or has control characters.
 */
#define RAWDB_E_INVALID_NAME -6

/**
 * The database is open already, in this process or in another.
 */
#define RAWDB_E_LOCKED -7

/**
 * The region has an append open (rawdb_region_append_begin), or rawdb_compact() is called by its own
 * callback.
 */
#define RAWDB_E_BUSY -8

/**
 * The region has been removed; this handle is of no more use than to be closed.
 */
#define RAWDB_E_REMOVED -9

/**
 * The database has been closed; this handle is of no more use than to be closed.
 */
#define RAWDB_E_CLOSED -10

/**
 * The database is open for reading only.
 */
#define RAWDB_E_READ_ONLY -11

/**
 * The handle was inherited through fork() or clone(); it belongs to the parent process.
 */
#define RAWDB_E_FORKED -12

/**
 * The disk, or the user's quota on it, is full.
 */
#define RAWDB_E_NO_SPACE -13

/**
 * Memory or address space is exhausted.
 */
#define RAWDB_E_NO_MEMORY -14

/**
 * The operating system reported a failure; rawdb_last_os_error() has its errno. After a failed
 * sync this is also the answer to every later write and flush, until the database is reopened.
 */
#define RAWDB_E_IO -15

/**
 * The files are damaged, or do not belong together; rawdb_last_error() names file, page and
 * reason.
 */
#define RAWDB_E_CORRUPT -16

/**
 * The files were written by a version with a newer format.
 */
#define RAWDB_E_INCOMPATIBLE -17

/**
 * A callback asked to stop.
 */
#define RAWDB_E_CANCELLED -18

/**
 * A defect in the library, caught before it could reach the caller; rawdb_last_error() says what
 * was noticed, and stderr where. If it was in a call that changes something, this is also the answer
 * to every later change and flush, and to rawdb_close(): nothing that may be half done becomes
 * durable. Reads go on. The next rawdb_open() finds what the last completed flush has made durable,
 * or one that was under way. Report it.
 */
#define RAWDB_E_PANIC -19

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library in use, as RAWDB_VERSION_NUMBER counts. Cannot fail; any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API uint32_t rawdb_version_number(void);

/**
 * The version of the library in use, as "major.minor.patch". Cannot fail; any thread. The string
 * is static.
 *
 * Since 0.1.0.
 */
RAWDB_API const char *rawdb_version_string(void);

/**
 * The name of a status: "RAWDB_E_NOT_FOUND" for RAWDB_E_NOT_FOUND. A number that this version does
 * not know is "RAWDB_E_UNKNOWN". Never NULL; any thread. The string is static.
 *
 * Since 0.1.0.
 */
RAWDB_API const char *rawdb_status_name(rawdb_status status);

/**
 * A status in a few words, without a full stop: "no space left on the disk". What a particular
 * call met is told by rawdb_last_error(). Never NULL, also for unknown numbers; any thread. The
 * string is static.
 *
 * Since 0.1.0.
 */
RAWDB_API const char *rawdb_status_message(rawdb_status status);

/**
 * The calling thread's last failure in words: what was tried, with path, region, numbers and the
 * operating system's reason. Only a call that fails changes it, a success leaves it as it is: look
 * at the status first. Never NULL; "" when no call of this thread has failed.
 *
 * The string belongs to the library and is valid until the next call that fails on this thread, or
 * the thread ends. It is meant for people; its wording may change.
 *
 * Since 0.1.0.
 */
RAWDB_API const char *rawdb_last_error(void);

/**
 * The errno behind the calling thread's last failure, 0 when the operating system had no part in
 * it. Set and kept together with rawdb_last_error().
 *
 * Since 0.1.0.
 */
RAWDB_API int32_t rawdb_last_os_error(void);

/**
 * Opens the database in the directory `path`, creating it if it does not exist.
 *
 * A database is a directory of its own, which is made here, or is empty, with a few files in it.
 * (Files of other programs in it are refused, see RAWDB_OPEN_SHARE_DIRECTORY, and never overwritten
 * or removed.) It is open once at a time, in one process, unless it is for reading only. After the
 * death of the process that had it open it is found as that left it, after a restart of the system as
 * last flushed (see DURABILITY), and at once: there is nothing to repair or to wait for. Opening takes
 * as long as it takes to read the region table, and after a restart to sync the files. For writing it
 * takes 4 KiB of disk space per region, and at least 64 KiB, which rawdb_close() gives back.
 *
 *   path     the directory, as the operating system takes it, in any encoding. Its parent must
 *            exist. It is looked up once: later the process may change its working directory, and
 *            the directory may be renamed. To open a directory by a descriptor n, use the path
 *            "/proc/self/fd/n". Links in the path are followed; the files in it must not be links.
 *   options  or NULL for the defaults.
 *   db_out   the database, to be closed with rawdb_close(). NULL on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  path or db_out is NULL; options has a struct_size that was not set,
 *                             unknown flags or members, or flags that contradict each other.
 *   RAWDB_E_NOT_FOUND         no database there, and READ_ONLY or NO_CREATE forbids to create it;
 *                             or the parent directory does not exist.
 *   RAWDB_E_ALREADY_EXISTS    a database is there, and CREATE_NEW was given; or no database is
 *                             there, but files of other programs.
 *   RAWDB_E_LOCKED            it is open already, here or in another process, or was closed here
 *                             with views that are still not released; rawdb_last_error() tells.
 *   RAWDB_E_CORRUPT           its files are damaged, or not a database's (also: links, or special
 *                             files). They are left as they are.
 *   RAWDB_E_INCOMPATIBLE      they were written by a version with a newer format.
 *   RAWDB_E_TOO_LARGE         min_file_len exceeds what a file can be.
 *   RAWDB_E_NO_MEMORY         memory is exhausted, or max_address_space is not enough.
 *   RAWDB_E_NO_SPACE, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * A database that this call created is on disk, empty, when it returns. A call that fails leaves
 * directory and files as it found them. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_open(const char *path,
                        const struct rawdb_options *options,
                        struct rawdb **db_out);

/**
 * Flushes, then closes the database and frees the handle, in any case: also when this fails, `db`
 * must not be used again. NULL is RAWDB_OK and does nothing.
 *
 * Region handles and views need not be closed first. Handles then answer RAWDB_E_CLOSED, and are
 * still to be freed with rawdb_region_close(); views stay good until they are released, and the
 * directory stays locked until the last of them is.
 *
 * RAWDB_OK: everything is durable. Otherwise what was written since the last completed flush is
 * lost:
 *   RAWDB_E_IO        a sync failed, now or earlier; see rawdb_flush().
 *   RAWDB_E_FORKED    the database belongs to the parent process, which is not affected, nor are
 *                     the files. This process has let go of them: its descriptors are closed, and
 *                     the mapping is gone, and with it the bytes of inherited views. When the
 *                     parent has ended, this process may open the database.
 *   RAWDB_E_PANIC     a defect was met, now or earlier; see there.
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY
 *
 * Where that matters, call rawdb_flush() first: after it has failed one can still do something.
 *
 * Any thread, but it is the last call with `db`: no other may be running.
 *
 * Since 0.1.0.
 */
RAWDB_API RAWDB_NODISCARD rawdb_status rawdb_close(struct rawdb *db);

/**
 * Makes durable, atomically, everything in all regions that happened before: contents, lengths,
 * creations, renamings and removals. See DURABILITY for what that promises and what it does not.
 *
 * Flushes from several threads at once are one flush; writers and views go on meanwhile. It costs
 * up to two device syncs: one where a few KiB were appended to regions and nothing else happened,
 * none when nothing has changed. That does not depend on how many regions there are. On a database
 * opened READ_ONLY it is RAWDB_OK and does nothing.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db is NULL.
 *   RAWDB_E_FORKED            the database belongs to the parent process.
 *   RAWDB_E_IO                a sync failed, now or earlier. What had not been flushed may be lost
 *                             already, so every write and flush answers this, with the details
 *                             of the first failure, until the database is reopened; reads go on.
 *   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite. Nothing is lost,
 *                             and flushing can be tried again.
 *   RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API RAWDB_NODISCARD rawdb_status rawdb_flush(struct rawdb *db);

/**
 * Flushes, then returns to the file system what space it can: free space and unused tails of
 * regions (also what rawdb_region_reserve() set aside) become holes in the data file, within
 * pieces in use as well (see DISK SPACE), and a free end is cut off. Regions are not moved,
 * contents and views not touched; other threads go on, but for another rawdb_compact(), which waits
 * for this one to end.
 *
 *   progress  called as the work proceeds, or NULL.
 *   context   passed on to it.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db is NULL.
 *   RAWDB_E_CANCELLED         progress asked to stop. What was returned until then stays returned;
 *                             nothing is lost, and another call takes up the rest.
 *   RAWDB_E_BUSY              called by progress itself.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_IO, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
 *                             as with rawdb_flush(), or making a hole failed.
 *
 * Durable when it returns RAWDB_OK, as after rawdb_flush(). Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_compact(struct rawdb *db,
                           rawdb_progress_fn progress,
                           void *context);

/**
 * Makes the data file at least `min_len` bytes long, to spare growing it step by step when much
 * data is about to come. The file is sparse: this takes no disk space, and so is no protection
 * against RAWDB_E_NO_SPACE; rawdb_region_reserve() is about a region. Never shortens.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db is NULL.
 *   RAWDB_E_TOO_LARGE         a file cannot be that long here.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
 *   RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API RAWDB_NODISCARD rawdb_status rawdb_reserve_file(struct rawdb *db, uint64_t min_len);

/**
 * Makes room in the region table for `count` regions altogether, so that creating them is faster
 * and does not need disk space for the table, where names have up to 40 bytes. Never takes room
 * away.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db is NULL.
 *   RAWDB_E_TOO_LARGE         a table cannot be that large.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
 *   RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API RAWDB_NODISCARD rawdb_status rawdb_reserve_regions(struct rawdb *db, uint64_t count);

/**
 * Tells what the database consists of at this moment. It looks at every region, so it is for
 * monitoring, not for the way of a request.
 *
 *   stats_out  begun with RAWDB_STATS_INIT. Zero on failure, but for struct_size.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db or stats_out is NULL, or struct_size was not set (the struct is
 *                             then left as it is).
 *   RAWDB_E_FORKED, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_get_stats(struct rawdb *db,
                             struct rawdb_stats *stats_out);

/**
 * Removes the region `name`. The name is free at once; handles of the region answer
 * RAWDB_E_REMOVED from now on, and are still to be closed; open views of it stay good.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db or name is NULL.
 *   RAWDB_E_NOT_FOUND         there is no such region.
 *   RAWDB_E_INVALID_NAME      no region can have that name.
 *   RAWDB_E_BUSY              an append to it is open (rawdb_region_append_begin).
 *   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
 *
 * Durable with the next flush; until then a power loss brings the region back as it was last flushed.
 * Its space is free after that flush, and after the last view of it. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_remove(struct rawdb *db,
                          const char *name);

/**
 * Gives the region `from` the name `to`. Handles, views and an open append of it stay good.
 *
 *   flags  0, or RAWDB_RENAME_REPLACE: a region named `to` is removed in the same step.
 *
 * No moment and no crash shows both regions of that name, or neither: "write the new version under
 * another name, rename it over the old one, flush" exchanges contents atomically. Renaming a
 * region to the name it has does nothing.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db, from or to is NULL; flags has unknown bits.
 *   RAWDB_E_NOT_FOUND         there is no region named `from`.
 *   RAWDB_E_ALREADY_EXISTS    there is one named `to`, and RAWDB_RENAME_REPLACE was not given.
 *   RAWDB_E_INVALID_NAME      no region can have the name `from`, or the name `to`.
 *   RAWDB_E_BUSY              an append to the region that would be replaced is open
 *                             (rawdb_region_append_begin); neither has been renamed or removed.
 *   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
 *
 * Durable with the next flush. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_rename(struct rawdb *db,
                          const char *from,
                          const char *to,
                          uint32_t flags);

/**
 * Removes every region whose name is not among `names`, all of them in one step, as rawdb_remove()
 * does with one. Names that no region has are ignored, so that (NULL, 0) removes all regions.
 *
 *   names  `count` strings, in any order; NULL is allowed when count is 0.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db is NULL, or names or one of them is.
 *   RAWDB_E_INVALID_NAME      no region can have one of the names.
 *   RAWDB_E_BUSY              an append to one of the regions that would be removed is open
 *                             (rawdb_region_append_begin).
 *   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
 *   RAWDB_E_NO_MEMORY         there is no memory for a list of that length.
 *   RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_IO (a sync failed earlier), RAWDB_E_PANIC
 *
 * On failure no region has been removed. Durable with the next flush. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_retain(struct rawdb *db,
                          const char *const *names,
                          size_t count);

/**
 * Takes a snapshot of names and sizes, sorted by name (byte by byte), to go through with
 * rawdb_region_iter_next(). What happens to the regions later does not change it.
 *
 *   iter_out  to be freed with rawdb_region_iter_free(). NULL on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db or iter_out is NULL.
 *   RAWDB_E_FORKED, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_list(struct rawdb *db,
                        struct rawdb_region_iter **iter_out);

/**
 * Gives the next region of the snapshot.
 *
 *   name_out  its name, which belongs to the iterator and is valid until that is freed. NULL
 *             unless the call answers RAWDB_OK.
 *   info_out  its place and sizes, begun with RAWDB_REGION_INFO_INIT. Zero, but for struct_size,
 *             unless the call answers RAWDB_OK.
 *
 * RAWDB_OK with a region, RAWDB_DONE after the last one (and again, if called again), or
 *   RAWDB_E_INVALID_ARGUMENT  iter, name_out or info_out is NULL, or info_out has a struct_size
 *                             that was not set. The iterator has not moved on.
 *   RAWDB_E_PANIC
 *
 * One thread at a time.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_iter_next(struct rawdb_region_iter *iter,
                                    const char **name_out,
                                    struct rawdb_region_info *info_out);

/**
 * Frees an iterator and the names it gave out. NULL does nothing. The last call with `iter`.
 *
 * Since 0.1.0.
 */
RAWDB_API void rawdb_region_iter_free(struct rawdb_region_iter *iter);

/**
 * Opens the region `name`, creating it, empty, if there is none.
 *
 *   name        1 to RAWDB_MAX_NAME_LEN bytes of UTF-8 without control characters.
 *   region_out  to be closed with rawdb_region_close(). NULL on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db, name or region_out is NULL.
 *   RAWDB_E_INVALID_NAME      name is not as described.
 *   RAWDB_E_READ_ONLY         there is no such region, and the database cannot be changed.
 *   RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO,
 *   RAWDB_E_PANIC
 *
 * The creation is durable with the next flush. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_create(struct rawdb *db,
                                 const char *name,
                                 struct rawdb_region **region_out);

/**
 * Opens the region `name`, which must exist.
 *
 *   region_out  to be closed with rawdb_region_close(). NULL on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  db, name or region_out is NULL.
 *   RAWDB_E_NOT_FOUND         there is no such region.
 *   RAWDB_E_INVALID_NAME      no region can have that name.
 *   RAWDB_E_FORKED, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_open(struct rawdb *db,
                               const char *name,
                               struct rawdb_region **region_out);

/**
 * Frees a handle; the region itself, other handles and views of it stay as they are. An append
 * that was begun with this handle and not ended is abandoned. NULL does nothing.
 *
 * Any thread, also after rawdb_close(), but it is the last call with `region`: no other may be
 * running.
 *
 * Since 0.1.0.
 */
RAWDB_API void rawdb_region_close(struct rawdb_region *region);

/**
 * Appends `len` bytes. Appends from several threads land one after the other, each in one piece.
 *
 *   data        the bytes; NULL is allowed when len is 0. It may be a view's.
 *   offset_out  where in the region the first of them is, or NULL. 0 on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL, or data is and len is not 0.
 *   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_TOO_LARGE         the region cannot be that long.
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * On failure the region is as before. Visible at once, durable with the next flush: none of the
 * bytes, or all. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_append(struct rawdb_region *region,
                                 const void *data,
                                 size_t len,
                                 uint64_t *offset_out);

/**
 * Writes `len` bytes at `offset`, over what is there, and past the end of the region where they
 * reach beyond it. offset may be anything from 0 to the region's length.
 *
 *   data  the bytes; NULL is allowed when len is 0. It may be a view's.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL, or data is and len is not 0.
 *   RAWDB_E_OUT_OF_BOUNDS     offset is beyond the end of the region.
 *   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_TOO_LARGE         the region cannot be that long.
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * On failure the region is as before; except that on a copy-on-write file system RAWDB_E_NO_SPACE
 * may come in the middle of an overwrite, and leave some of its pages overwritten (DISK SPACE). A
 * view keeps the bytes it shows: where they would be overwritten, the region is moved. Visible at once, durable with the next flush; before that,
 * bytes below the last flushed length may or may not survive, each 512-byte sector by itself (see
 * DURABILITY). Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_write_at(struct rawdb_region *region,
                                   uint64_t offset,
                                   const void *data,
                                   size_t len);

/**
 * Writes `count` values of `value_len` bytes each, each at its offset, within the present
 * length of the region: all of them or, when it fails, none. Where values overlap, the later one
 * counts. It is one write to other writers of the region, and much cheaper than many.
 *
 *   offsets  `count` of them, in any order; ascending is fastest.
 *   values   `count * value_len` bytes, one value after the other. Either may be NULL when it has
 *            nothing to hold.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL, or offsets or values is where something is needed;
 *                             count * value_len is more than memory can hold.
 *   RAWDB_E_OUT_OF_BOUNDS     one of the values would not end within the region.
 *   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE,
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * Views and durability as with rawdb_region_write_at(). Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_write_batch(struct rawdb_region *region,
                                      const uint64_t *offsets,
                                      const void *values,
                                      size_t value_len,
                                      size_t count);

/**
 * Shortens the region to `len` bytes. It only shortens: to the length it has is allowed and does
 * nothing.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL.
 *   RAWDB_E_OUT_OF_BOUNDS     len is more than the region has.
 *   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_NO_SPACE          only on file systems that need space to overwrite.
 *   RAWDB_E_IO                a sync failed earlier; see rawdb_flush().
 *   RAWDB_E_PANIC
 *
 * Views keep the bytes they show. Visible at once, durable with the next flush. That flush returns
 * the disk space behind the new end where it is large (rawdb_options.reclaim_threshold), otherwise
 * rawdb_compact() does. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_truncate(struct rawdb_region *region,
                                   uint64_t len);

/**
 * Writes `len` bytes at `offset` and lets the region end with them: its length is offset + len
 * afterwards, in one step. offset may be anything from 0 to the region's length.
 *
 * Parameters, statuses, views and durability as with rawdb_region_write_at(): RAWDB_OK, or
 * RAWDB_E_INVALID_ARGUMENT, RAWDB_E_OUT_OF_BOUNDS, RAWDB_E_BUSY, RAWDB_E_REMOVED, RAWDB_E_CLOSED,
 * RAWDB_E_READ_ONLY, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY,
 * RAWDB_E_IO, RAWDB_E_PANIC. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_truncate_write(struct rawdb_region *region,
                                         uint64_t offset,
                                         const void *data,
                                         size_t len);

/**
 * Gives writable room of `len` bytes, to be filled in place and appended by
 * rawdb_region_append_end(): an append without copying. Nothing is visible before that.
 *
 * Until then, whatever would write to the region or remove it, through any handle, by
 * rawdb_remove(), rawdb_retain() or a replacing rawdb_rename(), answers RAWDB_E_BUSY and changes
 * nothing; views and other regions are not affected.
 *
 *   buffer_out  the room, what is in it is undefined. Any thread may fill it. It belongs to the
 *               library and is valid until rawdb_region_append_end(), or rawdb_region_close() on
 *               this handle, which abandons the append. NULL on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region or buffer_out is NULL.
 *   RAWDB_E_BUSY              an append is open, on this handle or another.
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_TOO_LARGE         the region cannot be that long.
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_append_begin(struct rawdb_region *region,
                                       size_t len,
                                       void **buffer_out);

/**
 * Appends the first `written` bytes of the room that rawdb_region_append_begin() gave on this
 * handle, and ends the append. 0 appends nothing, so that it abandons the append.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL, or no append is open on this handle.
 *   RAWDB_E_OUT_OF_BOUNDS     written is more than was asked for.
 *   RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_TOO_LARGE, RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY,
 *   RAWDB_E_IO, RAWDB_E_PANIC
 *
 * On failure nothing has been appended, and the append is still open: the room is valid until
 * another call of this function succeeds, or rawdb_region_close().
 *
 * Visible at once, durable with the next flush, as with rawdb_region_append(). Any thread, not
 * only the one that began; nobody may be writing to the room any more.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_append_end(struct rawdb_region *region,
                                     size_t written);

/**
 * Sets room aside so that the region can grow to `capacity` bytes without being moved, and
 * allocates the disk space: until it is that long, appends cannot fail with RAWDB_E_NO_SPACE (this
 * second part not with RAWDB_OPEN_GUARDED). The room is kept, also when the region moves to leave
 * viewed bytes behind, until rawdb_compact(), which returns what is not in use. A smaller capacity
 * than there is does nothing; the length does not change.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL.
 *   RAWDB_E_BUSY              an append is open (rawdb_region_append_begin).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_READ_ONLY, RAWDB_E_FORKED
 *   RAWDB_E_TOO_LARGE         no region can be that long.
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_IO, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_reserve(struct rawdb_region *region,
                                  uint64_t capacity);

/**
 * Copies `len` bytes from `offset` into `buffer`. All of them must be within the region. What is
 * copied was there at one moment, also while other threads write.
 *
 *   buffer  NULL is allowed when len is 0. Filled with zeros on failure.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL, or buffer is and len is not 0.
 *   RAWDB_E_OUT_OF_BOUNDS     the bytes are not all within the region.
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_read(struct rawdb_region *region,
                               uint64_t offset,
                               void *buffer,
                               size_t len);

/**
 * Gives the bytes of the region from `offset` on, without copying them. See rawdb_view for what
 * a view promises.
 *
 *   len       how many bytes, all within the region; or RAWDB_TO_END. offset may be the length of
 *             the region; the view is empty then.
 *   view_out  the view, to be released with rawdb_view_release(). Zero on failure. It is written
 *             over: release what it holds first.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region or view_out is NULL.
 *   RAWDB_E_OUT_OF_BOUNDS     the bytes are not all within the region.
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
 *
 * Takes tens of nanoseconds, whatever the length, unless it has to wait for an overwrite (see
 * THREAD SAFETY). What is viewed is not durable for being visible. Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_view(struct rawdb_region *region,
                               uint64_t offset,
                               uint64_t len,
                               struct rawdb_view *view_out);

/**
 * How many bytes the region has. 0 for NULL, when the region has been removed or the database
 * closed, and in a forked child; rawdb_region_get_info() tells that apart from an empty region.
 * Cannot fail; any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API uint64_t rawdb_region_len(const struct rawdb_region *region);

/**
 * Copies the name of the region into `buffer`, as snprintf() would: at most capacity - 1 bytes,
 * and a NUL after them. It returns the length of the whole name in bytes, without the NUL, so that
 * capacity or more means that the name was cut off (perhaps within a character). With a capacity
 * of 0 nothing is written, and buffer may be NULL. RAWDB_MAX_NAME_LEN + 1 bytes are always enough.
 *
 * After rawdb_rename() it is the new name, after rawdb_remove() or rawdb_close() the last one. For
 * a region of NULL, and in a forked child, it is "". Cannot fail; any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
size_t rawdb_region_name(const struct rawdb_region *region,
                         char *buffer,
                         size_t capacity);

/**
 * Tells place and sizes of the region.
 *
 *   info_out  begun with RAWDB_REGION_INFO_INIT. Zero on failure, but for struct_size.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region or info_out is NULL, or struct_size was not set (the struct
 *                             is then left as it is).
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API
RAWDB_NODISCARD
rawdb_status rawdb_region_get_info(const struct rawdb_region *region,
                                   struct rawdb_region_info *info_out);

/**
 * As rawdb_flush(), for the bytes and the length of this region alone, atomically; other regions
 * may or may not become durable with it.
 *
 * RAWDB_OK, or
 *   RAWDB_E_INVALID_ARGUMENT  region is NULL.
 *   RAWDB_E_REMOVED, RAWDB_E_CLOSED, RAWDB_E_FORKED
 *   RAWDB_E_IO                a sync failed, now or earlier; see rawdb_flush().
 *   RAWDB_E_NO_SPACE, RAWDB_E_NO_MEMORY, RAWDB_E_PANIC
 *
 * Any thread.
 *
 * Since 0.1.0.
 */
RAWDB_API RAWDB_NODISCARD rawdb_status rawdb_region_flush(struct rawdb_region *region);

/**
 * Gives a view back and sets the struct to zero, so that releasing it twice is harmless, as is
 * releasing NULL or a struct that is zero. The bytes must not be looked at any more.
 *
 * Any thread, not only the one that made the view, also after rawdb_region_close() and
 * rawdb_close(); but one struct is for one thread at a time.
 *
 * Since 0.1.0.
 */
RAWDB_API void rawdb_view_release(struct rawdb_view *view);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RAWDB_H */
