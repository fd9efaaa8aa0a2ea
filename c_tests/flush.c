/* Flushing, compacting and what the statistics say about both. */
#include "check.h"

enum { MIB = 1 << 20 };

static temp_dir dir;
static rawdb *db;

/* No automatic reclamation unless a test is about it: space is punched by compact alone then. */
static void set_up(uint64_t reclaim_threshold)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    dir = temp_dir_new();
    options.reclaim_threshold = reclaim_threshold;
    CHECK_OK(rawdb_open(dir.db, &options, &db));
}

static void tear_down(void)
{
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static rawdb_region *create_sized(const char *name, size_t len)
{
    rawdb_region *region = create_region(db, name);
    uint8_t *bytes = new_filled(len, len);
    CHECK_OK(rawdb_region_append(region, bytes, len, NULL));
    free(bytes);
    return region;
}

static void check_sized(rawdb_region *region, size_t len)
{
    uint8_t *bytes = new_filled(len, len);
    CHECK_CONTENT(region, bytes, len);
    free(bytes);
}

static void check_file(const rawdb_stats *stats)
{
    struct stat info;
    char path[600];
    snprintf(path, sizeof path, "%s/data", dir.db);
    CHECK(stat(path, &info) == 0);
    CHECK_EQ(stats->file_len, (uint64_t)info.st_size);
    CHECK_EQ(stats->disk_bytes, (uint64_t)info.st_blocks * 512);
}

static void test_counts(void)
{
    rawdb_region *a, *b;
    rawdb_stats stats;
    set_up(UINT64_MAX);
    stats = get_stats(db);
    CHECK_EQ(stats.region_count, 0);
    CHECK_EQ(stats.live_bytes, 0);
    CHECK_EQ(stats.reserved_bytes, 0);
    CHECK_EQ(stats.pending_bytes, 0);
    CHECK_EQ(stats.pinned_bytes, 0);
    CHECK(stats.file_len >= 4096);
    check_file(&stats);

    a = create_sized("a", 10);
    b = create_sized("b", 3 * MIB);
    stats = get_stats(db);
    CHECK_EQ(stats.region_count, 2);
    CHECK_EQ(stats.live_bytes, 10 + 3 * MIB);
    CHECK_EQ(stats.reserved_bytes, get_info(a).reserved + get_info(b).reserved);
    CHECK(stats.disk_bytes >= 3 * MIB);
    CHECK(stats.file_len >= get_info(a).start + get_info(a).len);
    CHECK(stats.file_len >= get_info(b).start + get_info(b).len);
    check_file(&stats);
    rawdb_region_close(a);
    rawdb_region_close(b);
    tear_down();
}

/* A generation is a durable region table; without a change of that there is no new one. */
static void test_generation(void)
{
    rawdb_region *region;
    uint64_t generation;
    set_up(0);
    region = create_sized("region", 10);
    generation = get_stats(db).generation;
    CHECK_OK(rawdb_flush(db));
    CHECK(get_stats(db).generation > generation);
    generation = get_stats(db).generation;
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_flush(region));
    CHECK_EQ(get_stats(db).generation, generation);

    CHECK_OK(rawdb_region_write_at(region, 0, "x", 1));
    CHECK_OK(rawdb_flush(db));
    CHECK_EQ(get_stats(db).generation, generation);

    CHECK_OK(rawdb_region_append(region, "x", 1, NULL));
    CHECK_EQ(get_stats(db).generation, generation);
    CHECK_OK(rawdb_region_flush(region));
    CHECK(get_stats(db).generation > generation);
    generation = get_stats(db).generation;
    CHECK_OK(rawdb_rename(db, "region", "renamed", 0));
    CHECK_OK(rawdb_flush(db));
    CHECK(get_stats(db).generation > generation);
    generation = get_stats(db).generation;
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    db = open_db(dir.db, 0);
    CHECK(get_stats(db).generation >= generation);
    tear_down();
}

/* Space given up: pending until it is flushed, then free; never pending if it never was durable. */
static void test_pending(void)
{
    rawdb_region *kept, *gone, *passing;
    rawdb_stats before, after;
    uint64_t reserved;
    set_up(UINT64_MAX);
    gone = create_sized("gone", 2 * MIB);
    kept = create_sized("kept", 100);
    CHECK_OK(rawdb_flush(db));
    reserved = get_info(gone).reserved;
    before = get_stats(db);
    CHECK_EQ(before.pending_bytes, 0);

    CHECK_OK(rawdb_remove(db, "gone"));
    after = get_stats(db);
    CHECK_EQ(after.region_count, 1);
    CHECK_EQ(after.live_bytes, 100);
    CHECK_EQ(after.pending_bytes, reserved);
    CHECK_EQ(after.free_bytes, before.free_bytes);
    CHECK_EQ(after.reserved_bytes, before.reserved_bytes - reserved);
    CHECK_OK(rawdb_flush(db));
    after = get_stats(db);
    CHECK_EQ(after.pending_bytes, 0);
    CHECK(after.free_bytes >= before.free_bytes + reserved);

    passing = create_sized("passing", 2 * MIB);
    CHECK_OK(rawdb_remove(db, "passing"));
    CHECK_EQ(get_stats(db).pending_bytes, 0);
    check_sized(kept, 100);
    rawdb_region_close(passing);
    rawdb_region_close(gone);
    rawdb_region_close(kept);
    tear_down();
}

