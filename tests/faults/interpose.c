/*
 * Stands before the C library (LD_PRELOAD) and lets chosen system calls fail, or transfer less than
 * asked for. tests/system_faults.rs sets `faults` and reads it.
 *
 * A sync never reaches the disk: nothing in that test is about power loss, and it is faster so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The numbers and the struct are in tests/system_faults.rs once more. */
enum call {
    OPEN,
    MKDIR,
    READ,
    STAT,
    STATFS,
    LOCK,
    IOCTL,
    WRITE,
    SYNC_DATA,
    SYNC_DIRECTORY,
    SET_LEN,
    ALLOCATE,
    PUNCH,
    MAP,
    PROTECT,
    ADVISE,
    UNLINK
};

enum action {
    FAIL,
    /* Half of a transfer. */
    SHORT,
    /* Half of a transfer, and the next of its kind fails. */
    SHORT_THEN_FAIL,
    /* A transfer of nothing. */
    NOTHING,
    /* Half of an allocation is made before it fails. */
    PART_THEN_FAIL
};

#define TRACE_LEN 4096

struct faults {
    /* Calls are counted, and fail, while this is set. */
    int armed;
    int action;
    int error;
    /* The calls that the action is for, as bits. */
    unsigned calls;
    int lasting;
    /* The number of the call at which it begins. */
    long at;
    /* Answered by fstatfs, where it is not 0. */
    long file_system;
    /* Longer mappings are refused, where it is not 0. */
    unsigned long largest_map;
    /* A signal comes before a longer range has, or has lost, its blocks, where it is not 0. */
    unsigned long longest_step;

    /* How many calls there were while armed, and of which kind each was. */
    long counted;
    unsigned char trace[TRACE_LEN];
    /* Which calls there were, and which of them were hit. */
    unsigned seen, hit;
    /* SHORT_THEN_FAIL has done its first half. */
    int fails_next;
    /* How often `longest_step` was too short. */
    unsigned long interrupted;
};

__attribute__((visibility("default"))) struct faults faults;

/* Whether this call is to be hit. */
static int is_hit(enum call call)
{
    long number;
    if (!faults.armed)
        return 0;
    number = faults.counted++;
    if (number < TRACE_LEN)
        faults.trace[number] = (unsigned char)call;
    faults.seen |= 1u << call;
    if ((faults.calls >> call & 1) == 0)
        return 0;
    if (number != faults.at && !(number > faults.at && (faults.lasting || faults.fails_next)))
        return 0;
    faults.hit |= 1u << call;
    return 1;
}

/* Whether this call, which transfers nothing, is to fail. */
static int fails(enum call call)
{
    if (!is_hit(call))
        return 0;
    errno = faults.error;
    return 1;
}

/* What is no longer than a word, and does not cross a page, the system copies at once. */
enum { WORD = 8 };

/* How much of `len` bytes to transfer, or -1 for a failure. */
static ssize_t transfers(enum call call, size_t len)
{
    if (!is_hit(call))
        return (ssize_t)len;
    switch (faults.action) {
    case SHORT:
        return len > WORD ? (ssize_t)(len / 2) : (ssize_t)len;
    case SHORT_THEN_FAIL:
        if (!faults.fails_next && len > WORD) {
            faults.fails_next = 1;
            return (ssize_t)(len / 2);
        }
        faults.fails_next = faults.lasting;
        break;
    case NOTHING:
        return 0;
    }
    errno = faults.error;
    return -1;
}

#define REAL(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

