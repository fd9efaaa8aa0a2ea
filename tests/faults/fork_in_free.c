/*
 * A fork while the library frees the room of an append: the child, which finds the handle as it was
 * just then, closes it, and must not free the room again.
 */
#define _GNU_SOURCE
#include "check.h"

#include <malloc.h>

enum { SIZE = 4 << 20 };

void __libc_free(void *memory);

static rawdb *db;
static rawdb_region *region;
static int armed;
static void *room;
static pid_t child = -1;

/* The library's free() as well: what a program defines comes before the C library's. */
void free(void *memory)
{
    const int is_room = armed && memory != NULL && malloc_usable_size(memory) >= SIZE;
    if (memory != NULL && memory == room)
        check_fail(__FILE__, __LINE__, "the room", "is freed twice");
    __libc_free(memory);
    if (!is_room)
        return;
    armed = 0;
    child = fork();
    if (child == 0) {
        room = memory;
        alarm(60);
        rawdb_region_close(region);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        leave_child();
    }
}

int main(void)
{
    temp_dir dir = temp_dir_new();
    void *buffer;
    int status;
    db = open_db(dir.db, RAWDB_OPEN_GUARDED);
    region = create_region(db, "region");
    CHECK_OK(rawdb_region_append_begin(region, SIZE, &buffer));
    memset(buffer, 'x', SIZE);
    armed = 1;
    CHECK_OK(rawdb_region_append_end(region, SIZE));
    CHECK(child > 0); /* the room was on the heap */
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
    return 0;
}
