/* Writes to a database, opens it again, reads what it wrote, and meets an error. */
#include <stdio.h>
#include <stdlib.h>

#include <rawdb.h>

static void check(rawdb_status status)
{
    if (status != RAWDB_OK) {
        fprintf(stderr, "%s: %s\n", rawdb_status_name(status), rawdb_last_error());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "journal.rawdb";
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;
    rawdb_region *region;
    rawdb_view view;
    rawdb_status status;

    check(rawdb_open(path, NULL, &db));
    check(rawdb_region_create(db, "journal", &region));
    check(rawdb_region_truncate_write(region, 0, "hello, ", 7));
    check(rawdb_region_append(region, "world\n", 6, NULL));
    check(rawdb_flush(db));
    rawdb_region_close(region);
    check(rawdb_close(db));

    options.flags = RAWDB_OPEN_NO_CREATE;
    check(rawdb_open(path, &options, &db));
    check(rawdb_region_open(db, "journal", &region));
    check(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    fwrite(view.data, 1, view.len, stdout);
    rawdb_view_release(&view);
    rawdb_region_close(region);

    status = rawdb_region_open(db, "missing", &region);
    printf("%s: %s\n", rawdb_status_name(status), rawdb_last_error());
    check(rawdb_close(db));
    return 0;
}