static int open_mode(int flags, va_list arguments)
{
    return flags & O_CREAT ? va_arg(arguments, int) : 0;
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    int mode;
    va_start(arguments, flags);
    mode = open_mode(flags, arguments);
    va_end(arguments);
    return fails(OPEN) ? -1 : REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    int mode;
    va_start(arguments, flags);
    mode = open_mode(flags, arguments);
    va_end(arguments);
    return fails(OPEN) ? -1 : REAL(open)(path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    va_list arguments;
    int mode;
    va_start(arguments, flags);
    mode = open_mode(flags, arguments);
    va_end(arguments);
    return fails(OPEN) ? -1 : REAL(openat64)(directory, path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return fails(MKDIR) ? -1 : REAL(mkdir)(path, mode);
}

ssize_t read(int fd, void *buffer, size_t len)
{
    ssize_t n = transfers(READ, len);
    return n <= 0 && len > 0 ? n : REAL(read)(fd, buffer, (size_t)n);
}

ssize_t pread64(int fd, void *buffer, size_t len, off64_t offset)
{
    ssize_t n = transfers(READ, len);
    return n <= 0 && len > 0 ? n : REAL(pread64)(fd, buffer, (size_t)n, offset);
}

int fstatat64(int directory, const char *path, struct stat64 *result, int flags)
{
    return fails(STAT) ? -1 : REAL(fstatat64)(directory, path, result, flags);
}

int unlinkat(int directory, const char *path, int flags)
{
    return fails(UNLINK) ? -1 : REAL(unlinkat)(directory, path, flags);
}

int statx(int fd, const char *path, int flags, unsigned mask, struct statx *result)
{
    return fails(STAT) ? -1 : REAL(statx)(fd, path, flags, mask, result);
}

int fstat64(int fd, struct stat64 *result)
{
    return fails(STAT) ? -1 : REAL(fstat64)(fd, result);
}

int stat64(const char *path, struct stat64 *result)
{
    return fails(STAT) ? -1 : REAL(stat64)(path, result);
}

int fstatfs(int fd, struct statfs *result)
{
    int status = fails(STATFS) ? -1 : REAL(fstatfs)(fd, result);
    if (status == 0 && faults.file_system != 0)
        result->f_type = faults.file_system;
    return status;
}

int flock(int fd, int operation)
{
    /* To let a lock go cannot fail. */
    return operation != LOCK_UN && fails(LOCK) ? -1 : REAL(flock)(fd, operation);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;
    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return fails(IOCTL) ? -1 : ((int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl"))(
                                   fd, request, argument);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset)
{
    ssize_t n = transfers(WRITE, len);
    return n <= 0 && len > 0 ? n : REAL(pwrite64)(fd, bytes, (size_t)n, offset);
}

int fdatasync(int fd)
{
    (void)fd;
    return fails(SYNC_DATA) ? -1 : 0;
}

int fsync(int fd)
{
    (void)fd;
    return fails(SYNC_DIRECTORY) ? -1 : 0;
}

int ftruncate64(int fd, off64_t len)
{
    return fails(SET_LEN) ? -1 : REAL(ftruncate64)(fd, len);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    if (faults.longest_step != 0 && (unsigned long)len > faults.longest_step) {
        faults.interrupted++;
        errno = EINTR;
        return -1;
    }
    if (!fails(mode & FALLOC_FL_PUNCH_HOLE ? PUNCH : ALLOCATE))
        return REAL(fallocate64)(fd, mode, offset, len);
    if (faults.action == PART_THEN_FAIL && len > 4096) {
        (void)REAL(fallocate64)(fd, mode, offset, len / 2 / 4096 * 4096 + 4096);
        errno = faults.error;
    }
    return -1;
}

/* A mapping begins with a page of the file, and is made longer then. */
void *mremap(void *address, size_t old_len, size_t len, int flags, ...)
{
    if (faults.largest_map != 0 && len > faults.largest_map) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return fails(MAP) ? MAP_FAILED : REAL(mremap)(address, old_len, len, flags);
}

void *mmap64(void *address, size_t len, int protection, int flags, int fd, off64_t offset)
{
    return fails(MAP) ? MAP_FAILED : REAL(mmap64)(address, len, protection, flags, fd, offset);
}

int mprotect(void *address, size_t len, int protection)
{
    return fails(PROTECT) ? -1 : REAL(mprotect)(address, len, protection);
}

int madvise(void *address, size_t len, int advice)
{
    return fails(ADVISE) ? -1 : REAL(madvise)(address, len, advice);
}

/* Answers with the error and leaves errno alone. */
int posix_fadvise(int fd, off_t offset, off_t len, int advice)
{
    return fails(ADVISE) ? faults.error : REAL(posix_fadvise)(fd, offset, len, advice);
}
