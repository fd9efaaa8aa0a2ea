/* A view never changes, moves or vanishes, and nothing waits for it or fails because of it. */
#include "check.h"

#include <pthread.h>

enum { SIZE = 50000, CAPACITY = 8 << 20 };

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;
static uint8_t *content;

static void set_up(uint32_t flags)
{
    dir = temp_dir_new();
    db = open_db(dir.db, flags);
    region = create_region(db, "region");
    content = new_filled(SIZE, 1);
    CHECK_OK(rawdb_region_append(region, content, SIZE, NULL));
}

static void tear_down(void)
{
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
    free(content);
}

/* ---- what may happen under a view; `wanted` keeps what the region shows afterwards ---- */

typedef struct expected {
    uint8_t bytes[CAPACITY];
    size_t len;
} expected;

static void nothing(expected *wanted)
{
    (void)wanted;
}

static void overwrite_all(expected *wanted)
{
    fill(wanted->bytes, wanted->len, 2);
    CHECK_OK(rawdb_region_write_at(region, 0, wanted->bytes, wanted->len));
}

static void overwrite_one_byte(expected *wanted)
{
    wanted->bytes[100] ^= 0xff;
    CHECK_OK(rawdb_region_write_at(region, 100, wanted->bytes + 100, 1));
}

static void overwrite_last_byte(expected *wanted)
{
    wanted->bytes[wanted->len - 1] ^= 0xff;
    CHECK_OK(rawdb_region_write_at(region, wanted->len - 1, wanted->bytes + wanted->len - 1, 1));
}

static void overwrite_batch(expected *wanted)
{
    static const uint64_t OFFSETS[] = {40000, 0, 4090};
    static const char VALUES[] = "0123456789abcdefghijklmnopqrst";
    size_t i;
    for (i = 0; i < 3; i++)
        memcpy(wanted->bytes + OFFSETS[i], VALUES + i * 10, 10);
    CHECK_OK(rawdb_region_write_batch(region, OFFSETS, VALUES, 10, 3));
}

static void append_within_page(expected *wanted)
{
    fill(wanted->bytes + wanted->len, 3, 3);
    CHECK_OK(rawdb_region_append(region, wanted->bytes + wanted->len, 3, NULL));
    wanted->len += 3;
}

/* A neighbour behind it and more bytes than it has reserved: the region has to go elsewhere. */
static void append_beyond_reserved(expected *wanted)
{
    rawdb_region *wall = create_region(db, "wall");
    size_t len = (size_t)get_info(region).reserved - wanted->len + 1;

    CHECK_OK(rawdb_region_append(wall, "wall", 4, NULL));
    CHECK(wanted->len + len <= CAPACITY);
    fill(wanted->bytes + wanted->len, len, 4);
    CHECK_OK(rawdb_region_append(region, wanted->bytes + wanted->len, len, NULL));
    wanted->len += len;
    rawdb_region_close(wall);
}

static void truncate_and_append(expected *wanted)
{
    CHECK_OK(rawdb_region_truncate(region, 10));
    fill(wanted->bytes + 10, SIZE, 5);
    CHECK_OK(rawdb_region_append(region, wanted->bytes + 10, SIZE, NULL));
    wanted->len = 10 + SIZE;
}

static void truncate_and_append_begin(expected *wanted)
{
    void *room = NULL;
    CHECK_OK(rawdb_region_truncate(region, 10));
    CHECK_OK(rawdb_region_append_begin(region, SIZE, &room));
    fill((uint8_t *)room, SIZE, 6);
    fill(wanted->bytes + 10, SIZE, 6);
    CHECK_OK(rawdb_region_append_end(region, SIZE));
    wanted->len = 10 + SIZE;
}

static void truncate_write(expected *wanted)
{
    fill(wanted->bytes + 1000, 2 * SIZE, 7);
    CHECK_OK(rawdb_region_truncate_write(region, 1000, wanted->bytes + 1000, 2 * SIZE));
    wanted->len = 1000 + 2 * SIZE;
}

static const char *current_name(void)
{
    static char name[64];
    CHECK(rawdb_region_name(region, name, sizeof name) < sizeof name);
    return name;
}

static void rename_it(expected *wanted)
{
    char to[80];
    (void)wanted;
    snprintf(to, sizeof to, "%s, renamed", current_name());
    CHECK_OK(rawdb_rename(db, current_name(), to, 0));
}

