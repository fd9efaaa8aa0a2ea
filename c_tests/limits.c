/*
 * Under resource limits of the process: less address space than the library would like, memory that
 * may not be locked, files that may not grow, no time without signals; and what is taken where there
 * is no limit. Each test runs in a child of its own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall */
#endif
#include "check.h"

#include <linux/capability.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { MIB = 1 << 20 };
static const uint64_t GIB = UINT64_C(1) << 30;

static temp_dir dir;

static void set_limit(int resource, uint64_t soft)
{
    struct rlimit limit;
    CHECK(getrlimit(resource, &limit) == 0);
    limit.rlim_cur = (rlim_t)soft;
    CHECK(setrlimit(resource, &limit) == 0);
}

static void check_bytes(rawdb_region *region, const uint8_t *piece, uint64_t len)
{
    rawdb_view view;
    uint64_t i;
    CHECK_EQ(rawdb_region_len(region), len);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    for (i = 0; i < len; i += MIB)
        CHECK(memcmp(view.data + i, piece, MIB) == 0);
    rawdb_view_release(&view);
}

/* Appends MiBs until it fails or there are `most`, and answers how it ended. */
static rawdb_status append_until(rawdb_region *region, const uint8_t *piece, uint64_t most)
{
    rawdb_status status = RAWDB_OK;
    uint64_t offset, len;
    for (len = rawdb_region_len(region); len < most; len += MIB) {
        status = rawdb_region_append(region, piece, MIB, &offset);
        if (status != RAWDB_OK) {
            CHECK_EQ(offset, 0);
            CHECK_EQ(rawdb_region_len(region), len);
            break;
        }
        CHECK_EQ(offset, len);
    }
    return status;
}

/* ulimit -v 8000000, as cluster schedulers set it. */
static void with_8_gb_of_address_space(void)
{
    uint8_t *piece = new_filled(MIB, 1);
    rawdb *db;
    rawdb_region *region;
    set_limit(RLIMIT_AS, UINT64_C(8000000) * 1024);
    db = open_db(dir.db, 0);
    region = create_region(db, "region");
    CHECK_OK(append_until(region, piece, 64 * MIB));
    check_bytes(region, piece, 64 * MIB);
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_reserve_file(db, UINT64_C(3) << 30));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    check_bytes(region, piece, 64 * MIB);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(piece);
}

/* Too little for all that is to be written: an error, and everything before it is there. */
static void with_256_mib_of_address_space(void)
{
    uint8_t *piece = new_filled(MIB, 2);
    rawdb *db;
    rawdb_region *region;
    uint64_t len;
    set_limit(RLIMIT_AS, 256 * MIB);
    db = open_db(dir.db, 0);
    region = create_region(db, "region");
    CHECK_STATUS(append_until(region, piece, 256 * MIB), RAWDB_E_NO_MEMORY);
    len = rawdb_region_len(region);
    CHECK(len >= 16 * MIB);
    check_bytes(region, piece, len);
    CHECK_OK(rawdb_region_write_at(region, 0, piece, 4096));
    CHECK_OK(rawdb_flush(db));

    /* The same handle goes on as soon as it may. */
    set_limit(RLIMIT_AS, RLIM_INFINITY);
    CHECK_OK(append_until(region, piece, len + 16 * MIB));
    check_bytes(region, piece, len + 16 * MIB);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(piece);
}

/* The present test's. */
static uint64_t limit_in_kb;
static uint32_t open_flags;

/* Whether a call has done its work. If not, it was for want of memory. */
#define WORKS(call) works((call), #call, __LINE__)

static int works(rawdb_status status, const char *call, int line)
{
    if (status != RAWDB_OK && status != RAWDB_E_NO_MEMORY)
        fprintf(stderr, "with %" PRIu64 " kB: ", limit_in_kb);
    if (status != RAWDB_OK)
        check_status(status, RAWDB_E_NO_MEMORY, call, __FILE__, line);
    return status == RAWDB_OK;
}

