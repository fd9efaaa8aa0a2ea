/*
 * Under resource limits of the process: less address space than the library would like, and files
 * that may not grow. Each test runs in a child of its own.
 */
#include "check.h"

#include <signal.h>
#include <sys/resource.h>

enum { MIB = 1 << 20 };

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

int main(void)
{
    RUN_IN_CHILD(with_8_gb_of_address_space);
    RUN_IN_CHILD(with_256_mib_of_address_space);
    RUN_IN_CHILD(with_limited_files);
    RUN_IN_CHILD(with_limited_files_guarded);
    return 0;
}