/* The name then stands for other bytes. */
static void remove_and_reuse(expected *wanted)
{
    const char *own_name = current_name();
    size_t i;
    CHECK_OK(rawdb_remove(db, own_name));
    rawdb_region_close(region);
    CHECK_OK(rawdb_flush(db));
    for (i = 0; i < 4; i++) {
        char name[16];
        rawdb_region *other;
        snprintf(name, sizeof name, "other%u", (unsigned)i);
        other = create_region(db, name);
        fill(wanted->bytes, SIZE, 8);
        CHECK_OK(rawdb_region_append(other, wanted->bytes, SIZE, NULL));
        rawdb_region_close(other);
    }
    region = create_region(db, own_name);
    CHECK_OK(rawdb_region_append(region, wanted->bytes, SIZE, NULL));
    wanted->len = SIZE;
}

static void replace_it(expected *wanted)
{
    rawdb_region *aside = create_region(db, "aside");
    fill(wanted->bytes, 2 * SIZE, 9);
    CHECK_OK(rawdb_region_append(aside, wanted->bytes, 2 * SIZE, NULL));
    CHECK_OK(rawdb_rename(db, "aside", current_name(), RAWDB_RENAME_REPLACE));
    rawdb_region_close(region);
    region = aside;
    wanted->len = 2 * SIZE;
}

static void flush_it(expected *wanted)
{
    (void)wanted;
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_flush(region));
}

static void compact_it(expected *wanted)
{
    (void)wanted;
    CHECK_OK(rawdb_compact(db, NULL, NULL));
}

/* Past the window that the file was mapped in at first. */
static void grow_the_file(expected *wanted)
{
    (void)wanted;
    CHECK_OK(rawdb_reserve_file(db, get_stats(db).file_len * 2 + (64 << 20)));
}

typedef struct step {
    const char *name;
    void (*run)(expected *wanted);
} step;

static const step STEPS[] = {
    {"nothing", nothing},
    {"overwrite_all", overwrite_all},
    {"overwrite_one_byte", overwrite_one_byte},
    {"overwrite_last_byte", overwrite_last_byte},
    {"overwrite_batch", overwrite_batch},
    {"append_within_page", append_within_page},
    {"append_beyond_reserved", append_beyond_reserved},
    {"truncate_and_append", truncate_and_append},
    {"truncate_and_append_begin", truncate_and_append_begin},
    {"truncate_write", truncate_write},
    {"rename", rename_it},
    {"remove_and_reuse", remove_and_reuse},
    {"replace", replace_it},
    {"flush", flush_it},
    {"compact", compact_it},
    {"grow_the_file", grow_the_file},
};
enum { STEP_COUNT = sizeof STEPS / sizeof STEPS[0] };

/*
 * Two steps one after the other, with views of the whole, of one byte and of the end: the views
 * keep what they showed at first, and the region shows what the steps made of it, also after a
 * compaction and reopening.
 */
static void check_steps(const step *first, const step *second, uint32_t flags)
{
    static expected wanted;
    rawdb_view whole, byte, tail, between;
    const uint8_t *address;
    const char *name;
    uint8_t *middle;
    size_t middle_len;

    set_up(flags);
    memcpy(wanted.bytes, content, SIZE);
    wanted.len = SIZE;
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &whole));
    CHECK_OK(rawdb_region_view(region, 100, 1, &byte));
    CHECK_OK(rawdb_region_view(region, SIZE - 10, RAWDB_TO_END, &tail));
    address = whole.data;
    CHECK_EQ(tail.len, 10);

    first->run(&wanted);
    CHECK_CONTENT(region, wanted.bytes, wanted.len);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &between));
    middle_len = wanted.len;
    middle = (uint8_t *)malloc(middle_len);
    CHECK(middle != NULL);
    memcpy(middle, wanted.bytes, middle_len);
    second->run(&wanted);
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK_CONTENT(region, wanted.bytes, wanted.len);

    CHECK(whole.data == address && whole.len == SIZE);
    CHECK(memcmp(whole.data, content, SIZE) == 0);
    CHECK(byte.len == 1 && *byte.data == content[100]);
    CHECK(tail.len == 10 && memcmp(tail.data, content + SIZE - 10, 10) == 0);
    CHECK(between.len == middle_len && memcmp(between.data, middle, middle_len) == 0);

    name = current_name();
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    CHECK(memcmp(whole.data, content, SIZE) == 0);
    CHECK(memcmp(between.data, middle, middle_len) == 0);
    rawdb_view_release(&whole);
    rawdb_view_release(&byte);
    rawdb_view_release(&between);
    CHECK(memcmp(tail.data, content + SIZE - 10, 10) == 0);
    rawdb_view_release(&tail);

    db = open_db(dir.db, flags);
    CHECK_OK(rawdb_region_open(db, name, &region));
    CHECK_CONTENT(region, wanted.bytes, wanted.len);
    free(middle);
    tear_down();
}