/* Each call works or says that there is no memory, and the program has a heap to go on with. */
static void with_any_address_space(void)
{
    enum { PIECE = 256 << 10, PIECES = 24 };
    static uint8_t piece[PIECE];
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;
    rawdb_region *small, *region;
    rawdb_view view;
    uint64_t len = 0;
    void *memory;
    int round, i;
    set_limit(RLIMIT_AS, limit_in_kb * 1024);
    options.flags = open_flags;
    for (round = 0; round < 2; round++) {
        if (!WORKS(rawdb_open(dir.db, &options, &db)))
            continue;
        if (WORKS(rawdb_region_create(db, "small", &small))) {
            for (i = 0; i < 100; i++)
                (void)WORKS(rawdb_region_append(small, piece, 100, NULL));
            rawdb_region_close(small);
        }
        if (WORKS(rawdb_region_create(db, "region", &region))) {
            CHECK_EQ(rawdb_region_len(region), len);
            for (i = 0; i < PIECES; i++) {
                memset(piece, i + 1, sizeof piece);
                len += WORKS(rawdb_region_append(region, piece, PIECE, NULL)) ? PIECE : 0;
            }
            CHECK_EQ(rawdb_region_len(region), len);
            (void)WORKS(rawdb_flush(db));
            if (WORKS(rawdb_region_view(region, 0, RAWDB_TO_END, &view))) {
                CHECK(view.len == len && (len == 0 || view.data[0] != 0));
                memory = malloc(8 * MIB);
                if (memory == NULL)
                    fprintf(stderr, "with %" PRIu64 " kB: ", limit_in_kb);
                CHECK(memory != NULL);
                free(memory);
                rawdb_view_release(&view);
            }
            rawdb_region_close(region);
        }
        (void)WORKS(rawdb_compact(db, NULL, NULL));
        (void)WORKS(rawdb_close(db));
    }
    /* What is enough for the program is enough for a small database. */
    CHECK(limit_in_kb < 128 * 1024 || len > 0);
}

/* Many databases leave address space to their host. (In memory, where a sync takes no time.) */
static void with_many_databases(void)
{
    enum { DATABASES = 2000 };
    const temp_dir in_memory = temp_dir_in("/dev/shm");
    const size_t some = sizeof(void *) > 4 ? (size_t)(1024 * GIB) : (size_t)64 << 20;
    static rawdb *databases[DATABASES];
    struct rlimit limit;
    void *memory;
    char path[600];
    int i;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 5 * DATABASES + 100;
    if (limit.rlim_max < limit.rlim_cur)
        limit.rlim_max = limit.rlim_cur;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (i = 0; i < DATABASES; i++) {
        rawdb_region *region;
        snprintf(path, sizeof path, "%s/%d", in_memory.path, i);
        databases[i] = open_db(path, open_flags);
        region = create_region(databases[i], "region");
        CHECK_OK(rawdb_region_append(region, &i, sizeof i, NULL));
        rawdb_region_close(region);
        /* The host wants some address space, too. */
        memory = mmap(NULL, some, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            fprintf(stderr, "with %d databases: ", i + 1);
        CHECK(memory != MAP_FAILED);
        CHECK(munmap(memory, some) == 0);
    }
    for (i = 0; i < DATABASES; i++) {
        rawdb_region *region;
        int32_t number;
        CHECK_OK(rawdb_region_open(databases[i], "region", &region));
        CHECK_OK(rawdb_region_read(region, 0, &number, sizeof number));
        CHECK_EQ((uint64_t)number, (uint64_t)i);
        rawdb_region_close(region);
        CHECK_OK(rawdb_close(databases[i]));
    }
    temp_dir_remove(&in_memory);
}

/* What the system says about this process, in kB. */
static uint64_t process_status(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t value = UINT64_MAX;
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            value = strtoull(line + strlen(field) + 1, NULL, 10);
    fclose(file);
    CHECK(value != UINT64_MAX);
    return value;
}

/* Counts the mappings of files in `dir`, and those of them that have this flag. */
static void count_mappings(const char *flag, unsigned *with_flag, unsigned *all)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[1024];
    int inside = 0;
    CHECK(file != NULL);
    *with_flag = *all = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        /* Each begins with its addresses, and goes on with fields, whose names are capitalised. */
        if (line[0] < 'A' || line[0] > 'Z')
            inside = strstr(line, dir.path) != NULL;
        if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            *all += 1;
            *with_flag += strstr(line, flag) != NULL;
        }
    }
    fclose(file);
}