/* A flush of one region leaves what others have given up. */
static void test_region_flush(void)
{
    rawdb_region *a, *b, *gone;
    set_up(0);
    a = create_sized("a", 1000);
    b = create_sized("b", 2000);
    gone = create_sized("gone", 3000);
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_append(a, "a", 1, NULL));
    CHECK_OK(rawdb_region_append(b, "b", 1, NULL));
    CHECK_OK(rawdb_remove(db, "gone"));
    CHECK_OK(rawdb_region_flush(a));
    CHECK_EQ(rawdb_region_len(a), 1001);
    CHECK_EQ(rawdb_region_len(b), 2001);
    CHECK_OK(rawdb_flush(db));
    CHECK_EQ(get_stats(db).pending_bytes, 0);
    rawdb_region_close(a);
    rawdb_region_close(b);
    rawdb_region_close(gone);
    tear_down();
}

static void test_pinned(void)
{
    rawdb_region *gone;
    rawdb_view view, second;
    rawdb_stats stats;
    uint64_t reserved;
    uint8_t *bytes = new_filled(2 * MIB, 2 * MIB);
    set_up(0); /* not even reclamation takes a viewed byte */
    gone = create_sized("gone", 2 * MIB);
    CHECK_OK(rawdb_flush(db));
    reserved = get_info(gone).reserved;
    CHECK_OK(rawdb_region_view(gone, 0, RAWDB_TO_END, &view));
    CHECK_OK(rawdb_region_view(gone, 0, 1, &second));
    CHECK_EQ(get_stats(db).pinned_bytes, 0); /* nothing was given up */
    CHECK_OK(rawdb_remove(db, "gone"));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    stats = get_stats(db);
    CHECK_EQ(stats.live_bytes, 0);
    CHECK_EQ(stats.pinned_bytes, reserved);
    CHECK_EQ(stats.pending_bytes, 0);
    CHECK(stats.disk_bytes >= 2 * MIB);
    CHECK(memcmp(view.data, bytes, 2 * MIB) == 0);
    rawdb_view_release(&second);
    CHECK_EQ(get_stats(db).pinned_bytes, reserved);
    rawdb_view_release(&view);
    stats = get_stats(db);
    CHECK_EQ(stats.pinned_bytes, 0);
    CHECK_EQ(stats.pending_bytes, 0);
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK(get_stats(db).disk_bytes < 1 * MIB);
    rawdb_region_close(gone);
    free(bytes);
    tear_down();
}

typedef struct progress {
    uint64_t calls, last_done, total, stop_after;
} progress;

static int32_t count_progress(void *context, uint64_t done, uint64_t total)
{
    progress *p = (progress *)context;
    CHECK(done <= total);
    CHECK(done >= p->last_done);
    p->last_done = done;
    p->total = total;
    p->calls++;
    return p->calls >= p->stop_after ? 1 : 0;
}

static const progress NO_STOP = {0, 0, 0, UINT64_MAX};

/* Two MiB regions with the same between them removed: as many holes. */
enum { PAIRS = 6 };
static rawdb_region *kept[PAIRS];

static void make_holes(void)
{
    char name[16];
    unsigned i;
    for (i = 0; i < PAIRS; i++) {
        snprintf(name, sizeof name, "kept%u", i);
        kept[i] = create_sized(name, 2 * MIB);
        snprintf(name, sizeof name, "gone%u", i);
        rawdb_region_close(create_sized(name, 2 * MIB));
    }
    CHECK_OK(rawdb_flush(db));
    for (i = 0; i < PAIRS; i++) {
        snprintf(name, sizeof name, "gone%u", i);
        CHECK_OK(rawdb_remove(db, name));
    }
}

static void check_and_close_kept(void)
{
    unsigned i;
    for (i = 0; i < PAIRS; i++) {
        check_sized(kept[i], 2 * MIB);
        rawdb_region_close(kept[i]);
    }
}

static void test_compact(void)
{
    rawdb_stats before, after;
    progress p = NO_STOP;
    struct stat info;
    char path[600];
    set_up(UINT64_MAX);
    make_holes();
    before = get_stats(db);
    CHECK(before.disk_bytes >= UINT64_C(2) * PAIRS * 2 * MIB);
    CHECK_OK(rawdb_flush(db));
    CHECK(get_stats(db).disk_bytes >= UINT64_C(2) * PAIRS * 2 * MIB); /* as it was asked for */
    CHECK_OK(rawdb_compact(db, count_progress, &p));
    CHECK(p.calls > 0);
    CHECK_EQ(p.last_done, p.total);
    after = get_stats(db);
    CHECK_EQ(after.pending_bytes, 0);
    CHECK(after.disk_bytes >= UINT64_C(1) * PAIRS * 2 * MIB);
    CHECK(after.disk_bytes < UINT64_C(1) * PAIRS * 2 * MIB + MIB);
    CHECK_EQ(after.live_bytes, before.live_bytes);
    check_file(&after);
    check_and_close_kept();
    CHECK_OK(rawdb_retain(db, NULL, 0));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    after = get_stats(db);
    CHECK(after.disk_bytes < MIB);
    CHECK(after.file_len <= 2 * MIB); /* all of the file is a free end */
    snprintf(path, sizeof path, "%s/data", dir.db);
    CHECK(stat(path, &info) == 0);
    CHECK_EQ((uint64_t)info.st_size, after.file_len);
    tear_down();
}

