/* A program with two Rust libraries in it. Both catch panics, and share the unwinder for that. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <rawdb.h>

int32_t other_digits(int32_t number);

int main(int argc, char **argv)
{
    rawdb *db = NULL;
    rawdb_region *region = NULL;
    rawdb_view view = RAWDB_VIEW_INIT;
    int good = argc == 2 && other_digits(1234) == 4 && other_digits(-1) == -1;

    good = good && rawdb_open(argv[1], NULL, &db) == RAWDB_OK &&
           rawdb_region_create(db, "region", &region) == RAWDB_OK &&
           rawdb_region_append(region, "bytes", 5, NULL) == RAWDB_OK &&
           rawdb_flush(db) == RAWDB_OK &&
           rawdb_region_view(region, 0, RAWDB_TO_END, &view) == RAWDB_OK && view.len == 5 &&
           memcmp(view.data, "bytes", 5) == 0 &&
           rawdb_remove(db, "missing") == RAWDB_E_NOT_FOUND &&
           strstr(rawdb_last_error(), "missing") != NULL;
    rawdb_view_release(&view);
    rawdb_region_close(region);
    good = rawdb_close(db) == RAWDB_OK && good;
    puts(good ? "good" : rawdb_last_error());
    return !good;
}
