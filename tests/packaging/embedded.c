/* A program that uses both the library in embedding.c and librawdb.so: they do not mix. */
#include <stdio.h>
#include <string.h>

#include <rawdb.h>

int embedding_store(const char *path, const void *data, size_t len);
const char *embedding_error(void);

int main(int argc, char **argv)
{
    rawdb *db = NULL;
    rawdb_region *region = NULL;
    int good = argc == 2 && embedding_store(argv[1], "bytes", 5) == RAWDB_OK;

    good = good && rawdb_open(argv[1], NULL, &db) == RAWDB_OK &&
           rawdb_region_open(db, "stored", &region) == RAWDB_OK && rawdb_region_len(region) == 5 &&
           embedding_store(argv[1], "bytes", 5) == RAWDB_E_LOCKED &&
           strstr(embedding_error(), argv[1]) != NULL &&
           /* Each has its own last error: this one has not met any. */
           strcmp(rawdb_last_error(), "") == 0;
    rawdb_region_close(region);
    good = rawdb_close(db) == RAWDB_OK && good;
    puts(good ? "good" : embedding_error());
    return !good;
}
