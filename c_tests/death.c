/* What the next process finds when the one that had the database open is killed. */
#include "check.h"

#include <signal.h>

enum { MANY = 300 };

static temp_dir dir;

/* Runs `work` in a child with a database of its own, which dies by `signal` with all open. */
static void die(int signal, void (*work)(rawdb *db))
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        rawdb *db;
        CHECK_OK(rawdb_open(dir.db, NULL, &db));
        work(db);
        raise(signal);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal);
}

static rawdb *reopen(uint32_t flags)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;
    options.flags = flags;
    CHECK_OK(rawdb_open(dir.db, &options, &db));
    return db;
}

static void check_region(rawdb *db, const char *name, const void *bytes, size_t len)
{
    rawdb_region *region;
    CHECK_OK(rawdb_region_open(db, name, &region));
    CHECK_CONTENT(region, bytes, len);
    rawdb_region_close(region);
}

static void write_everything(rawdb *db)
{
    rawdb_region *a, *b, *c;
    rawdb_view view;
    void *buffer;
    uint64_t offsets[2] = {1, 3};

    CHECK_OK(rawdb_region_create(db, "a", &a));
    CHECK_OK(rawdb_region_append(a, "flushed", 7, NULL));
    CHECK_OK(rawdb_region_create(db, "removed", &b));
    CHECK_OK(rawdb_region_append(b, "x", 1, NULL));
    CHECK_OK(rawdb_flush(db));

    CHECK_OK(rawdb_region_append(a, " and not", 8, NULL));
    CHECK_OK(rawdb_remove(db, "removed"));
    CHECK_OK(rawdb_region_create(db, "b", &b));
    CHECK_OK(rawdb_region_write_at(b, 0, "0123456789", 10));
    CHECK_OK(rawdb_region_view(b, 0, RAWDB_TO_END, &view));
    CHECK_OK(rawdb_region_write_batch(b, offsets, "xy", 1, 2)); /* moves it, because of the view */
    CHECK_OK(rawdb_region_truncate(b, 8));
    CHECK_OK(rawdb_region_create(db, "c", &c));
    CHECK_OK(rawdb_region_append_begin(c, 100, &buffer));
    memcpy(buffer, "buffer", 6);
    CHECK_OK(rawdb_region_append_end(c, 6));
    CHECK_OK(rawdb_region_append_begin(c, 100, &buffer));
    memcpy(buffer, "abandoned", 9);
    CHECK_OK(rawdb_region_create(db, "new", &b));
    CHECK_OK(rawdb_region_append(b, "newer", 5, NULL));
    CHECK_OK(rawdb_rename(db, "new", "a2", 0));
}

static void check_everything(rawdb *db)
{
    rawdb_stats stats = RAWDB_STATS_INIT;
    rawdb_region *region;
    check_region(db, "a", "flushed and not", 15);
    check_region(db, "b", "0x2y4567", 8);
    check_region(db, "c", "buffer", 6);
    check_region(db, "a2", "newer", 5);
    CHECK_STATUS(rawdb_region_open(db, "removed", &region), RAWDB_E_NOT_FOUND);
    CHECK_OK(rawdb_get_stats(db, &stats));
    CHECK_EQ(stats.region_count, 4);
}

static void test_killed(void)
{
    const int signals[] = {SIGKILL, SIGABRT, SIGTERM};
    size_t i;
    for (i = 0; i < sizeof signals / sizeof *signals; i++) {
        rawdb *db;
        dir = temp_dir_new();
        die(signals[i], write_everything);
        db = reopen(RAWDB_OPEN_READ_ONLY);
        check_everything(db);
        CHECK_OK(rawdb_close(db));
        db = reopen(0);
        check_everything(db);
        CHECK_OK(rawdb_close(db));
        db = reopen(RAWDB_OPEN_GUARDED);
        check_everything(db);
        CHECK_OK(rawdb_close(db));
        temp_dir_remove(&dir);
    }
}

static void replace(rawdb *db)
{
    rawdb_region *region;
    CHECK_OK(rawdb_region_create(db, "new", &region));
    CHECK_OK(rawdb_region_append(region, "second", 6, NULL));
    CHECK_OK(rawdb_rename(db, "new", "current", RAWDB_RENAME_REPLACE));
}

/* Nothing of it was flushed by the one that did it, nor by the one that came next. */
static void add_one_more(rawdb *db)
{
    rawdb_region *region;
    CHECK_OK(rawdb_region_create(db, "count", &region));
    CHECK_OK(rawdb_region_append(region, "+", 1, NULL));
}

static void test_one_after_the_other(void)
{
    rawdb *db;
    int i;
    char counted[] = "++++++++++";
    dir = temp_dir_new();
    for (i = 0; i < 10; i++)
        die(SIGKILL, add_one_more);
    die(SIGKILL, replace);
    die(SIGKILL, replace);
    db = reopen(0);
    check_region(db, "count", counted, 10);
    check_region(db, "current", "second", 6);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void create_many(rawdb *db)
{
    int i;
    for (i = 0; i < MANY; i++) {
        char name[16];
        rawdb_region *region;
        snprintf(name, sizeof name, "%d", i);
        CHECK_OK(rawdb_region_create(db, name, &region));
        CHECK_OK(rawdb_region_append(region, name, strlen(name), NULL));
    }
}

static void test_many(void)
{
    rawdb *db;
    int i;
    dir = temp_dir_new();
    die(SIGKILL, create_many);
    db = reopen(0);
    for (i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        check_region(db, name, name, strlen(name));
    }
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

int main(void)
{
    RUN(test_killed);
    RUN(test_one_after_the_other);
    RUN(test_many);
    return 0;
}