/* Works with a file that is long, sparse, and stays so when it is closed. */
static void check_without_locked_pages(void)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;
    rawdb_region *region;
    rawdb_view view;
    uint8_t *piece = new_filled(MIB, 4);
    uint64_t before = process_status("VmRSS:");
    unsigned locked, all;
    int round;
    options.flags = open_flags;
    options.min_file_len = 4 * GIB;
    for (round = 1; round <= 2; round++) {
        CHECK_OK(rawdb_open(dir.db, &options, &db));
        CHECK_OK(rawdb_region_create(db, "region", &region));
        CHECK_OK(append_until(region, piece, (uint64_t)round * 2 * MIB));
        CHECK_OK(rawdb_region_write_at(region, 0, piece, MIB));
        CHECK_OK(rawdb_flush(db));
        CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
        CHECK(memcmp(view.data, piece, MIB) == 0);
        count_mappings(" lo", &locked, &all);
        CHECK(all > 0);
        CHECK_EQ(locked, 0);
        CHECK(process_status("VmRSS:") - before < 64 * 1024);
        rawdb_view_release(&view);
        rawdb_region_close(region);
        CHECK_OK(rawdb_compact(db, NULL, NULL));
        CHECK_OK(rawdb_close(db));
    }
    free(piece);
}

/* The capabilities of this process that are in effect, from now on without those in `dropped`. */
static uint32_t capabilities(uint32_t dropped)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    CHECK(syscall(SYS_capget, &header, sets) == 0);
    sets[0].effective &= ~dropped;
    CHECK(syscall(SYS_capset, &header, sets) == 0);
    return sets[0].effective;
}

static const uint32_t MAY_LOCK = UINT32_C(1) << CAP_IPC_LOCK;

/* Of root without limit. */
static void with_future_pages_locked(void)
{
    CHECK(mlockall(MCL_FUTURE) == 0);
    check_without_locked_pages();
}

/* As systems have it for ordinary users: 8 MiB may be locked. */
static void with_few_pages_to_lock(void)
{
    CHECK((capabilities(MAY_LOCK) & MAY_LOCK) == 0);
    set_limit(RLIMIT_MEMLOCK, 8 * MIB);
    CHECK(mlockall(MCL_FUTURE) == 0);
    check_without_locked_pages();
}

/* Then nothing can be mapped, be it for a moment. */
static void with_no_page_to_lock(void)
{
    rawdb *db, *other;
    rawdb_region *region;
    char path[600];
    CHECK((capabilities(MAY_LOCK) & MAY_LOCK) == 0);
    set_limit(RLIMIT_MEMLOCK, 8 * MIB);
    CHECK(mlockall(MCL_FUTURE) == 0);
    /* The heap needs pages that are locked, too. */
    CHECK(mallopt(M_TRIM_THRESHOLD, 64 * MIB) == 1 && mallopt(M_MMAP_THRESHOLD, 16 * MIB) == 1);
    free(malloc(4 * MIB));
    db = open_db(dir.db, open_flags);
    region = create_region(db, "region");
    CHECK_OK(rawdb_region_append(region, "abc", 3, NULL));
    set_limit(RLIMIT_MEMLOCK, 0);
    snprintf(path, sizeof path, "%s-2", dir.db);
    CHECK_STATUS(rawdb_open(path, NULL, &other), RAWDB_E_NO_MEMORY);
    CHECK_MESSAGE("mlockall(MCL_FUTURE)");
    CHECK_MESSAGE("RLIMIT_MEMLOCK");
    CHECK_STATUS(rawdb_reserve_file(db, 64 * 1024 * GIB), RAWDB_E_NO_MEMORY);
    CHECK_MESSAGE("RLIMIT_MEMLOCK");
    CHECK_OK(rawdb_region_append(region, "def", 3, NULL));
    CHECK_CONTENT(region, "abcdef", 6);
    set_limit(RLIMIT_MEMLOCK, 8 * MIB);
    CHECK_OK(rawdb_open(path, NULL, &other));
    CHECK_OK(rawdb_close(other));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
}

