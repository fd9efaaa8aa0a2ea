/*
 * Databases that go from one machine to another: `exchange write DIR SEED` makes one, `exchange
 * read DIR SEED` verifies it and leaves it as it was, `exchange change DIR SEED NEW_SEED` verifies
 * it and makes that of another seed of it.
 */
#include "check.h"

enum { REGIONS = 60 };

static void region_name(char *name, unsigned i)
{
    /* With every length of a name's last word, and bytes above 0x7F. */
    sprintf(name, "region \xC3\xA4 %.*s%u", (int)(i % 9), "xxxxxxxx", i);
}

static size_t region_len(unsigned i, uint64_t seed)
{
    return (size_t)((i * UINT64_C(7919) * (seed + 3)) % 40000) + (i == 7 ? 3000000 : 0);
}

static void write_all(rawdb *db, uint64_t seed)
{
    unsigned i;
    for (i = 0; i < REGIONS; i++) {
        char name[40];
        size_t len = region_len(i, seed);
        uint8_t *bytes = new_filled(len, seed + i);
        rawdb_region *region;
        region_name(name, i);
        region = create_region(db, name);
        CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, len));
        rawdb_region_close(region);
        free(bytes);
        /* Flushes in between leave both sides of the table's slots in use. */
        if (i % 20 == 0)
            CHECK_OK(rawdb_flush(db));
    }
    CHECK_OK(rawdb_flush(db));
}

static void verify_all(rawdb *db, uint64_t seed)
{
    unsigned i;
    CHECK_EQ(get_stats(db).region_count, REGIONS);
    for (i = 0; i < REGIONS; i++) {
        char name[40];
        size_t len = region_len(i, seed);
        uint8_t *bytes = new_filled(len, seed + i);
        rawdb_region *region;
        region_name(name, i);
        CHECK_OK(rawdb_region_open(db, name, &region));
        CHECK_CONTENT(region, bytes, len);
        rawdb_region_close(region);
        free(bytes);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    rawdb *db;
    CHECK(argc > 3);
    if (strcmp(argv[1], "write") == 0) {
        db = open_db(argv[2], RAWDB_OPEN_CREATE_NEW);
        write_all(db, seed);
    } else if (strcmp(argv[1], "read") == 0) {
        db = open_db(argv[2], RAWDB_OPEN_READ_ONLY);
        verify_all(db, seed);
    } else {
        CHECK(argc > 4 && strcmp(argv[1], "change") == 0);
        db = open_db(argv[2], RAWDB_OPEN_NO_CREATE);
        verify_all(db, seed);
        write_all(db, strtoul(argv[4], NULL, 10));
    }
    CHECK_OK(rawdb_close(db));
    return 0;
}
