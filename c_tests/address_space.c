/*
 * Regions and files that are larger than what pointers of 32 bits reach: there a status, and
 * everything goes on; with 64 bits nothing special.
 */
#include "check.h"

enum { POINTER_BITS = 8 * sizeof(void *) };

static const uint64_t GIB = UINT64_C(1) << 30;

/* What does not fit into 32 bits ends so. */
static rawdb_status beyond_32_bits(void)
{
    return POINTER_BITS > 32 ? RAWDB_OK : RAWDB_E_NO_MEMORY;
}

static void check_goes_on(rawdb *db, rawdb_region *region, size_t len)
{
    uint8_t *bytes = new_filled(len + 1000, 1);
    CHECK_CONTENT(region, bytes, len);
    CHECK_OK(rawdb_region_append(region, bytes + len, 1000, NULL));
    CHECK_OK(rawdb_flush(db));
    CHECK_CONTENT(region, bytes, len + 1000);
    CHECK_OK(rawdb_region_truncate(region, len));
    free(bytes);
}

static void check_growth(uint32_t flags)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, flags);
    rawdb_region *region = create_region(db, "region");
    rawdb_view view;
    uint8_t *bytes = new_filled(100000, 1);
    void *room;
    uint64_t capacity;
    rawdb_status status = RAWDB_OK;

    CHECK_OK(rawdb_region_append(region, bytes, 100000, NULL));
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    CHECK_STATUS(rawdb_reserve_file(db, 5 * GIB), beyond_32_bits());
    check_goes_on(db, region, 100000);

    if (POINTER_BITS == 32) {
        CHECK_STATUS(rawdb_region_reserve(region, 5 * GIB), RAWDB_E_NO_MEMORY);
        CHECK_STATUS(rawdb_region_append_begin(region, PTRDIFF_MAX, &room), RAWDB_E_NO_MEMORY);
        CHECK(room == NULL);
        check_goes_on(db, region, 100000);
    }
    if (flags & RAWDB_OPEN_GUARDED) {
        /* Growing until no more can be had, which takes no disk space here. */
        for (capacity = GIB / 8; capacity < 8 * GIB && status == RAWDB_OK; capacity *= 2)
            status = rawdb_region_reserve(region, capacity);
        CHECK_STATUS(status, beyond_32_bits());
        check_goes_on(db, region, 100000);
    }
    CHECK(memcmp(view.data, bytes, 100000) == 0);
    rawdb_view_release(&view);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(bytes);
    temp_dir_remove(&dir);
}

static void test_growth(void)
{
    check_growth(0);
}

static void test_growth_guarded(void)
{
    check_growth(RAWDB_OPEN_GUARDED);
}

/* A database that another machine has made large. */
static void test_long_file(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db = open_db(dir.db, 0);
    rawdb_region *region = create_region(db, "region");
    uint8_t *bytes = new_filled(100000, 1);
    char path[600];

    CHECK_OK(rawdb_region_append(region, bytes, 100000, NULL));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    options.min_file_len = 5 * GIB;
    CHECK_STATUS(rawdb_open(dir.db, &options, &db), beyond_32_bits());
    CHECK_OK(rawdb_close(db));
    snprintf(path, sizeof path, "%s/data", dir.db);
    CHECK(truncate(path, (off_t)(5 * GIB)) == 0);
    CHECK_STATUS(rawdb_open(dir.db, NULL, &db), beyond_32_bits());
    CHECK_OK(rawdb_close(db));

    /* Nothing has been lost by trying. */
    CHECK(truncate(path, (off_t)(GIB / 16)) == 0);
    db = open_db(dir.db, RAWDB_OPEN_NO_CREATE);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    check_goes_on(db, region, 100000);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(bytes);
    temp_dir_remove(&dir);
}

int main(void)
{
    RUN(test_growth);
    RUN(test_growth_guarded);
    RUN(test_long_file);
    return 0;
}