/* A core dump has nothing of the files, whatever kinds of mappings it is to have. */
static void without_core_dumps_of_files(void)
{
    rawdb *db = open_db(dir.db, open_flags);
    rawdb_region *region = create_region(db, "region");
    unsigned left_out, all;
    CHECK_OK(rawdb_region_append(region, "abc", 3, NULL));
    CHECK_OK(rawdb_reserve_file(db, GIB));
    count_mappings(" dd", &left_out, &all);
    CHECK(all >= 2);
    CHECK_EQ(left_out, all);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, RAWDB_OPEN_READ_ONLY);
    count_mappings(" dd", &left_out, &all);
    CHECK(all >= 1);
    CHECK_EQ(left_out, all);
    CHECK_OK(rawdb_close(db));
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals = signals + 1;
}

/* A profiler's timer, say, which interrupts whatever can be interrupted. */
static void check_with_fast_signals(const char *path)
{
    const struct itimerval fast = {{0, 1000}, {0, 1000}}, none = {{0, 0}, {0, 0}};
    struct sigaction action;
    uint8_t *piece = new_filled(MIB, 5);
    rawdb *db;
    rawdb_region *region;
    struct statvfs space;
    uint64_t capacity;
    memset(&action, 0, sizeof action); /* no SA_RESTART */
    action.sa_handler = count_signal;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    set_limit(RLIMIT_CPU, 120); /* a call that never ends is ended */
    signals = 0;
    CHECK(setitimer(ITIMER_REAL, &fast, NULL) == 0);
    db = open_db(path, open_flags);
    region = create_region(db, "region");
    CHECK(statvfs(path, &space) == 0);
    capacity = (uint64_t)space.f_bavail * space.f_frsize / 4;
    capacity = capacity < GIB ? capacity : GIB;
    CHECK_OK(append_until(region, piece, 8 * MIB));
    CHECK_OK(rawdb_region_reserve(region, capacity));
    CHECK_OK(rawdb_reserve_regions(db, 10000));
    CHECK_OK(append_until(region, piece, 16 * MIB));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    check_bytes(region, piece, 16 * MIB);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    CHECK(setitimer(ITIMER_REAL, &none, NULL) == 0);
    CHECK(signals > 0);
    free(piece);
}

static void with_fast_signals(void)
{
    check_with_fast_signals(dir.db);
}

static void with_fast_signals_in_memory(void)
{
    const temp_dir in_memory = temp_dir_in("/dev/shm");
    check_with_fast_signals(in_memory.db);
    temp_dir_remove(&in_memory);
}

