/* A shared library that has librawdb.a in it, for its own use. */
#include <rawdb.h>

int embedding_store(const char *path, const void *data, size_t len);
const char *embedding_error(void);

int embedding_store(const char *path, const void *data, size_t len)
{
    rawdb *db;
    rawdb_region *region;
    rawdb_status status = rawdb_open(path, NULL, &db), closed;
    if (status != RAWDB_OK)
        return status;
    status = rawdb_region_create(db, "stored", &region);
    if (status == RAWDB_OK) {
        status = rawdb_region_append(region, data, len, NULL);
        rawdb_region_close(region);
    }
    closed = rawdb_close(db);
    return status != RAWDB_OK ? status : closed;
}

const char *embedding_error(void)
{
    return rawdb_last_error();
}
