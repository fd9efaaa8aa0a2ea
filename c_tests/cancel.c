/*
 * pthread_cancel(): no call is a cancellation point. A thread that is cancelled meanwhile ends after the
 * call, wherever it next comes to one.
 */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { SIZE = 3 << 20, RECORD = 40 };

static temp_dir dir;
static uint8_t *bytes;

/* ---- every call, by a thread that would end at the first cancellation point ---- */

static int32_t progress(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(unsigned *)context;
    pthread_testcancel();
    return 0;
}

static void write_all_ways(rawdb *db, rawdb_region *region)
{
    static const uint64_t OFFSETS[] = {0, 64, 128};
    rawdb_view view;
    void *room;
    unsigned i;
    for (i = 0; i < 20; i++)
        CHECK_OK(rawdb_region_append(region, bytes, 64, NULL));
    CHECK_OK(rawdb_region_write_at(region, 10, bytes, 64));
    CHECK_OK(rawdb_region_write_batch(region, OFFSETS, bytes, 8, 3));
    CHECK_OK(rawdb_region_append_begin(region, 64, &room));
    memcpy(room, bytes, 64);
    CHECK_OK(rawdb_region_append_end(region, 64));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_truncate(region, 100));
    CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, SIZE));
    for (i = 0; i < 1000; i++)
        CHECK_OK(rawdb_region_append(region, bytes, 1000, NULL));
    CHECK_OK(rawdb_region_view(region, 0, 100, &view));
    CHECK_OK(rawdb_region_write_at(region, 0, "moved", 5));
    rawdb_view_release(&view);
    CHECK_OK(rawdb_region_reserve(region, 2 * SIZE));
    CHECK_OK(rawdb_region_flush(region));
}

static void look_all_ways(rawdb *db, rawdb_region *region)
{
    rawdb_region_iter *iter;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    const char *name;
    uint8_t copy[100];
    CHECK_OK(rawdb_region_read(region, 0, copy, sizeof copy));
    CHECK(rawdb_region_len(region) > SIZE);
    CHECK_EQ(rawdb_region_name(region, (char *)copy, sizeof copy), 6);
    (void)get_info(region);
    (void)get_stats(db);
    CHECK_OK(rawdb_list(db, &iter));
    while (rawdb_region_iter_next(iter, &name, &info) == RAWDB_OK)
        CHECK(name != NULL);
    rawdb_region_iter_free(iter);
}

static int reached_end;

static void *call_everything(void *argument)
{
    static const char *NAMES[] = {"region", "kept"};
    uint32_t flags = *(uint32_t *)argument;
    unsigned i, steps = 0;
    CHECK(pthread_cancel(pthread_self()) == 0);
    for (i = 0; i < 2; i++) { /* created, and opened again */
        rawdb *db = open_db(dir.db, flags), *other;
        rawdb_region *region = create_region(db, "region"), *none;
        rawdb_view view;
        CHECK_OK(rawdb_reserve_file(db, 64 << 20));
        CHECK_OK(rawdb_reserve_regions(db, 1000));
        write_all_ways(db, region);
        look_all_ways(db, region);
        rawdb_region_close(create_region(db, "a"));
        CHECK_OK(rawdb_rename(db, "a", "b", 0));
        CHECK_OK(rawdb_remove(db, "b"));
        rawdb_region_close(create_region(db, "c"));
        CHECK_OK(rawdb_retain(db, NAMES, 2));
        CHECK_OK(rawdb_compact(db, progress, &steps));
        CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
        CHECK_STATUS(rawdb_open("/dev/null/none", NULL, &other), RAWDB_E_IO);
        CHECK_STATUS(rawdb_region_open(db, "none", &none), RAWDB_E_NOT_FOUND);
        /* What closes the files is the last to go. */
        CHECK_OK(rawdb_region_view(region, 0, 100, &view));
        CHECK_OK(rawdb_close(db));
        rawdb_region_close(region);
        rawdb_view_release(&view);
        db = open_db(dir.db, RAWDB_OPEN_READ_ONLY);
        CHECK_OK(rawdb_close(db));
    }
    CHECK(steps > 0);
    reached_end = 1;
    pthread_testcancel();
    CHECK(0);
    return NULL;
}

static void check_everything(uint32_t flags)
{
    pthread_t thread;
    void *result = NULL;
    dir = temp_dir_new();
    reached_end = 0;
    CHECK(pthread_create(&thread, NULL, call_everything, &flags) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && reached_end);
    temp_dir_remove(&dir);
}

static void test_no_call_is_a_cancellation_point(void)
{
    check_everything(0);
    check_everything(RAWDB_OPEN_GUARDED);
}

