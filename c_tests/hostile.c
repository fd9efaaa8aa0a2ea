/*
 * Wrong calls: every function with NULL, numbers out of range and over the top, bad names, unknown
 * flags, wrong struct sizes. Each answers its error, sets its outputs, and changes nothing.
 */
#include "check.h"

#define GARBAGE ((uintptr_t)0xA5A5A5A5)
#define CONTENT "0123456789"
#define LEN 10

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;
static rawdb_stats initial;

/* A database with regions "one" (ten bytes) and "two" (empty). */
static void set_up(void)
{
    dir = temp_dir_new();
    db = open_db(dir.db, 0);
    region = create_region(db, "one");
    CHECK_OK(rawdb_region_append(region, CONTENT, LEN, NULL));
    rawdb_region_close(create_region(db, "two"));
    CHECK_OK(rawdb_flush(db));
    initial = get_stats(db);
}

static void check_unchanged(void)
{
    rawdb_stats now = get_stats(db);
    rawdb_region *two = NULL;
    char name[8];
    CHECK(memcmp(&now, &initial, sizeof now) == 0);
    CHECK_CONTENT(region, CONTENT, LEN);
    CHECK_EQ(rawdb_region_name(region, name, sizeof name), 3);
    CHECK(strcmp(name, "one") == 0);
    CHECK_OK(rawdb_region_open(db, "two", &two));
    CHECK_EQ(rawdb_region_len(two), 0);
    rawdb_region_close(two);
}

