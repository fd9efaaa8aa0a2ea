/* Writing and reading one region, in both ways of writing: through the mapping and guarded. */
#include "check.h"

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;

static void set_up(uint32_t flags)
{
    dir = temp_dir_new();
    db = open_db(dir.db, flags);
    region = create_region(db, "region");
}

static void tear_down(void)
{
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void set_content(const char *content)
{
    CHECK_OK(rawdb_region_truncate_write(region, 0, content, strlen(content)));
}

static void test_append(void)
{
    uint64_t offset = 99;
    CHECK_OK(rawdb_region_append(region, "abc", 3, &offset));
    CHECK_EQ(offset, 0);
    CHECK_OK(rawdb_region_append(region, "defg", 4, &offset));
    CHECK_EQ(offset, 3);
    CHECK_OK(rawdb_region_append(region, "h", 1, NULL));
    CHECK_CONTENT(region, "abcdefgh", 8);
}

static void test_write_at(void)
{
    set_content("abcdef");
    CHECK_OK(rawdb_region_write_at(region, 0, "A", 1));
    CHECK_CONTENT(region, "Abcdef", 6);
    CHECK_OK(rawdb_region_write_at(region, 4, "EFGH", 4)); /* across the end */
    CHECK_CONTENT(region, "AbcdEFGH", 8);
    CHECK_OK(rawdb_region_write_at(region, 8, "IJ", 2)); /* at the end */
    CHECK_CONTENT(region, "AbcdEFGHIJ", 10);
    CHECK_STATUS(rawdb_region_write_at(region, 12, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("region");
    CHECK_MESSAGE("12");
    CHECK_MESSAGE("10");
    CHECK_CONTENT(region, "AbcdEFGHIJ", 10);
}

static void test_write_batch(void)
{
    static const uint64_t OFFSETS[] = {6, 0, 3};
    static const uint64_t LAST_OUT[] = {0, 3, 7};
    static const uint64_t FIRST_OUT[] = {7, 0, 3};

    set_content("abcdefghi");
    CHECK_OK(rawdb_region_write_batch(region, OFFSETS, "GHIABCDEF", 3, 3));
    CHECK_CONTENT(region, "ABCDEFGHI", 9);
    /* All of them or none. */
    CHECK_STATUS(rawdb_region_write_batch(region, LAST_OUT, "xxxxxxxxx", 3, 3),
                 RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("region");
    CHECK_MESSAGE("7");
    CHECK_MESSAGE("9");
    CHECK_CONTENT(region, "ABCDEFGHI", 9);
    CHECK_STATUS(rawdb_region_write_batch(region, FIRST_OUT, "xxxxxxxxx", 3, 3),
                 RAWDB_E_OUT_OF_BOUNDS);
    CHECK_CONTENT(region, "ABCDEFGHI", 9);
    CHECK_OK(rawdb_region_write_batch(region, OFFSETS, "zy", 1, 2));
    CHECK_CONTENT(region, "yBCDEFzHI", 9);
}

/* Thousands of scattered values over many pages. */
static void test_large_batch(void)
{
    enum { COUNT = 5000, VALUE = 24, SIZE = COUNT * 40 };
    uint8_t *content = new_filled(SIZE, 1), *values = new_filled(COUNT * VALUE, 2);
    uint64_t *offsets = (uint64_t *)malloc(COUNT * sizeof *offsets);
    size_t i;

    CHECK(offsets != NULL);
    CHECK_OK(rawdb_region_truncate_write(region, 0, content, SIZE));
    for (i = 0; i < COUNT; i++) {
        offsets[i] = (i * 1237 % COUNT) * 40 + i % 16; /* 1237 and COUNT share no factor */
        memcpy(content + offsets[i], values + i * VALUE, VALUE);
    }
    CHECK_OK(rawdb_region_write_batch(region, offsets, values, VALUE, COUNT));
    CHECK_CONTENT(region, content, SIZE);
    free(offsets);
    free(values);
    free(content);
}

static void test_truncate(void)
{
    set_content("abcdef");
    CHECK_OK(rawdb_region_truncate(region, 6));
    CHECK_CONTENT(region, "abcdef", 6);
    CHECK_OK(rawdb_region_truncate(region, 2));
    CHECK_CONTENT(region, "ab", 2);
    CHECK_STATUS(rawdb_region_truncate(region, 3), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("region");
    CHECK_OK(rawdb_region_append(region, "XY", 2, NULL));
    CHECK_CONTENT(region, "abXY", 4);
    CHECK_OK(rawdb_region_truncate(region, 0));
    CHECK_CONTENT(region, "", 0);
}

static void test_truncate_write(void)
{
    set_content("abcdef");
    CHECK_OK(rawdb_region_truncate_write(region, 2, "X", 1));
    CHECK_CONTENT(region, "abX", 3);
    CHECK_OK(rawdb_region_truncate_write(region, 1, "0123456789", 10));
    CHECK_CONTENT(region, "a0123456789", 11);
    CHECK_OK(rawdb_region_truncate_write(region, 11, "!", 1));
    CHECK_CONTENT(region, "a0123456789!", 12);
    CHECK_STATUS(rawdb_region_truncate_write(region, 13, "?", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_CONTENT(region, "a0123456789!", 12);
}

static void test_partial_reads(void)
{
    uint8_t buffer[4] = {0, 0, 0, '#'};
    rawdb_view view;
    set_content("abcdef");
    CHECK_OK(rawdb_region_read(region, 2, buffer, 3));
    CHECK(memcmp(buffer, "cde#", 4) == 0);
    CHECK_OK(rawdb_region_view(region, 2, 3, &view));
    CHECK_EQ(view.len, 3);
    CHECK(memcmp(view.data, "cde", 3) == 0);
    rawdb_view_release(&view);
    CHECK_OK(rawdb_region_view(region, 4, RAWDB_TO_END, &view));
    CHECK_EQ(view.len, 2);
    CHECK(memcmp(view.data, "ef", 2) == 0);
    rawdb_view_release(&view);
    CHECK_OK(rawdb_region_view(region, 6, RAWDB_TO_END, &view));
    CHECK_EQ(view.len, 0);
    rawdb_view_release(&view);
    CHECK_OK(rawdb_region_view(region, 6, 0, &view));
    CHECK_EQ(view.len, 0);
    rawdb_view_release(&view);
}

static void test_info(void)
{
    rawdb_region_info info;
    set_content("abcdef");
    info = get_info(region);
    CHECK_EQ(info.len, 6);
    CHECK_EQ(info.start % 4096, 0);
    CHECK(info.start >= 4096); /* the first page of `data` is the identity */
    CHECK_EQ(info.reserved % 4096, 0);
    CHECK(info.reserved >= info.len);
}

static void test_reserve(void)
{
    enum { CAPACITY = 10 << 20 };
    uint8_t *chunk = new_filled(1 << 18, 3);
    rawdb_region_info info;
    uint64_t start, i;

    set_content("abcdef");
    CHECK_OK(rawdb_region_reserve(region, CAPACITY));
    info = get_info(region);
    CHECK(info.reserved >= CAPACITY);
    CHECK_CONTENT(region, "abcdef", 6);
    start = info.start;
    CHECK_OK(rawdb_region_reserve(region, 1)); /* there is more already */
    CHECK_EQ(get_info(region).reserved, info.reserved);
    CHECK_OK(rawdb_region_truncate(region, 0));
    for (i = 0; i < CAPACITY; i += 1 << 18)
        CHECK_OK(rawdb_region_append(region, chunk, 1 << 18, NULL));
    CHECK_EQ(get_info(region).start, start); /* nothing had to move */
    CHECK_EQ(rawdb_region_len(region), CAPACITY);
    CHECK_OK(rawdb_reserve_file(db, UINT64_C(100) << 20));
    CHECK(get_stats(db).file_len >= UINT64_C(100) << 20);
    CHECK_OK(rawdb_reserve_regions(db, 100));
    CHECK_EQ(get_stats(db).region_count, 1);
    free(chunk);
}

/* Three regions grow into each other's way, so that they have to move. */
static void test_growth(void)
{
    enum { REGIONS = 3, SIZE = 3 << 20 };
    static const size_t STEPS[] = {1, 4095, 4096, 4097, 13, 70000, 500, 300001};
    uint8_t *content[REGIONS];
    rawdb_region *grown[REGIONS];
    size_t len[REGIONS] = {0, 0, 0}, step = 0, done = 0, i;
    char name[16];

    for (i = 0; i < REGIONS; i++) {
        content[i] = new_filled(SIZE, 10 + i);
        snprintf(name, sizeof name, "grown%u", (unsigned)i);
        grown[i] = create_region(db, name);
    }
    while (done < REGIONS) {
        for (i = 0, done = 0; i < REGIONS; i++) {
            size_t n = STEPS[step++ % 8];
            uint64_t offset;
            if (n > SIZE - len[i])
                n = SIZE - len[i];
            CHECK_OK(rawdb_region_append(grown[i], content[i] + len[i], n, &offset));
            CHECK_EQ(offset, len[i]);
            len[i] += n;
            done += len[i] == SIZE;
        }
    }
    for (i = 0; i < REGIONS; i++) {
        CHECK_CONTENT(grown[i], content[i], SIZE);
        rawdb_region_close(grown[i]);
    }
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, 0);
    for (i = 0; i < REGIONS; i++) {
        snprintf(name, sizeof name, "grown%u", (unsigned)i);
        CHECK_OK(rawdb_region_open(db, name, &grown[i]));
        CHECK_CONTENT(grown[i], content[i], SIZE);
        CHECK_OK(rawdb_region_append(grown[i], "more", 4, NULL));
        rawdb_region_close(grown[i]);
        free(content[i]);
    }
    region = create_region(db, "region");
}

static void test_append_begin(void)
{
    static const uint64_t ZERO = 0;
    rawdb_region *same = create_region(db, "region"), *other = create_region(db, "other");
    void *room = NULL, *refused = &dir;
    rawdb_view before, after;

    set_content("abc");
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &before));
    CHECK_OK(rawdb_region_append_begin(region, 100000, &room));
    CHECK(room != NULL);
    memset(room, 'x', 100000);

    /* Not part of the region yet, and nobody else may write it, through whichever handle. */
    CHECK_CONTENT(region, "abc", 3);
    CHECK_CONTENT(same, "abc", 3);
    CHECK_STATUS(rawdb_region_append(same, "d", 1, NULL), RAWDB_E_BUSY);
    CHECK_MESSAGE("region");
    CHECK_STATUS(rawdb_region_write_at(same, 0, "d", 1), RAWDB_E_BUSY);
    CHECK_STATUS(rawdb_region_write_batch(same, &ZERO, "d", 1, 1), RAWDB_E_BUSY);
    CHECK_STATUS(rawdb_region_truncate(same, 0), RAWDB_E_BUSY);
    CHECK_STATUS(rawdb_region_truncate_write(same, 0, "d", 1), RAWDB_E_BUSY);
    CHECK_STATUS(rawdb_region_append_begin(same, 1, &refused), RAWDB_E_BUSY);
    CHECK(refused == NULL);
    CHECK_STATUS(rawdb_region_append(region, "d", 1, NULL), RAWDB_E_BUSY);

    /* Views, flushes and other regions do not mind. */
    CHECK_OK(rawdb_region_append(other, "other", 5, NULL));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_flush(region));
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK_OK(rawdb_region_view(same, 0, RAWDB_TO_END, &after));
    CHECK_EQ(after.len, 3);
    rawdb_view_release(&after);

    memcpy(room, "defg", 4);
    CHECK_OK(rawdb_region_append_end(region, 4));
    CHECK_CONTENT(region, "abcdefg", 7);
    CHECK_CONTENT(same, "abcdefg", 7);
    CHECK_EQ(before.len, 3);
    CHECK(memcmp(before.data, "abc", 3) == 0);
    rawdb_view_release(&before);
    CHECK_OK(rawdb_region_append(same, "h", 1, NULL));
    CHECK_CONTENT(region, "abcdefgh", 8);

    /* Nothing written is an append of nothing. */
    CHECK_OK(rawdb_region_append_begin(region, 10, &room));
    CHECK_OK(rawdb_region_append_end(region, 0));
    CHECK_CONTENT(region, "abcdefgh", 8);
    CHECK_OK(rawdb_region_append(region, "i", 1, NULL));
    CHECK_CONTENT(region, "abcdefghi", 9);

    /* A handle closed in the middle gives the append up. */
    CHECK_OK(rawdb_region_append_begin(same, 10, &room));
    CHECK_STATUS(rawdb_region_append(region, "j", 1, NULL), RAWDB_E_BUSY);
    rawdb_region_close(same);
    CHECK_OK(rawdb_region_append(region, "j", 1, NULL));
    CHECK_CONTENT(region, "abcdefghij", 10);
    rawdb_region_close(other);
}

/* While an append is open the region cannot be removed, in whichever way. It can be renamed. */
static void test_append_of_removed(void)
{
    static const char *const KEPT[] = {"region", "other"};
    rawdb_region *doomed = create_region(db, "doomed"), *other = create_region(db, "other"), *same;
    uint8_t *content = new_filled(50003, 5);
    void *room = NULL;
    uint64_t pending;
    char name[16];

    CHECK_OK(rawdb_region_append(doomed, content, 3, NULL));
    CHECK_OK(rawdb_region_append(other, "other", 5, NULL));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_append_begin(doomed, 50000, &room));
    memcpy(room, content + 3, 25000);
    pending = get_stats(db).pending_bytes;

    CHECK_STATUS(rawdb_remove(db, "doomed"), RAWDB_E_BUSY);
    CHECK_MESSAGE("doomed");
    CHECK_STATUS(rawdb_retain(db, NULL, 0), RAWDB_E_BUSY);
    CHECK_MESSAGE("doomed");
    CHECK_STATUS(rawdb_retain(db, KEPT, 2), RAWDB_E_BUSY);
    CHECK_STATUS(rawdb_rename(db, "other", "doomed", RAWDB_RENAME_REPLACE), RAWDB_E_BUSY);
    CHECK_MESSAGE("doomed");

    /* Nothing has changed. */
    CHECK_EQ(get_stats(db).region_count, 3);
    CHECK_EQ(get_stats(db).pending_bytes, pending);
    CHECK_OK(rawdb_region_open(db, "doomed", &same));
    CHECK_CONTENT(same, content, 3);
    rawdb_region_close(same);
    CHECK_OK(rawdb_region_open(db, "other", &same));
    CHECK_CONTENT(same, "other", 5);
    rawdb_region_close(same);
    CHECK_EQ(rawdb_region_name(other, name, sizeof name), 5);
    CHECK(strcmp(name, "other") == 0);
    CHECK_CONTENT(region, "", 0);

    CHECK_OK(rawdb_rename(db, "doomed", "renamed", 0));
    memcpy((uint8_t *)room + 25000, content + 25003, 25000);
    CHECK_OK(rawdb_region_append_end(doomed, 50000));
    CHECK_CONTENT(doomed, content, 50003);
    CHECK_OK(rawdb_rename(db, "other", "renamed", RAWDB_RENAME_REPLACE));
    CHECK_STATUS(rawdb_region_append(doomed, "x", 1, NULL), RAWDB_E_REMOVED);
    CHECK_CONTENT(other, "other", 5);
    rawdb_region_close(doomed);
    rawdb_region_close(other);
    free(content);
}

static void test_append_across_close(void)
{
    void *room = NULL;
    CHECK_OK(rawdb_region_append(region, "kept", 4, NULL));
    CHECK_OK(rawdb_region_append_begin(region, 50000, &room));
    CHECK_OK(rawdb_close(db));
    memset(room, 'x', 50000);
    CHECK_STATUS(rawdb_region_append_end(region, 50000), RAWDB_E_CLOSED);
    rawdb_region_close(region);
    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, "kept", 4);
}

/* Large pieces straight into the region, as from a file. */
static void test_streaming(void)
{
    enum { PIECE = 300000, PIECES = 12 };
    uint8_t *content = new_filled(PIECE * PIECES, 4);
    void *room = NULL;
    size_t i;

    for (i = 0; i < PIECES; i++) {
        CHECK_OK(rawdb_region_append_begin(region, PIECE + 1000, &room));
        memcpy(room, content + i * PIECE, PIECE);
        CHECK_OK(rawdb_region_append_end(region, PIECE));
    }
    CHECK_CONTENT(region, content, PIECE * PIECES);
    free(content);
}

int main(void)
{
    static const uint32_t MODES[] = {0, RAWDB_OPEN_GUARDED};
    static const struct {
        const char *name;
        void (*run)(void);
    } TESTS[] = {
        {"append", test_append},
        {"write_at", test_write_at},
        {"write_batch", test_write_batch},
        {"large_batch", test_large_batch},
        {"truncate", test_truncate},
        {"truncate_write", test_truncate_write},
        {"partial_reads", test_partial_reads},
        {"info", test_info},
        {"reserve", test_reserve},
        {"growth", test_growth},
        {"append_begin", test_append_begin},
        {"append_of_removed", test_append_of_removed},
        {"append_across_close", test_append_across_close},
        {"streaming", test_streaming},
    };
    size_t mode, i;
    for (mode = 0; mode < 2; mode++) {
        for (i = 0; i < sizeof TESTS / sizeof TESTS[0]; i++) {
            printf("%s%s\n", TESTS[i].name, MODES[mode] == 0 ? "" : ", guarded");
            fflush(stdout);
            set_up(MODES[mode]);
            TESTS[i].run();
            tear_down();
        }
    }
    return 0;
}
