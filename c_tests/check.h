/*
 * What the C tests share: checks that say what failed, and a temporary directory. Include it first.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700 /* mkdtemp, nftw, pthreads */
#endif

#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rawdb.h>

/* ---- checks ---- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_fail(__FILE__, __LINE__, #condition, "is false");                                \
    } while (0)

#define CHECK_OK(call) check_status((call), RAWDB_OK, #call, __FILE__, __LINE__)
#define CHECK_STATUS(call, wanted) check_status((call), (wanted), #call, __FILE__, __LINE__)
#define CHECK_EQ(actual, wanted) check_eq((actual), (wanted), #actual, __FILE__, __LINE__)

/* The last failure's message has to contain `text`. */
#define CHECK_MESSAGE(text)                                                                        \
    do {                                                                                           \
        if (strstr(rawdb_last_error(), (text)) == NULL)                                            \
            check_fail(__FILE__, __LINE__, (text), "is not in the message");                       \
    } while (0)

/*
 * Ends the process with status 1, also out of a forked child and beside other threads. By another
 * program, as at an exit valgrind would search a database that is still mapped for leaks, for
 * minutes.
 */
static inline void check_fail(const char *file, int line, const char *what, const char *detail)
{
    fprintf(stderr, "%s:%d: %s %s\n    last error: %s\n", file, line, what, detail,
            rawdb_last_error());
    fflush(stderr);
    execl("/bin/false", "false", (char *)NULL);
    _exit(1);
}

/* Ends a forked child with status 0; by another program for the same reason. */
static inline void leave_child(void)
{
    execl("/bin/true", "true", (char *)NULL);
    _exit(1);
}

static inline void check_status(rawdb_status actual, rawdb_status wanted, const char *call,
                                const char *file, int line)
{
    char detail[160];
    if (actual == wanted)
        return;
    snprintf(detail, sizeof detail, "answered %s (%d), not %s", rawdb_status_name(actual),
             (int)actual, rawdb_status_name(wanted));
    check_fail(file, line, call, detail);
}

static inline void check_eq(uint64_t actual, uint64_t wanted, const char *what, const char *file,
                            int line)
{
    char detail[160];
    if (actual == wanted)
        return;
    snprintf(detail, sizeof detail, "is %" PRIu64 ", not %" PRIu64, actual, wanted);
    check_fail(file, line, what, detail);
}

#define RUN(test)                                                                                  \
    do {                                                                                           \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
        test();                                                                                    \
    } while (0)

/* Divides the number of rounds; the runs under valgrind set it. */
static inline unsigned test_scale(void)
{
    const char *text = getenv("RAWDB_TEST_SCALE");
    unsigned long scale = text != NULL ? strtoul(text, NULL, 10) : 1;
    return scale == 0 ? 1 : (unsigned)scale;
}

/*
 * Whether the system has what a test is about. Only an emulator may lack it, which scripts/cross tells by
 * the environment: there the test is left out, and says so.
 */
static inline int has(int there, const char *what)
{
    if (!there) {
        if (getenv("RAWDB_TEST_EMULATED") == NULL)
            check_fail(__FILE__, __LINE__, what, "are not here");
        printf("    the emulator has no %s\n", what);
    }
    return there;
}

/* ---- temporary directories ---- */

typedef struct temp_dir {
    char path[512];
    char db[520]; /* `path`/db, which does not exist yet */
} temp_dir;

static inline temp_dir temp_dir_in(const char *base)
{
    temp_dir dir;
    int n = snprintf(dir.path, sizeof dir.path, "%s/rawdb-XXXXXX", base);
    CHECK(n > 0 && (size_t)n < sizeof dir.path);
    CHECK(mkdtemp(dir.path) != NULL);
    snprintf(dir.db, sizeof dir.db, "%s/db", dir.path);
    return dir;
}

static inline temp_dir temp_dir_new(void)
{
    const char *base = getenv("TMPDIR");
    return temp_dir_in(base != NULL ? base : "/tmp");
}

