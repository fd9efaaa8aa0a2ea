/*
 * A child of a process whose threads are amid calls opens a database of its own, and uses it with
 * several threads: nothing that the parent's threads held or waited for is in their way.
 */
#include "check.h"

#include <pthread.h>

static temp_dir dir;
static volatile int stop;

static void check_child(pid_t child)
{
    int status = 0;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

typedef struct load {
    rawdb *db;
    rawdb_region *regions[3];
    unsigned rounds, number; /* without rounds, until `stop` */
} load;

/* Threads meet everywhere: at locks that lean, at stripes, at the table, at flushes. */
static void *meet(void *argument)
{
    load *it = (load *)argument;
    unsigned i, k;
    char name[16];
    snprintf(name, sizeof name, "own%u", it->number);
    for (i = 0; it->rounds > 0 ? i < it->rounds : !stop; i++) {
        rawdb_region *shared = it->regions[i / 100 % 3];
        rawdb_view view;
        for (k = 0; k < 70; k++) /* comes to lean, to be taken away by another thread */
            CHECK_OK(rawdb_region_write_at(it->regions[it->number % 3], 0, "xyz", 3));
        CHECK_OK(rawdb_region_write_at(shared, 0, "xyz", 3));
        CHECK_OK(rawdb_region_view(shared, 0, 3, &view));
        rawdb_view_release(&view);
        if (i % 4 == it->number % 4)
            CHECK_OK(rawdb_flush(it->db));
        rawdb_region_close(create_region(it->db, name));
        CHECK_OK(rawdb_remove(it->db, name));
    }
    return NULL;
}

static void start_load(load *loads, pthread_t *threads, unsigned count, const char *path,
                       unsigned rounds)
{
    static const char *NAMES[] = {"a", "b", "c"};
    unsigned i, k;
    rawdb *opened = open_db(path, 0);
    rawdb_region *shared[3];
    for (k = 0; k < 3; k++) {
        shared[k] = create_region(opened, NAMES[k]);
        CHECK_OK(rawdb_region_truncate_write(shared[k], 0, "abc", 3));
    }
    for (i = 0; i < count; i++) {
        loads[i].db = opened;
        memcpy(loads[i].regions, shared, sizeof shared);
        loads[i].rounds = rounds;
        loads[i].number = i;
        CHECK(pthread_create(&threads[i], NULL, meet, &loads[i]) == 0);
    }
}

static void end_load(load *loads, pthread_t *threads, unsigned count)
{
    unsigned i;
    for (i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < 3; i++) {
        CHECK_CONTENT(loads->regions[i], "xyz", 3);
        rawdb_region_close(loads->regions[i]);
    }
    CHECK_OK(rawdb_close(loads->db));
}

static void test_child_of_threads_opens(void)
{
    enum { PARENTS = 16, CHILDREN = 4 };
    load loads[PARENTS], own[CHILDREN];
    pthread_t threads[PARENTS], own_threads[CHILDREN];
    unsigned i;
#ifdef __SANITIZE_ADDRESS__
    /* Its allocator's locks are copied as well, and nobody lets go of those. */
    return;
#endif
    dir = temp_dir_new();
    start_load(loads, threads, PARENTS, dir.db, 0);
    for (i = 0; i < 100 / test_scale() + 1; i++) {
        pid_t child = fork();
        if (child == 0) {
            char path[sizeof dir.db + 16];
            alarm(60); /* ends a child that hangs */
            snprintf(path, sizeof path, "%s/child", dir.path);
            start_load(own, own_threads, CHILDREN, path, 20);
            end_load(own, own_threads, CHILDREN);
            leave_child();
        }
        check_child(child);
    }
    stop = 1;
    end_load(loads, threads, PARENTS);
    temp_dir_remove(&dir);
}

int main(void)
{
    RUN(test_child_of_threads_opens);
    return 0;
}