/* No SIGXFSZ, whose default is to end the process. */
static void check_file_size_limit(uint32_t flags)
{
    uint8_t *piece = new_filled(MIB, 3);
    rawdb *db;
    rawdb_region *region, *other;
    rawdb_status status;
    uint64_t len;
    CHECK(signal(SIGXFSZ, SIG_DFL) != SIG_ERR);
    set_limit(RLIMIT_FSIZE, 100 * MIB);
    db = open_db(dir.db, flags);
    region = create_region(db, "region");
    CHECK_STATUS(append_until(region, piece, 200 * MIB), RAWDB_E_TOO_LARGE);
    len = rawdb_region_len(region);
    CHECK(len >= 16 * MIB && len <= 100 * MIB);
    CHECK_EQ((uint64_t)rawdb_last_os_error(), 27); /* EFBIG */
    CHECK_STATUS(rawdb_region_reserve(region, 200 * MIB), RAWDB_E_TOO_LARGE);
    CHECK_STATUS(rawdb_reserve_file(db, 200 * MIB), RAWDB_E_TOO_LARGE);
    CHECK_STATUS(rawdb_reserve_regions(db, 50000), RAWDB_E_TOO_LARGE);
    check_bytes(region, piece, len);
    CHECK_OK(rawdb_region_write_at(region, 0, piece, 4096));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_truncate(region, 8 * MIB));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(append_until(region, piece, 16 * MIB));

    set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
    other = create_region(db, "other");
    CHECK_OK(append_until(other, piece, 120 * MIB));
    check_bytes(region, piece, 16 * MIB);
    check_bytes(other, piece, 120 * MIB);
    rawdb_region_close(region);
    rawdb_region_close(other);
    CHECK_OK(rawdb_close(db));

    /* A database that is larger than the limit can still be read and closed. */
    set_limit(RLIMIT_FSIZE, 1 * MIB);
    db = open_db(dir.db, flags);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    check_bytes(region, piece, 16 * MIB);
    CHECK_OK(rawdb_region_open(db, "other", &other));
    status = rawdb_region_write_at(other, 100 * MIB, piece, MIB); /* the same bytes */
    CHECK(status == RAWDB_OK || status == RAWDB_E_TOO_LARGE);
    check_bytes(other, piece, 120 * MIB);
    rawdb_region_close(region);
    rawdb_region_close(other);
    CHECK_OK(rawdb_close(db));
    free(piece);
}

/* A limit that becomes lower meanwhile, below what the files have already. */
static void with_files_limited_later(void)
{
    uint8_t *piece = new_filled(MIB, 6);
    rawdb *db;
    rawdb_region *region, *other;
    CHECK(signal(SIGXFSZ, SIG_DFL) != SIG_ERR);
    db = open_db(dir.db, open_flags);
    region = create_region(db, "region");
    other = create_region(db, "other");
    CHECK_OK(append_until(region, piece, 16 * MIB));

    /* A call that makes a file longer notices it. */
    set_limit(RLIMIT_FSIZE, 1 * MIB);
    CHECK_STATUS(rawdb_reserve_file(db, GIB), RAWDB_E_TOO_LARGE);
    CHECK_STATUS(append_until(other, piece, 400 * MIB), RAWDB_E_TOO_LARGE);
    set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
    CHECK_OK(append_until(region, piece, 17 * MIB));
    CHECK_OK(rawdb_region_append(region, piece, 64, NULL));

    /* So does the first write after a flush. */
    set_limit(RLIMIT_FSIZE, 1 * MIB);
    CHECK_OK(rawdb_flush(db));
    if (open_flags == RAWDB_OPEN_GUARDED) {
        CHECK_STATUS(rawdb_region_append(region, piece, 64, NULL), RAWDB_E_TOO_LARGE);
        CHECK_STATUS(rawdb_region_write_at(region, 0, piece, MIB), RAWDB_E_TOO_LARGE);
    } else {
        CHECK_OK(rawdb_region_append(region, piece, 64, NULL)); /* by a store */
        CHECK_OK(rawdb_region_truncate(region, 17 * MIB + 64));
    }
    CHECK_EQ(rawdb_region_len(region), 17 * MIB + 64);
    CHECK_OK(rawdb_region_truncate(region, 17 * MIB));
    check_bytes(region, piece, 17 * MIB);
    set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
    CHECK_OK(append_until(region, piece, 18 * MIB));
    check_bytes(region, piece, 18 * MIB);
    rawdb_region_close(region);
    rawdb_region_close(other);
    CHECK_OK(rawdb_close(db));
    free(piece);
}

enum { COUNTED_APPENDS = 1000 };

