/* The library in one page: create, write, flush, look at, remove, compact, close. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <rawdb.h>

static void check(rawdb_status status, const char *what)
{
    if (status != RAWDB_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, rawdb_status_name(status), rawdb_last_error());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const uint8_t one[] = {0, 1, 2, 3, 4}, two[] = {5, 6, 7, 8, 9};
    rawdb *db;
    rawdb_region *region1, *region2;
    rawdb_view view;
    size_t i;

    check(rawdb_open(argc > 1 ? argv[1] : "quickstart.rawdb", NULL, &db), "open");
    check(rawdb_region_create(db, "region1", &region1), "create region1");
    check(rawdb_region_create(db, "region2", &region2), "create region2");

    check(rawdb_region_append(region1, one, sizeof one, NULL), "append to region1");
    check(rawdb_region_write_at(region2, 0, two, sizeof two), "write region2");
    check(rawdb_flush(db), "flush"); /* from here on it survives a power loss, all of it */

    check(rawdb_region_view(region1, 0, RAWDB_TO_END, &view), "view region1");
    printf("region1 has %" PRIu64 " bytes:", rawdb_region_len(region1));
    for (i = 0; i < view.len; i++)
        printf(" %d", view.data[i]);
    printf("\n");
    rawdb_view_release(&view);

    check(rawdb_remove(db, "region1"), "remove region1");
    check(rawdb_compact(db, NULL, NULL), "compact");

    rawdb_region_close(region1);
    rawdb_region_close(region2);
    check(rawdb_close(db), "close");
    return 0;
}