static inline int temp_dir_remove_entry(const char *path, const struct stat *info, int type,
                                        struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static inline void temp_dir_remove(const temp_dir *dir)
{
    CHECK(nftw(dir->path, temp_dir_remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* How many mappings and descriptors of files in `dir` this process has. */
static inline unsigned open_files(const temp_dir *dir)
{
    const char *own_name = strrchr(dir->path, '/');
    char line[1024];
    unsigned found = 0;
    struct dirent *entry;
    DIR *descriptors = opendir("/proc/self/fd");
    FILE *mappings = fopen("/proc/self/maps", "r");
    CHECK(descriptors != NULL && mappings != NULL);
    while (fgets(line, sizeof line, mappings) != NULL)
        found += strstr(line, own_name) != NULL;
    while ((entry = readdir(descriptors)) != NULL) {
        ssize_t len = readlinkat(dirfd(descriptors), entry->d_name, line, sizeof line - 1);
        line[len > 0 ? len : 0] = '\0';
        found += strstr(line, own_name) != NULL;
    }
    fclose(mappings);
    closedir(descriptors);
    return found;
}

/* ---- short forms ---- */

static inline rawdb *open_db(const char *path, uint32_t flags)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db = NULL;
    options.flags = flags;
    CHECK_OK(rawdb_open(path, &options, &db));
    CHECK(db != NULL);
    return db;
}

static inline rawdb_region *create_region(rawdb *db, const char *name)
{
    rawdb_region *region = NULL;
    CHECK_OK(rawdb_region_create(db, name, &region));
    CHECK(region != NULL);
    return region;
}

static inline rawdb_stats get_stats(rawdb *db)
{
    rawdb_stats stats = RAWDB_STATS_INIT;
    CHECK_OK(rawdb_get_stats(db, &stats));
    return stats;
}

static inline rawdb_region_info get_info(const rawdb_region *region)
{
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    CHECK_OK(rawdb_region_get_info(region, &info));
    return info;
}

/* Bytes that only this seed gives (splitmix64). */
static inline void fill(uint8_t *buffer, size_t len, uint64_t seed)
{
    uint64_t state = seed, word = 0;
    size_t i;
    for (i = 0; i < len; i++) {
        if (i % 8 == 0) {
            state += UINT64_C(0x9E3779B97F4A7C15);
            word = state;
            word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
            word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
            word ^= word >> 31;
        }
        buffer[i] = (uint8_t)(word >> (i % 8 * 8));
    }
}

static inline uint8_t *new_filled(size_t len, uint64_t seed)
{
    uint8_t *buffer = (uint8_t *)malloc(len > 0 ? len : 1);
    CHECK(buffer != NULL);
    fill(buffer, len, seed);
    return buffer;
}

/* The whole content, by view and by read. */
#define CHECK_CONTENT(region, wanted, len)                                                         \
    check_content((region), (wanted), (len), __FILE__, __LINE__)

static inline void check_content(rawdb_region *region, const void *wanted, size_t len,
                                 const char *file, int line)
{
    rawdb_view view;
    uint8_t *copy = (uint8_t *)malloc(len > 0 ? len : 1);
    if (copy == NULL)
        check_fail(file, line, "malloc", "failed");
    check_eq(rawdb_region_len(region), len, "the region's length", file, line);
    check_status(rawdb_region_view(region, 0, RAWDB_TO_END, &view), RAWDB_OK, "the view", file,
                 line);
    check_eq(view.len, len, "the view's length", file, line);
    if (len > 0 && memcmp(view.data, wanted, len) != 0)
        check_fail(file, line, "the view", "shows other bytes");
    rawdb_view_release(&view);
    check_status(rawdb_region_read(region, 0, copy, len), RAWDB_OK, "the read", file, line);
    if (len > 0 && memcmp(copy, wanted, len) != 0)
        check_fail(file, line, "the read", "gave other bytes");
    free(copy);
}

static inline int is_zero(const void *data, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)data;
    size_t i;
    for (i = 0; i < len; i++)
        if (bytes[i] != 0)
            return 0;
    return 1;
}

#endif
