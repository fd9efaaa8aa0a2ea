/* hot_calls CALL COUNT: makes a call COUNT times, for tests/instructions.rs to count by. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rawdb.h>

#define LEN (1 << 20)

static void check(rawdb_status status)
{
    if (status != RAWDB_OK) {
        fprintf(stderr, "%s: %s\n", rawdb_status_name(status), rawdb_last_error());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static unsigned char bytes[LEN];
    rawdb *db;
    rawdb_region *region;
    rawdb_view view;
    long i, count;

    if (argc != 3)
        return 2;
    count = atol(argv[2]);
    check(rawdb_open("hot_calls.rawdb", NULL, &db));
    check(rawdb_region_create(db, "region", &region));
    /* What growing costs is not what a call costs. */
    check(rawdb_region_reserve(region, 4 * LEN));
    check(rawdb_region_append(region, bytes, LEN, NULL));

    if (strcmp(argv[1], "append") == 0) {
        for (i = 0; i < count; i++)
            check(rawdb_region_append(region, bytes, 64, NULL));
    } else if (strcmp(argv[1], "overwrite") == 0) {
        for (i = 0; i < count; i++)
            check(rawdb_region_write_at(region, (uint64_t)i * 64 % LEN, bytes, 64));
    } else if (strcmp(argv[1], "view") == 0) {
        for (i = 0; i < count; i++) {
            check(rawdb_region_view(region, (uint64_t)i * 64 % LEN, 64, &view));
            rawdb_view_release(&view);
        }
    } else {
        return 2;
    }

    rawdb_region_close(region);
    check(rawdb_close(db));
    return 0;
}