/* A region that has shrunk gives its tail back. */
static void test_compact_tails(void)
{
    rawdb_region *region;
    uint8_t *bytes = new_filled(8 * MIB, 8 * MIB);
    set_up(UINT64_MAX);
    region = create_sized("region", 8 * MIB);
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_truncate(region, 5000));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK(get_stats(db).disk_bytes < MIB);
    CHECK_CONTENT(region, bytes, 5000);
    /* and it can be written again where it was punched */
    CHECK_OK(rawdb_region_append(region, bytes + 5000, 3 * MIB, NULL));
    CHECK_CONTENT(region, bytes, 3 * MIB + 5000);
    rawdb_region_close(region);
    free(bytes);
    tear_down();
}

/* A compaction would wait for itself. */
static int32_t compact_again(void *context, uint64_t done, uint64_t total)
{
    CHECK(done <= total);
    CHECK_STATUS(rawdb_compact(db, NULL, NULL), RAWDB_E_BUSY);
    CHECK_MESSAGE("callback");
    CHECK_OK(rawdb_flush(db));
    ++*(unsigned *)context;
    return 0;
}

static void test_compact_in_compact(void)
{
    unsigned calls = 0;
    set_up(UINT64_MAX);
    make_holes();
    CHECK_OK(rawdb_compact(db, compact_again, &calls));
    CHECK(calls > PAIRS);
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    check_and_close_kept();
    tear_down();
}

static void test_compact_cancelled(void)
{
    progress p = NO_STOP;
    set_up(UINT64_MAX);
    make_holes();
    p.stop_after = 1;
    CHECK_STATUS(rawdb_compact(db, count_progress, &p), RAWDB_E_CANCELLED);
    CHECK_EQ(p.calls, 1);
    p = NO_STOP;
    p.stop_after = 2;
    CHECK_STATUS(rawdb_compact(db, count_progress, &p), RAWDB_E_CANCELLED);
    CHECK_EQ(p.calls, 2);
    CHECK_EQ(get_stats(db).region_count, PAIRS);
    CHECK_EQ(get_stats(db).live_bytes, UINT64_C(1) * PAIRS * 2 * MIB);
    CHECK_OK(rawdb_region_append(kept[0], "x", 1, NULL));
    CHECK_OK(rawdb_region_truncate(kept[0], 2 * MIB));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK(get_stats(db).disk_bytes < UINT64_C(1) * PAIRS * 2 * MIB + 2 * MIB);
    check_and_close_kept();
    tear_down();
}

/* Large free space goes back to the file system with the flush that frees it. */
static void test_reclaim(void)
{
    uint64_t before;
    set_up(0);
    make_holes();
    before = get_stats(db).disk_bytes;
    CHECK(before >= UINT64_C(2) * PAIRS * 2 * MIB);
    CHECK_OK(rawdb_flush(db));
    CHECK(get_stats(db).disk_bytes <= before - UINT64_C(1) * PAIRS * 2 * MIB);
    check_and_close_kept();
    tear_down();
}

/*
 * Room to grow into is reserved in the file, not on the disk. Small regions share pieces of 2 MiB,
 * one of which is not full and one of which is the file's first; in them each region has its bytes
 * rounded up to a power of two of pages, and after a compaction to pages.
 */
static void test_disk_of_small_regions(void)
{
    enum { COUNT = 1000 }; /* it takes some hundred page faults for large folios */
    static const size_t LENS[] = {3000, 5000, 9000, 20000}, POWERS[] = {1, 2, 4, 8},
                        PAGES[] = {1, 2, 3, 5};
    char name[16];
    uint64_t powers = 0, pages = 0;
    unsigned i;
    set_up(0);
    for (i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "small%u", i);
        rawdb_region_close(create_sized(name, LENS[i % 4]));
        powers += POWERS[i % 4];
        pages += PAGES[i % 4];
    }
    CHECK(get_stats(db).disk_bytes <= powers * 4096 + 4 * MIB);
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK(get_stats(db).disk_bytes <= pages * 4096 + 64 * 1024);
    tear_down();
}

int main(void)
{
    RUN(test_counts);
    RUN(test_generation);
    RUN(test_pending);
    RUN(test_region_flush);
    RUN(test_pinned);
    RUN(test_compact);
    RUN(test_compact_tails);
    RUN(test_compact_in_compact);
    RUN(test_compact_cancelled);
    RUN(test_reclaim);
    RUN(test_disk_of_small_regions);
    return 0;
}