/* ---- threads that are cancelled at any moment ---- */

typedef struct worker {
    pthread_t thread;
    unsigned number;
    rawdb *db;
    rawdb_region *own, *shared;
    uint64_t appended; /* records of `own`, as far as calls have returned */
} worker;

static void close_own(void *argument)
{
    rawdb **db = (rawdb **)argument;
    CHECK_OK(rawdb_close(*db));
}

static void open_own(unsigned number)
{
    char path[sizeof dir.db + 16];
    rawdb *own;
    snprintf(path, sizeof path, "%s/own%u", dir.path, number);
    own = open_db(path, 0);
    pthread_cleanup_push(close_own, &own);
    pthread_testcancel();
    rawdb_region_close(create_region(own, "region"));
    pthread_testcancel();
    pthread_cleanup_pop(1);
}

static void *work(void *argument)
{
    worker *it = (worker *)argument;
    unsigned i;
    for (i = 0;; i++) {
        uint8_t record[RECORD];
        fill(record, RECORD, (uint64_t)it->number << 32 | it->appended);
        CHECK_OK(rawdb_region_append(it->own, record, RECORD, NULL));
        it->appended++;
        pthread_testcancel();
        CHECK_OK(rawdb_region_truncate_write(it->shared, 0, bytes, i % 7 * 10000 + 1));
        pthread_testcancel();
        if (i % 8 == it->number % 8)
            CHECK_OK(rawdb_flush(it->db));
        pthread_testcancel();
        if (i % 32 == it->number % 32)
            CHECK_OK(rawdb_compact(it->db, NULL, NULL));
        pthread_testcancel();
        if (i % 16 == 0)
            open_own(it->number);
    }
    return NULL;
}

static void pause_for(long nanoseconds)
{
    struct timespec time;
    time.tv_sec = 0;
    time.tv_nsec = nanoseconds;
    nanosleep(&time, NULL);
}

static void check_own(const worker *it)
{
    uint8_t record[RECORD];
    rawdb_view view;
    uint64_t i;
    CHECK_OK(rawdb_region_view(it->own, 0, RAWDB_TO_END, &view));
    CHECK_EQ(view.len, it->appended * RECORD);
    for (i = 0; i < it->appended; i++) {
        fill(record, RECORD, (uint64_t)it->number << 32 | i);
        CHECK(memcmp(view.data + i * RECORD, record, RECORD) == 0);
    }
    rawdb_view_release(&view);
}

static void check_amid(uint32_t flags)
{
    enum { WORKERS = 4 };
    worker workers[WORKERS];
    uint8_t random[8];
    unsigned round, i;
    rawdb *db;
    dir = temp_dir_new();
    db = open_db(dir.db, flags);
    for (i = 0; i < WORKERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "own%u", i);
        workers[i].number = i;
        workers[i].db = db;
        workers[i].own = create_region(db, name);
        workers[i].shared = create_region(db, "shared");
        workers[i].appended = 0;
    }
    for (round = 0; round < 100 / test_scale() + 1; round++) {
        for (i = 0; i < WORKERS; i++)
            CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
        for (i = 0; i < WORKERS; i++) {
            void *result = NULL;
            fill(random, sizeof random, (uint64_t)round << 8 | i);
            pause_for((random[0] | random[1] << 8) * 100L); /* up to 6.5 ms */
            CHECK(pthread_cancel(workers[i].thread) == 0);
            CHECK(pthread_join(workers[i].thread, &result) == 0);
            CHECK(result == PTHREAD_CANCELED);
        }
        /* No lock is held by those who are gone. */
        for (i = 0; i < WORKERS; i++)
            check_own(&workers[i]);
        CHECK_OK(rawdb_compact(db, NULL, NULL));
    }
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, 0);
    for (i = 0; i < WORKERS; i++) {
        char name[16];
        rawdb_region_close(workers[i].own);
        rawdb_region_close(workers[i].shared);
        snprintf(name, sizeof name, "own%u", i);
        CHECK_OK(rawdb_region_open(db, name, &workers[i].own));
        check_own(&workers[i]);
        rawdb_region_close(workers[i].own);
    }
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void test_cancelled_at_any_moment(void)
{
    check_amid(0);
    check_amid(RAWDB_OPEN_GUARDED);
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    printf("AddressSanitizer takes the frames that a cancellation unwinds for live ones\n");
    return 0;
#endif
    bytes = new_filled(SIZE, 1);
    RUN(test_no_call_is_a_cancellation_point);
    RUN(test_cancelled_at_any_moment);
    free(bytes);
    return 0;
}