static void test_steps(uint32_t flags)
{
    /* Not every pair, but every step twice as first and as second; under valgrind, once. */
    size_t stride = test_scale() > 1 ? STEP_COUNT : STEP_COUNT / 2, i, j;
    for (i = 0; i < STEP_COUNT; i++)
        for (j = (i + 3) % stride; j < STEP_COUNT; j += stride)
            check_steps(&STEPS[i], &STEPS[j], flags);
}

static void test_steps_mapped(void)
{
    test_steps(0);
}

static void test_steps_guarded(void)
{
    test_steps(RAWDB_OPEN_GUARDED);
}

/* ---- releasing ---- */

static void test_release_twice(void)
{
    rawdb_view view, empty;
    set_up(0);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    rawdb_view_release(&view);
    CHECK(is_zero(&view, sizeof view));
    rawdb_view_release(&view);
    CHECK(is_zero(&view, sizeof view));
    CHECK_OK(rawdb_region_view(region, 7, 0, &empty));
    rawdb_view_release(&empty);
    CHECK(is_zero(&empty, sizeof empty));
    rawdb_view_release(&empty);
    memset(&view, 0, sizeof view); /* a view that never was */
    rawdb_view_release(&view);
    tear_down();
}

/* The struct may be copied; one of the copies is released. */
static void test_moved_view(void)
{
    rawdb_view view, *kept = (rawdb_view *)malloc(sizeof *kept);
    set_up(0);
    CHECK(kept != NULL);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    *kept = view;
    memset(&view, 0, sizeof view);
    CHECK_OK(rawdb_region_write_at(region, 0, "xyz", 3));
    CHECK(memcmp(kept->data, content, SIZE) == 0);
    rawdb_view_release(kept);
    free(kept);
    tear_down();
}

static void *release(void *view)
{
    rawdb_view_release((rawdb_view *)view);
    return NULL;
}

static void test_release_on_other_thread(void)
{
    rawdb_view view;
    pthread_t thread;
    set_up(0);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    CHECK_OK(rawdb_remove(db, "region"));
    CHECK_OK(rawdb_flush(db));
    CHECK(get_stats(db).pinned_bytes >= SIZE);
    CHECK(pthread_create(&thread, NULL, release, &view) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(is_zero(&view, sizeof view));
    CHECK_EQ(get_stats(db).pinned_bytes, 0);
    tear_down();
}

static void test_many_views(void)
{
    enum { VIEWS = 3000 };
    rawdb_view *views = (rawdb_view *)malloc(VIEWS * sizeof *views);
    size_t i;
    set_up(0);
    CHECK(views != NULL);
    for (i = 0; i < VIEWS; i++)
        CHECK_OK(rawdb_region_view(region, i, i + 1, &views[i]));
    CHECK_OK(rawdb_region_truncate_write(region, 0, "short", 5));
    for (i = 0; i < VIEWS; i++) {
        CHECK_EQ(views[i].len, i + 1);
        CHECK(memcmp(views[i].data, content + i, i + 1) == 0);
    }
    for (i = 0; i < VIEWS; i++)
        rawdb_view_release(&views[i * 1009 % VIEWS]); /* in another order; 1009 is prime */
    CHECK_CONTENT(region, "short", 5);
    CHECK_OK(rawdb_flush(db));
    CHECK_EQ(get_stats(db).pinned_bytes, 0);
    free(views);
    tear_down();
}

/* ---- the lock outlives the handle with the last view ---- */

static void test_lock_after_close(void)
{
    rawdb_view first, second;
    rawdb *other = NULL;
    set_up(0);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &first));
    CHECK_OK(rawdb_region_view(region, 5, 10, &second));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
    rawdb_view_release(&first);
    CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
    CHECK(memcmp(second.data, content + 5, 10) == 0);
    CHECK(open_files(&dir) > 0);
    rawdb_view_release(&second);
    CHECK_EQ(open_files(&dir), 0);

    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, content, SIZE);
    tear_down();
}

int main(void)
{
    RUN(test_steps_mapped);
    RUN(test_steps_guarded);
    RUN(test_release_twice);
    RUN(test_moved_view);
    RUN(test_release_on_other_thread);
    RUN(test_many_views);
    RUN(test_lock_after_close);
    return 0;
}