static void tear_down(void)
{
    check_unchanged();
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void refuse_create(const char *name, rawdb_status wanted)
{
    rawdb_region *out = (rawdb_region *)GARBAGE;
    CHECK_STATUS(rawdb_region_create(db, name, &out), wanted);
    CHECK(out == NULL);
}

static void refuse_open_region(const char *name, rawdb_status wanted)
{
    rawdb_region *out = (rawdb_region *)GARBAGE;
    CHECK_STATUS(rawdb_region_open(db, name, &out), wanted);
    CHECK(out == NULL);
}

static void refuse_append(rawdb_region *handle, const void *data, size_t len, rawdb_status wanted)
{
    uint64_t offset = GARBAGE;
    CHECK_STATUS(rawdb_region_append(handle, data, len, &offset), wanted);
    CHECK_EQ(offset, 0);
}

static void refuse_append_begin(rawdb_region *handle, size_t len, rawdb_status wanted)
{
    void *room = &dir;
    CHECK_STATUS(rawdb_region_append_begin(handle, len, &room), wanted);
    CHECK(room == NULL);
}

static void refuse_view(rawdb_region *handle, uint64_t offset, uint64_t len, rawdb_status wanted)
{
    rawdb_view view;
    memset(&view, 0xA5, sizeof view);
    CHECK_STATUS(rawdb_region_view(handle, offset, len, &view), wanted);
    CHECK(is_zero(&view, sizeof view));
    rawdb_view_release(&view);
}

static void test_null_database(void)
{
    static const char *const NAMES[] = {"one"};
    rawdb *out = (rawdb *)GARBAGE;
    rawdb_region *handle = (rawdb_region *)GARBAGE;
    rawdb_region_iter *iter = (rawdb_region_iter *)GARBAGE;
    rawdb_stats stats;

    CHECK_STATUS(rawdb_open(NULL, NULL, &out), RAWDB_E_INVALID_ARGUMENT);
    CHECK(out == NULL);
    CHECK_STATUS(rawdb_open(dir.db, NULL, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_OK(rawdb_close(NULL));
    CHECK_STATUS(rawdb_flush(NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_compact(NULL, NULL, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_reserve_file(NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_reserve_regions(NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    memset(&stats, 0xA5, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(rawdb_get_stats(NULL, &stats), RAWDB_E_INVALID_ARGUMENT);
    CHECK_EQ(stats.struct_size, sizeof stats);
    CHECK(is_zero(&stats.region_count, sizeof stats - sizeof stats.struct_size));
    CHECK_STATUS(rawdb_get_stats(db, NULL), RAWDB_E_INVALID_ARGUMENT);

    CHECK_STATUS(rawdb_remove(NULL, "one"), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_remove(db, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_rename(NULL, "one", "three", 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_rename(db, NULL, "three", 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_rename(db, "one", NULL, 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_retain(NULL, NAMES, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_retain(db, NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_list(NULL, &iter), RAWDB_E_INVALID_ARGUMENT);
    CHECK(iter == NULL);
    CHECK_STATUS(rawdb_list(db, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_create(NULL, "one", &handle), RAWDB_E_INVALID_ARGUMENT);
    CHECK(handle == NULL);
    CHECK_STATUS(rawdb_region_create(db, "three", NULL), RAWDB_E_INVALID_ARGUMENT);
    handle = (rawdb_region *)GARBAGE;
    CHECK_STATUS(rawdb_region_open(NULL, "one", &handle), RAWDB_E_INVALID_ARGUMENT);
    CHECK(handle == NULL);
    CHECK_STATUS(rawdb_region_open(db, "one", NULL), RAWDB_E_INVALID_ARGUMENT);
    refuse_create(NULL, RAWDB_E_INVALID_ARGUMENT);
    refuse_open_region(NULL, RAWDB_E_INVALID_ARGUMENT);
}

static void test_null_iterator(void)
{
    rawdb_region_iter *iter = NULL;
    rawdb_region_info info;
    const char *name = "garbage";

    memset(&info, 0xA5, sizeof info);
    info.struct_size = sizeof info;
    CHECK_STATUS(rawdb_region_iter_next(NULL, &name, &info), RAWDB_E_INVALID_ARGUMENT);
    CHECK(name == NULL);
    CHECK_EQ(info.struct_size, sizeof info);
    CHECK(is_zero(&info.start, sizeof info - sizeof info.struct_size));

    /* A refused call does not step on. */
    CHECK_OK(rawdb_list(db, &iter));
    info.struct_size = 0;
    name = "garbage";
    CHECK_STATUS(rawdb_region_iter_next(iter, &name, &info), RAWDB_E_INVALID_ARGUMENT);
    CHECK(name == NULL);
    name = "garbage";
    CHECK_STATUS(rawdb_region_iter_next(iter, &name, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK(name == NULL);
    memset(&info, 0xA5, sizeof info);
    info.struct_size = sizeof info;
    CHECK_STATUS(rawdb_region_iter_next(iter, NULL, &info), RAWDB_E_INVALID_ARGUMENT);
    CHECK(is_zero(&info.start, sizeof info - sizeof info.struct_size));
    CHECK_OK(rawdb_region_iter_next(iter, &name, &info));
    CHECK(strcmp(name, "one") == 0);
    CHECK_EQ(info.len, LEN);
    rawdb_region_iter_free(iter);
    rawdb_region_iter_free(NULL);
}

static void test_null_region(void)
{
    static const uint64_t ZERO = 0;
    char text[4] = "abc";
    rawdb_region_info info;

    refuse_append(NULL, CONTENT, 1, RAWDB_E_INVALID_ARGUMENT);
    refuse_append(region, NULL, 1, RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_at(NULL, 0, CONTENT, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_at(region, 0, NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(NULL, &ZERO, CONTENT, 1, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, NULL, CONTENT, 1, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, &ZERO, NULL, 1, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_truncate(NULL, 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_truncate_write(NULL, 0, CONTENT, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_truncate_write(region, 0, NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    refuse_append_begin(NULL, 1, RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_append_begin(region, 1, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_append_end(NULL, 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_reserve(NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_read(NULL, 0, text, 1), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_read(region, 0, NULL, 1), RAWDB_E_INVALID_ARGUMENT);
    refuse_view(NULL, 0, 1, RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_view(region, 0, 1, NULL), RAWDB_E_INVALID_ARGUMENT);
    memset(&info, 0xA5, sizeof info);
    info.struct_size = sizeof info;
    CHECK_STATUS(rawdb_region_get_info(NULL, &info), RAWDB_E_INVALID_ARGUMENT);
    CHECK(is_zero(&info.start, sizeof info - sizeof info.struct_size));
    CHECK_STATUS(rawdb_region_get_info(region, NULL), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_flush(NULL), RAWDB_E_INVALID_ARGUMENT);

    CHECK_EQ(rawdb_region_len(NULL), 0);
    CHECK_EQ(rawdb_region_name(NULL, text, sizeof text), 0);
    CHECK(text[0] == '\0');
    rawdb_region_close(NULL);
    rawdb_view_release(NULL);
}

/* No bytes at no address are still a buffer. */
static void test_empty_buffers(void)
{
    uint64_t offset = GARBAGE;
    CHECK_OK(rawdb_region_append(region, NULL, 0, &offset));
    CHECK_EQ(offset, LEN);
    CHECK_OK(rawdb_region_write_at(region, 3, NULL, 0));
    CHECK_OK(rawdb_region_write_at(region, LEN, NULL, 0));
    CHECK_OK(rawdb_region_write_batch(region, NULL, NULL, 4, 0));
    CHECK_OK(rawdb_region_truncate_write(region, LEN, NULL, 0));
    CHECK_OK(rawdb_region_read(region, LEN, NULL, 0));
}

static void test_out_of_bounds(void)
{
    static const uint64_t OFFSETS[][2] = {{0, 10}, {0, 7}, {0, UINT64_MAX}, {UINT64_MAX - 2, 0}};
    char buffer[LEN + 1];
    size_t i;

    CHECK_STATUS(rawdb_region_write_at(region, 11, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("one");
    CHECK_MESSAGE("11");
    CHECK_MESSAGE("10");
    CHECK_STATUS(rawdb_region_write_at(region, 11, NULL, 0), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_write_at(region, UINT64_MAX, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_truncate(region, 11), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("11");
    CHECK_STATUS(rawdb_region_truncate(region, UINT64_MAX), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_truncate_write(region, 11, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_truncate_write(region, UINT64_MAX, "x", 1), RAWDB_E_OUT_OF_BOUNDS);
    for (i = 0; i < sizeof OFFSETS / sizeof OFFSETS[0]; i++)
        CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS[i], "abcdefgh", 4, 2),
                     RAWDB_E_OUT_OF_BOUNDS);

    memset(buffer, '#', sizeof buffer);
    CHECK_STATUS(rawdb_region_read(region, 0, buffer, LEN + 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK(is_zero(buffer, sizeof buffer));
    CHECK_STATUS(rawdb_region_read(region, 10, buffer, 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_read(region, UINT64_MAX, buffer, 1), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_read(region, 11, NULL, 0), RAWDB_E_OUT_OF_BOUNDS);
    refuse_view(region, 0, 11, RAWDB_E_OUT_OF_BOUNDS);
    CHECK_MESSAGE("11");
    refuse_view(region, 11, 0, RAWDB_E_OUT_OF_BOUNDS);
    refuse_view(region, 11, RAWDB_TO_END, RAWDB_E_OUT_OF_BOUNDS);
    refuse_view(region, 5, UINT64_MAX - 1, RAWDB_E_OUT_OF_BOUNDS);
    refuse_view(region, UINT64_MAX, UINT64_MAX, RAWDB_E_OUT_OF_BOUNDS);
    refuse_view(region, UINT64_MAX, 1, RAWDB_E_OUT_OF_BOUNDS);
}

/* Sizes that no address space and no file holds; where there is data, nothing of it may be read. */
static void test_too_large(void)
{
    static const uint64_t OFFSETS[] = {0, 0};
    static const uint64_t LARGE[] = {UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63};
    /* With pointers of 32 bits the largest buffer would fit into a file, but not be mapped. */
    const rawdb_status wanted = sizeof(void *) < 8 ? RAWDB_E_NO_MEMORY : RAWDB_E_TOO_LARGE;
    size_t i;

    refuse_append(region, CONTENT, SIZE_MAX, RAWDB_E_INVALID_ARGUMENT);
    refuse_append(region, CONTENT, SIZE_MAX / 2 + 1, RAWDB_E_INVALID_ARGUMENT);
    refuse_append(region, CONTENT, PTRDIFF_MAX, wanted);
    CHECK_STATUS(rawdb_region_write_at(region, 1, CONTENT, SIZE_MAX), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_at(region, 1, CONTENT, PTRDIFF_MAX), wanted);
    CHECK_STATUS(rawdb_region_truncate_write(region, 1, CONTENT, SIZE_MAX),
                 RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_truncate_write(region, 1, CONTENT, PTRDIFF_MAX), wanted);
    CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS, CONTENT, SIZE_MAX / 2 + 1, 2),
                 RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS, CONTENT, SIZE_MAX, 1),
                 RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS, CONTENT, 1, SIZE_MAX),
                 RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS, CONTENT, 0, PTRDIFF_MAX),
                 RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_write_batch(region, OFFSETS, CONTENT, PTRDIFF_MAX, 1),
                 RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_read(region, 0, &dir, SIZE_MAX), RAWDB_E_INVALID_ARGUMENT);
    refuse_append_begin(region, SIZE_MAX, wanted);
    refuse_append_begin(region, PTRDIFF_MAX, wanted);
    for (i = 0; i < sizeof LARGE / sizeof LARGE[0]; i++) {
        CHECK_STATUS(rawdb_region_reserve(region, LARGE[i]), RAWDB_E_TOO_LARGE);
        CHECK_STATUS(rawdb_reserve_file(db, LARGE[i]), RAWDB_E_TOO_LARGE);
        CHECK_STATUS(rawdb_reserve_regions(db, LARGE[i]), RAWDB_E_TOO_LARGE);
    }
    /* More than any file system's largest file. */
    CHECK(rawdb_region_reserve(region, UINT64_C(1) << 62) < 0);
    CHECK(rawdb_reserve_file(db, UINT64_C(1) << 62) < 0);
    CHECK(rawdb_reserve_regions(db, UINT64_C(1) << 62) < 0);
    /* None left the region busy. */
    CHECK_OK(rawdb_region_write_at(region, 0, CONTENT, 1));
    CHECK_OK(rawdb_flush(db));
    initial = get_stats(db);
}

static void refuse_name(const char *name)
{
    refuse_create(name, RAWDB_E_INVALID_NAME);
    refuse_open_region(name, RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_remove(db, name), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_rename(db, "one", name, 0), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_rename(db, "one", name, RAWDB_RENAME_REPLACE), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_rename(db, name, "three", 0), RAWDB_E_INVALID_NAME);
}

static void test_names(void)
{
    static const char *const BAD[] = {
        "",
        "\xff",             /* never in UTF-8 */
        "a\xc3",            /* cut off */
        "\xc0\x80",         /* overlong */
        "\xed\xa0\x80",     /* half of a surrogate pair */
        "\xf4\x90\x80\x80", /* beyond U+10FFFF */
        "\x01",
        "a\nb",
        "a\tb",
        "a\x1f",
        "a\x7f",
        "a\xc2\x85", /* U+0085, a control character as well */
    };
    static const char *const GOOD[] = {" ",        ".",                "..",  "a/b",
                                       "\xc3\xa9", "\xf0\x9f\x98\x80", "%s%n"};
    char name[1026];
    size_t i;

    for (i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        refuse_name(BAD[i]);
    memset(name, 'n', 1025);
    name[1025] = '\0';
    refuse_name(name);
    CHECK_MESSAGE("1024");
    check_unchanged();

    for (i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        rawdb_region_close(create_region(db, GOOD[i]));
        CHECK_OK(rawdb_remove(db, GOOD[i]));
    }
    name[1024] = '\0';
    rawdb_region_close(create_region(db, name));
    CHECK_OK(rawdb_remove(db, name));
    CHECK_OK(rawdb_flush(db));
    initial = get_stats(db);
}

static void test_longest_name(void)
{
    char name[1025], got[1030];
    rawdb_region *longest;

    memset(name, 'n', 1024);
    name[1024] = '\0';
    longest = create_region(db, name);
    CHECK_EQ(rawdb_region_name(longest, got, sizeof got), 1024);
    CHECK(strcmp(got, name) == 0);
    CHECK_OK(rawdb_region_append(longest, "x", 1, NULL));
    rawdb_region_close(longest);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, name, &longest));
    CHECK_CONTENT(longest, "x", 1);
    rawdb_region_close(longest);
    CHECK_OK(rawdb_remove(db, name));
    CHECK_OK(rawdb_region_open(db, "one", &region));
    CHECK_OK(rawdb_flush(db));
    initial = get_stats(db);
}

static void test_retain_with_bad_element(void)
{
    const char *names[3];
    names[0] = "one";
    names[1] = NULL;
    names[2] = "two";
    CHECK_STATUS(rawdb_retain(db, names, 3), RAWDB_E_INVALID_ARGUMENT);
    names[1] = "\xff";
    CHECK_STATUS(rawdb_retain(db, names, 3), RAWDB_E_INVALID_NAME);
    CHECK_STATUS(rawdb_retain(db, names, SIZE_MAX), RAWDB_E_INVALID_ARGUMENT);
}

static void test_unknown_flags(void)
{
    unsigned bit;
    for (bit = 0; bit < 32; bit++) {
        if ((RAWDB_RENAME_REPLACE >> bit & 1) == 0)
            CHECK_STATUS(rawdb_rename(db, "one", "three", UINT32_C(1) << bit),
                         RAWDB_E_INVALID_ARGUMENT);
    }
}

static void test_output_struct_sizes(void)
{
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    rawdb_stats stats = RAWDB_STATS_INIT;
    struct {
        rawdb_stats known;
        uint64_t newer;
    } longer;
    size_t size;

    for (size = 0; size < 16; size++) {
        info.struct_size = size;
        CHECK_STATUS(rawdb_region_get_info(region, &info), RAWDB_E_INVALID_ARGUMENT);
        CHECK_EQ(info.struct_size, size);
        stats.struct_size = size;
        CHECK_STATUS(rawdb_get_stats(db, &stats), RAWDB_E_INVALID_ARGUMENT);
        CHECK_EQ(stats.struct_size, size);
    }
    /* A size that was never set may be anything. */
    info.struct_size = SIZE_MAX;
    CHECK_STATUS(rawdb_region_get_info(region, &info), RAWDB_E_INVALID_ARGUMENT);
    stats.struct_size = (size_t)UINT64_C(0xA5A5A5A5A5A5A5A5);
    CHECK_STATUS(rawdb_get_stats(db, &stats), RAWDB_E_INVALID_ARGUMENT);

    /* An older caller's struct is not written beyond its end. */
    memset(&info, 0xA5, sizeof info);
    info.struct_size = offsetof(rawdb_region_info, reserved);
    CHECK_OK(rawdb_region_get_info(region, &info));
    CHECK_EQ(info.struct_size, offsetof(rawdb_region_info, reserved));
    CHECK_EQ(info.len, LEN);
    CHECK_EQ(info.reserved, UINT64_C(0xA5A5A5A5A5A5A5A5));
    memset(&stats, 0xA5, sizeof stats);
    stats.struct_size = offsetof(rawdb_stats, reserved_bytes);
    CHECK_OK(rawdb_get_stats(db, &stats));
    CHECK_EQ(stats.region_count, 2);
    CHECK_EQ(stats.reserved_bytes, UINT64_C(0xA5A5A5A5A5A5A5A5));

    /* A newer caller gets zero for what this version does not know. */
    memset(&longer, 0, sizeof longer);
    longer.known.struct_size = sizeof longer;
    CHECK_OK(rawdb_get_stats(db, &longer.known));
    CHECK_EQ(longer.known.struct_size, sizeof longer);
    CHECK_EQ(longer.known.region_count, 2);
    CHECK_EQ(longer.newer, 0);
}

static void test_append_end_misuse(void)
{
    void *room = NULL;
    rawdb_region *two = NULL;

    CHECK_STATUS(rawdb_region_append_end(region, 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_STATUS(rawdb_region_append_end(region, SIZE_MAX), RAWDB_E_INVALID_ARGUMENT);

    /* More than was asked for changes nothing: the append is still open. */
    CHECK_OK(rawdb_region_open(db, "two", &two));
    CHECK_OK(rawdb_region_append_begin(two, 8, &room));
    CHECK_STATUS(rawdb_region_append_end(two, 9), RAWDB_E_OUT_OF_BOUNDS);
    CHECK_STATUS(rawdb_region_append_end(two, SIZE_MAX), RAWDB_E_OUT_OF_BOUNDS);
    memcpy(room, "12345678", 8);
    CHECK_OK(rawdb_region_append_end(two, 8));
    CHECK_CONTENT(two, "12345678", 8);
    CHECK_STATUS(rawdb_region_append_end(two, 0), RAWDB_E_INVALID_ARGUMENT);
    CHECK_OK(rawdb_region_truncate(two, 0));
    rawdb_region_close(two);
    CHECK_OK(rawdb_flush(db));
    initial = get_stats(db);
}

static void test_paths(void)
{
    temp_dir other = temp_dir_new();
    rawdb *out = (rawdb *)GARBAGE;
    char path[8192];
    FILE *file;

    CHECK(rawdb_open("", NULL, &out) < 0);
    CHECK(out == NULL);

    snprintf(path, sizeof path, "%s/missing/db", other.path);
    out = (rawdb *)GARBAGE;
    CHECK_STATUS(rawdb_open(path, NULL, &out), RAWDB_E_NOT_FOUND);
    CHECK(out == NULL);
    CHECK_EQ((uint64_t)rawdb_last_os_error(), 2); /* ENOENT */
    CHECK_MESSAGE(path);

    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    out = (rawdb *)GARBAGE;
    CHECK(rawdb_open(path, NULL, &out) < 0);
    CHECK(out == NULL);

    snprintf(path, sizeof path, "%s/file", other.path);
    file = fopen(path, "w");
    CHECK(file != NULL);
    fclose(file);
    out = (rawdb *)GARBAGE;
    CHECK(rawdb_open(path, NULL, &out) < 0);
    CHECK(out == NULL);
    CHECK_MESSAGE(path);

    /* A path is bytes, not text. */
    snprintf(path, sizeof path, "%s/\xff\xfe \n", other.path);
    CHECK_OK(rawdb_open(path, NULL, &out));
    CHECK_OK(rawdb_close(out));
    temp_dir_remove(&other);
}

/* Files that are no database: an error that names the file, and they stay as they are. */
static void test_foreign_files(void)
{
    static const char *const FILES[] = {"data", "regions"};
    size_t i;
    for (i = 0; i < 2; i++) {
        temp_dir other = temp_dir_new();
        rawdb *out = (rawdb *)GARBAGE;
        char path[1024], content[16] = "";
        FILE *file;

        CHECK_OK(rawdb_close(open_db(other.db, 0)));
        snprintf(path, sizeof path, "%s/%s", other.db, FILES[i]);
        file = fopen(path, "w");
        CHECK(file != NULL && fputs("not a database", file) >= 0);
        fclose(file);
        CHECK_STATUS(rawdb_open(other.db, NULL, &out), RAWDB_E_CORRUPT);
        CHECK(out == NULL);
        CHECK_MESSAGE(FILES[i]);
        file = fopen(path, "r");
        CHECK(file != NULL && fgets(content, sizeof content, file) != NULL);
        fclose(file);
        CHECK(strcmp(content, "not a database") == 0);
        temp_dir_remove(&other);
    }
}

static void test_name_buffer(void)
{
    char buffer[8];
    CHECK_EQ(rawdb_region_name(region, NULL, 0), 3);
    memset(buffer, '#', sizeof buffer);
    CHECK_EQ(rawdb_region_name(region, buffer, 0), 3);
    CHECK(buffer[0] == '#');
    CHECK_EQ(rawdb_region_name(region, buffer, 1), 3);
    CHECK(buffer[0] == '\0' && buffer[1] == '#');
    CHECK_EQ(rawdb_region_name(region, buffer, 3), 3);
    CHECK(memcmp(buffer, "on\0#", 4) == 0);
    CHECK_EQ(rawdb_region_name(region, buffer, 4), 3);
    CHECK(memcmp(buffer, "one\0#", 5) == 0);
}

int main(void)
{
    set_up();
    RUN(test_null_database);
    check_unchanged();
    RUN(test_null_iterator);
    check_unchanged();
    RUN(test_null_region);
    check_unchanged();
    RUN(test_empty_buffers);
    check_unchanged();
    RUN(test_out_of_bounds);
    check_unchanged();
    RUN(test_too_large);
    check_unchanged();
    RUN(test_names);
    check_unchanged();
    RUN(test_longest_name);
    check_unchanged();
    RUN(test_retain_with_bad_element);
    check_unchanged();
    RUN(test_unknown_flags);
    check_unchanged();
    RUN(test_output_struct_sizes);
    check_unchanged();
    RUN(test_append_end_misuse);
    check_unchanged();
    RUN(test_paths);
    RUN(test_foreign_files);
    RUN(test_name_buffer);
    tear_down();
    return 0;
}