/* Traced: the calls between two of getppid are counted. */
static void append_traced(void)
{
    rawdb *db = open_db(dir.db, open_flags);
    rawdb_region *region = create_region(db, "region");
    char record[64];
    int i;
    memset(record, 'x', sizeof record);
    CHECK_OK(rawdb_region_reserve(region, MIB / 2));
    CHECK_OK(rawdb_region_append(region, record, sizeof record, NULL));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_append(region, record, sizeof record, NULL));
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    CHECK(raise(SIGSTOP) == 0);
    (void)getppid();
    for (i = 0; i < COUNTED_APPENDS; i++)
        CHECK_OK(rawdb_region_append(region, record, sizeof record, NULL));
    (void)getppid();
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
}

/* Guarded, an append is a write of its bytes and one of the length, and nothing else. */
static void with_two_calls_per_guarded_append(void)
{
    uint64_t writes = 0, others = 0;
    int status, marks = 0;
    pid_t child = fork();
    if (child == 0) {
        append_traced();
        _exit(0);
    }
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0);
    for (;;) {
        struct __ptrace_syscall_info info;
        CHECK(ptrace(PTRACE_SYSCALL, child, NULL, NULL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFSTOPPED(status))
            break;
        CHECK(WSTOPSIG(status) == (SIGTRAP | 0x80)); /* a call begins or ends */
        CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof info, &info) > 0);
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
            continue;
        if (info.entry.nr == SYS_getppid)
            marks += 1;
        else if (marks == 1)
            *(info.entry.nr == SYS_pwrite64 ? &writes : &others) += 1;
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ((uint64_t)marks, 2);
    CHECK_EQ(writes, 2 * COUNTED_APPENDS);
    CHECK_EQ(others, 0);
}

static void with_limited_files(void)
{
    check_file_size_limit(0);
}

static void with_limited_files_guarded(void)
{
    check_file_size_limit(RAWDB_OPEN_GUARDED);
}

static void in_child(void (*test)(void))
{
    int status = 0;
    pid_t child;
    dir = temp_dir_new();
    child = fork();
    if (child == 0) {
        test();
        _exit(0);
    }
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        fprintf(stderr, "the child was ended by signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    temp_dir_remove(&dir);
}

#define RUN_IN_CHILD(test)                                                                         \
    do {                                                                                           \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
        in_child(test);                                                                            \
    } while (0)

/* From 64 MiB on in steps of a quarter, and where windows of a power of two leave next to nothing. */
static void with_each_address_space(void)
{
    static const uint64_t narrow[] = {2105000, 4200000, 8395000, 16785000};
    size_t i;
    printf("with_any_address_space\n");
    for (limit_in_kb = 64 << 10; limit_in_kb < 20000000; limit_in_kb += limit_in_kb / 4)
        in_child(with_any_address_space);
    for (i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        limit_in_kb = narrow[i];
        in_child(with_any_address_space);
    }
}

int main(void)
{
    RUN_IN_CHILD(with_8_gb_of_address_space);
    RUN_IN_CHILD(with_256_mib_of_address_space);
    RUN_IN_CHILD(with_limited_files);
    RUN_IN_CHILD(with_limited_files_guarded);
    for (open_flags = 0; open_flags <= RAWDB_OPEN_GUARDED; open_flags += RAWDB_OPEN_GUARDED) {
        RUN_IN_CHILD(with_files_limited_later);
        with_each_address_space();
        RUN_IN_CHILD(with_future_pages_locked);
        RUN_IN_CHILD(with_few_pages_to_lock);
        RUN_IN_CHILD(with_no_page_to_lock);
        RUN_IN_CHILD(without_core_dumps_of_files);
        RUN_IN_CHILD(with_fast_signals);
        RUN_IN_CHILD(with_fast_signals_in_memory);
    }
    open_flags = RAWDB_OPEN_GUARDED; /* which takes the least of the disk */
    RUN_IN_CHILD(with_two_calls_per_guarded_append);
    RUN_IN_CHILD(with_many_databases);
    return 0;
}
