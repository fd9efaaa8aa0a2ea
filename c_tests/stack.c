/*
 * Every function on a stack of 32 KiB, as goroutines and fibers have them, with a page below that
 * ends the process when it is touched. How much of it each step has used is printed.
 */
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "filter.h"

enum { STACK = 32 << 10, PAINT = 0xA5, PRIVATE_ANONYMOUS = 0x22, MANY = 3000 };

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;
static uint32_t flags;
static uint8_t *bytes; /* SIZE of them */
enum { SIZE = 3 << 20 };

/* ---- the small stack ---- */

static ucontext_t caller, callee;
static uint8_t *stack;

static void make_stack(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *mapped = mmap(NULL, page + STACK, PROT_READ | PROT_WRITE, PRIVATE_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED);
    CHECK(mprotect(mapped, page, PROT_NONE) == 0);
    stack = (uint8_t *)mapped + page;
}

static unsigned touched(void)
{
    unsigned untouched = 0;
    while (untouched < STACK && stack[untouched] == PAINT)
        untouched++;
    return STACK - untouched;
}

static void on_small_stack(void (*step)(void), const char *name)
{
    memset(stack, PAINT, STACK);
    CHECK(getcontext(&callee) == 0);
    callee.uc_stack.ss_sp = stack;
    callee.uc_stack.ss_size = STACK;
    callee.uc_link = &caller;
    makecontext(&callee, step, 0);
    printf("    %-24s ", name);
    fflush(stdout);
    CHECK(swapcontext(&caller, &callee) == 0);
    printf("%5u bytes\n", touched());
}

#define STEP(step) on_small_stack(step, #step)

/* ---- what is done on it ---- */

static void library(void)
{
    CHECK(rawdb_version_number() == RAWDB_VERSION_NUMBER);
    CHECK(strcmp(rawdb_version_string(), RAWDB_VERSION_STRING) == 0);
    CHECK(strcmp(rawdb_status_name(RAWDB_OK), "RAWDB_OK") == 0);
    CHECK(rawdb_status_message(RAWDB_OK)[0] != '\0');
    CHECK_EQ(rawdb_last_os_error(), 0);
    CHECK(rawdb_last_error()[0] == '\0');
}

static void open_database(void)
{
    db = open_db(dir.db, flags);
}

static void close_database(void)
{
    CHECK_OK(rawdb_close(db));
}

static void create(void)
{
    region = create_region(db, "region");
}

static void write_small(void)
{
    static const uint64_t OFFSETS[] = {0, 64, 128};
    void *room;
    uint64_t offset;
    unsigned i;
    for (i = 0; i < 20; i++)
        CHECK_OK(rawdb_region_append(region, bytes, 64, &offset));
    CHECK_OK(rawdb_region_write_at(region, 10, bytes, 64));
    CHECK_OK(rawdb_region_write_batch(region, OFFSETS, bytes, 8, 3));
    CHECK_OK(rawdb_region_append_begin(region, 64, &room));
    memcpy(room, bytes, 64);
    CHECK_OK(rawdb_region_append_end(region, 64));
    CHECK_OK(rawdb_region_truncate(region, 100));
    CHECK_OK(rawdb_region_truncate_write(region, 50, bytes, 64));
}

static void write_large(void)
{
    unsigned i;
    CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, SIZE));
    for (i = 0; i < SIZE / 1000; i++) /* stored, with pages made ahead */
        CHECK_OK(rawdb_region_append(region, bytes, 1000, NULL));
    CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, SIZE));
    CHECK_OK(rawdb_region_write_at(region, 1000, bytes, SIZE));
}

static void write_under_view(void)
{
    rawdb_view views[6];
    unsigned i;
    for (i = 0; i < 6; i++)
        CHECK_OK(rawdb_region_view(region, i * 100, 100, &views[i]));
    CHECK_OK(rawdb_region_write_at(region, 0, "moved", 5));
    for (i = 0; i < 6; i++)
        rawdb_view_release(&views[i]);
}

static void look(void)
{
    static uint8_t copy[100];
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    rawdb_stats stats = RAWDB_STATS_INIT;
    char name[16];
    CHECK_OK(rawdb_region_read(region, 0, copy, sizeof copy));
    CHECK(rawdb_region_len(region) > 0);
    CHECK_EQ(rawdb_region_name(region, name, sizeof name), 6);
    CHECK_OK(rawdb_region_get_info(region, &info));
    CHECK_OK(rawdb_get_stats(db, &stats));
}

static void reserve(void)
{
    CHECK_OK(rawdb_region_reserve(region, 2 * SIZE));
    CHECK_OK(rawdb_reserve_file(db, 100 << 20));
    CHECK_OK(rawdb_reserve_regions(db, 2 * MANY));
}

static void flush(void)
{
    CHECK_OK(rawdb_region_append(region, bytes, 64, NULL));
    CHECK_OK(rawdb_region_flush(region));
    CHECK_OK(rawdb_flush(db));
}

static void many_name(char *name, size_t room, unsigned number)
{
    snprintf(name, room, "%u of many regions, with a name of some length", number * 7919 % MANY);
}

static void create_many(void)
{
    char name[80];
    unsigned i;
    for (i = 0; i < MANY; i++) {
        rawdb_region *it;
        many_name(name, sizeof name, i);
        it = create_region(db, name);
        CHECK_OK(rawdb_region_append(it, name, strlen(name), NULL));
        rawdb_region_close(it);
    }
}

static void change_many(void)
{
    char name[80];
    unsigned i;
    for (i = 0; i < MANY; i += 2) {
        rawdb_region *it;
        many_name(name, sizeof name, i);
        CHECK_OK(rawdb_region_open(db, name, &it));
        CHECK_OK(rawdb_region_append(it, name, strlen(name), NULL));
        rawdb_region_close(it);
    }
    many_name(name, sizeof name, 1);
    CHECK_OK(rawdb_rename(db, name, "renamed", 0));
    many_name(name, sizeof name, 3);
    CHECK_OK(rawdb_rename(db, name, "renamed", RAWDB_RENAME_REPLACE));
    CHECK_OK(rawdb_remove(db, "renamed"));
}

static void list(void)
{
    rawdb_region_iter *iter;
    const char *name;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    unsigned count = 0;
    CHECK_OK(rawdb_list(db, &iter));
    while (rawdb_region_iter_next(iter, &name, &info) == RAWDB_OK)
        count++;
    CHECK_EQ(count, get_stats(db).region_count);
    rawdb_region_iter_free(iter);
}

static int32_t progress(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)done;
    (void)total;
    CHECK_STATUS(rawdb_get_stats(db, NULL), RAWDB_E_INVALID_ARGUMENT); /* makes a message */
    return 0;
}

static void compact(void)
{
    CHECK_OK(rawdb_compact(db, progress, NULL));
}

static void retain(void)
{
    static const char *NAMES[] = {"region"};
    CHECK_OK(rawdb_retain(db, NAMES, 1));
}

static void close_region(void)
{
    rawdb_region_close(region);
}

static void fail(void)
{
    static char long_name[2000];
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *other;
    rawdb_region *none;
    rawdb_view view;
    memset(long_name, 'x', sizeof long_name - 1);
    CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
    CHECK_STATUS(rawdb_open("/dev/null/no/such/place", NULL, &other), RAWDB_E_IO);
    CHECK_EQ(rawdb_last_os_error(), ENOTDIR);
    options.flags = ~0u;
    CHECK_STATUS(rawdb_open(dir.db, &options, &other), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_create(db, long_name, &none), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_region_open(db, "\xff", &none), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_region_open(db, "none", &none), RAWDB_E_NOT_FOUND);
    CHECK_STATUS(rawdb_region_view(region, UINT64_MAX / 2, 1, &view), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_write_at(region, UINT64_MAX / 2, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_reserve(region, UINT64_MAX), RAWDB_E_TOO_LARGE);
    CHECK_STATUS(rawdb_reserve_regions(db, UINT64_MAX), RAWDB_E_TOO_LARGE);
    CHECK_STATUS(rawdb_rename(db, "none", "region", 0), RAWDB_E_NOT_FOUND);
}

static void open_damaged(void)
{
    rawdb *none;
    CHECK_STATUS(rawdb_open(dir.db, NULL, &none), RAWDB_E_CORRUPT);
    CHECK(strlen(rawdb_last_error()) > 20);
}

/* ---- the order in which it is done ---- */

static void everything(uint32_t of_flags)
{
    dir = temp_dir_new();
    flags = of_flags;
    STEP(open_database);
    STEP(create);
    STEP(write_small);
    STEP(look);
    STEP(write_large);
    STEP(write_under_view);
    STEP(reserve);
    STEP(flush);
    STEP(create_many);
    STEP(flush);
    STEP(change_many);
    STEP(flush);
    STEP(list);
    STEP(compact);
    STEP(fail);
    STEP(close_region);
    STEP(close_database);
    STEP(open_database);
    STEP(create);
    STEP(list);
    STEP(retain);
    STEP(compact);
    STEP(close_region);
    STEP(close_database);
    temp_dir_remove(&dir);
}

static void test_everything(void)
{
    STEP(library);
    everything(0);
    everything(RAWDB_OPEN_GUARDED);
}

/* Opening after a process has died with many regions in the mirror, for writing and for reading. */
static void test_after_death(void)
{
    int status = 0;
    pid_t child;
    dir = temp_dir_new();
    flags = 0;
    child = fork();
    if (child == 0) {
        open_database();
        create();
        create_many();
        CHECK_OK(rawdb_flush(db));
        change_many();
        CHECK_OK(rawdb_region_append(region, bytes, 64, NULL));
        raise(SIGKILL);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    flags = RAWDB_OPEN_READ_ONLY;
    STEP(open_database);
    STEP(list);
    STEP(close_database);
    flags = 0;
    STEP(open_database);
    STEP(list);
    STEP(create);
    STEP(flush);
    STEP(close_region);
    STEP(close_database);
    temp_dir_remove(&dir);
}

static void test_damage(void)
{
    char path[sizeof dir.db + 16];
    FILE *file;
    dir = temp_dir_new();
    flags = 0;
    open_database();
    create();
    close_region();
    close_database();
    snprintf(path, sizeof path, "%s/regions", dir.db);
    file = fopen(path, "r+");
    CHECK(file != NULL && fwrite(bytes, 1, 8192, file) == 8192 && fclose(file) == 0); /* headers */
    STEP(open_damaged);
    temp_dir_remove(&dir);
}

/* Without fallocate(), room is made by writing zeros. */
static void test_without_fallocate(void)
{
    int status = 0;
    pid_t child;
    if (!can_filter())
        return;
    child = fork();
    if (child == 0) {
        CHECK(refuse(SYS_fallocate, EOPNOTSUPP, OWN_THREAD));
        dir = temp_dir_new();
        flags = 0;
        STEP(open_database);
        STEP(create);
        STEP(write_small);
        STEP(write_large);
        STEP(create_many);
        STEP(flush);
        STEP(close_region);
        STEP(close_database);
        temp_dir_remove(&dir);
        fflush(stdout);
        leave_child();
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    bytes = new_filled(SIZE, 1);
    make_stack();
    RUN(test_everything);
    RUN(test_after_death);
    RUN(test_damage);
    RUN(test_without_fallocate);
    free(bytes);
    return 0;
}
