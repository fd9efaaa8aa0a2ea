/* Across fork: the child's copy of a handle refuses every call, the parent does not notice. */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* What feature macros hide. */
#ifdef __cplusplus
extern "C" {
#endif
extern long syscall(long number, ...);
extern int madvise(void *address, size_t len, int advice);
extern pid_t _Fork(void);
#ifdef __cplusplus
}
#endif

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;

static void set_up_in(uint32_t flags)
{
    db = open_db(dir.db, flags);
    region = create_region(db, "region");
    CHECK_OK(rawdb_region_append(region, "before", 6, NULL));
}

static void set_up(uint32_t flags)
{
    dir = temp_dir_new();
    set_up_in(flags);
}

static void tear_down(void)
{
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void check_child(pid_t child)
{
    int status = 0;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void refuse_all(void)
{
    static const uint64_t ZERO = 0;
    rawdb_region *created = (rawdb_region *)&dir;
    rawdb_region_iter *iter = (rawdb_region_iter *)&dir;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    rawdb_stats stats = RAWDB_STATS_INIT;
    rawdb_view view;
    void *room = &dir;
    uint64_t offset = 99;
    char text[8] = "!!!!!!!";

    CHECK_STATUS(rawdb_region_append(region, "child", 5, &offset), RAWDB_E_FORKED);
    CHECK_EQ(offset, 0);
    CHECK(rawdb_last_error()[0] != '\0');
    CHECK_STATUS(rawdb_region_write_at(region, 0, "child", 5), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_write_batch(region, &ZERO, "child", 5, 1), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_truncate(region, 0), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_truncate_write(region, 0, "child", 5), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_append_begin(region, 5, &room), RAWDB_E_FORKED);
    CHECK(room == NULL);
    CHECK_STATUS(rawdb_region_append_end(region, 0), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_reserve(region, 1 << 20), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_flush(region), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_region_create(db, "child", &created), RAWDB_E_FORKED);
    CHECK(created == NULL);
    created = (rawdb_region *)&dir;
    CHECK_STATUS(rawdb_region_create(db, "region", &created), RAWDB_E_FORKED);
    CHECK(created == NULL);
    CHECK_STATUS(rawdb_remove(db, "region"), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_rename(db, "region", "child", 0), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_retain(db, NULL, 0), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_reserve_file(db, UINT64_C(1) << 30), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_reserve_regions(db, 100), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_flush(db), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_compact(db, NULL, NULL), RAWDB_E_FORKED);

    /* Looking is refused as well. */
    created = (rawdb_region *)&dir;
    CHECK_STATUS(rawdb_region_open(db, "region", &created), RAWDB_E_FORKED);
    CHECK(created == NULL);
    memset(&view, 0xA5, sizeof view);
    CHECK_STATUS(rawdb_region_view(region, 0, RAWDB_TO_END, &view), RAWDB_E_FORKED);
    CHECK(is_zero(&view, sizeof view));
    rawdb_view_release(&view);
    CHECK_STATUS(rawdb_region_read(region, 0, text, 3), RAWDB_E_FORKED);
    CHECK(memcmp(text, "\0\0\0!!!!", 8) == 0);
    CHECK_STATUS(rawdb_region_get_info(region, &info), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_get_stats(db, &stats), RAWDB_E_FORKED);
    CHECK_STATUS(rawdb_list(db, &iter), RAWDB_E_FORKED);
    CHECK(iter == NULL);
    CHECK_EQ(rawdb_region_len(region), 0);
    CHECK_EQ(rawdb_region_name(region, text, sizeof text), 0);
    CHECK(text[0] == '\0');
}

static void check_refusals(uint32_t flags)
{
    pid_t child;
    uint64_t len, generation;
    set_up(flags);
    len = get_stats(db).file_len;
    generation = get_stats(db).generation;
    child = fork();
    if (child == 0) {
        refuse_all();
        rawdb_region_close(region);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        leave_child();
    }
    check_child(child);
    CHECK_CONTENT(region, "before", 6);
    CHECK_EQ(get_stats(db).generation, generation); /* closing has not flushed */
    CHECK_EQ(get_stats(db).region_count, 1);
    CHECK_EQ(get_stats(db).file_len, len);
    CHECK_OK(rawdb_region_append(region, ", after", 7, NULL));
    CHECK_OK(rawdb_flush(db));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    db = open_db(dir.db, flags);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, "before, after", 13);
    tear_down();
}

static void test_refusals(void)
{
    check_refusals(0);
    check_refusals(RAWDB_OPEN_GUARDED);
}

/* The child neither takes the parent's lock away by closing nor keeps it by living on. */
static void test_lock(void)
{
    int go[2];
    char byte = 0;
    pid_t child;
    rawdb *other = NULL;

    set_up(0);
    child = fork();
    if (child == 0) {
        rawdb_region_close(region);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
        CHECK(other == NULL);
        leave_child();
    }
    check_child(child);
    CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
    CHECK_OK(rawdb_region_append(region, "+", 1, NULL));

    CHECK(pipe(go) == 0);
    child = fork();
    if (child == 0) { /* one that never touches the database, as a server's worker */
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0);
        close(go[0]);
        rawdb_region_close(region);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        leave_child();
    }
    close(go[0]);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, "before+", 7);
    close(go[1]);
    check_child(child);
    CHECK_OK(rawdb_region_append(region, "+", 1, NULL));
    CHECK_CONTENT(region, "before++", 8);
    tear_down();
}

/* The child of a program that is done with it may open the database as its own. */
static void test_child_opens(void)
{
    pid_t child;
    set_up(0);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    child = fork();
    if (child == 0) {
        db = open_db(dir.db, 0);
        CHECK_OK(rawdb_region_open(db, "region", &region));
        CHECK_OK(rawdb_region_append(region, ", child", 7, NULL));
        rawdb_region_close(region);
        CHECK_OK(rawdb_close(db));
        leave_child();
    }
    check_child(child);
    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, "before, child", 13);
    tear_down();
}

/* The lock of an owner that is killed is its children's as well, until they end or let go of it. */
static void check_lock_of_orphan(int child_closes)
{
    int ready[2], held[2], status = 0;
    char byte = 0;
    pid_t owner;
    rawdb *other = NULL;

    dir = temp_dir_new();
    CHECK(pipe(ready) == 0 && pipe(held) == 0);
    owner = fork();
    if (owner == 0) {
        pid_t child;
        db = open_db(dir.db, 0);
        region = create_region(db, "region");
        child = fork();
        if (child == 0) {
            if (child_closes)
                CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
            close(held[1]);
            CHECK(write(ready[1], "x", 1) == 1);
            close(ready[1]);
            CHECK(read(held[0], &byte, 1) == 0); /* until the test lets it go */
            leave_child();
        }
        close(ready[1]);
        for (;;)
            pause();
    }
    CHECK(owner > 0);
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK(kill(owner, SIGKILL) == 0);
    CHECK(waitpid(owner, &status, 0) == owner && WIFSIGNALED(status));
    if (!child_closes) {
        CHECK_STATUS(rawdb_open(dir.db, NULL, &other), RAWDB_E_LOCKED);
        CHECK_MESSAGE("which has ended");
    } else {
        CHECK_OK(rawdb_open(dir.db, NULL, &other));
        CHECK_OK(rawdb_close(other));
    }
    close(held[1]);
    while (rawdb_open(dir.db, NULL, &other) == RAWDB_E_LOCKED)
        sched_yield(); /* the child is on its way to exec */
    CHECK(other != NULL);
    CHECK_OK(rawdb_close(other));
    close(held[0]);
    close(ready[0]);
    temp_dir_remove(&dir);
}

static void test_lock_of_orphan(void)
{
    check_lock_of_orphan(0);
    check_lock_of_orphan(1);
}

/* The parent of a daemon ends without closing; the child lets go of what it has inherited, and begins. */
static void daemonize(uint32_t flags)
{
    int go[2], status = 0;
    char byte = 0;
    pid_t parent;
    dir = temp_dir_new();
    CHECK(pipe(go) == 0);
    parent = fork();
    if (parent == 0) {
        rawdb_view view;
        pid_t child, own = getpid();
        set_up_in(flags);
        CHECK_OK(rawdb_region_append(region, ", parent", 8, NULL));
        CHECK_OK(rawdb_region_view(region, 0, 6, &view));
        child = fork();
        if (child != 0)
            leave_child();
        while (getppid() == own)
            sched_yield();
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        CHECK_EQ(open_files(&dir), 0);
        rawdb_view_release(&view);
        rawdb_region_close(region);
        db = open_db(dir.db, RAWDB_OPEN_NO_CREATE);
        CHECK_OK(rawdb_region_open(db, "region", &region));
        CHECK_CONTENT(region, "before, parent", 14);
        rawdb_region_close(region);
        CHECK_OK(rawdb_close(db));
        CHECK(write(go[1], "x", 1) == 1);
        leave_child();
    }
    close(go[1]);
    CHECK(waitpid(parent, &status, 0) == parent && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(read(go[0], &byte, 1) == 1);
    close(go[0]);
    temp_dir_remove(&dir);
}

static void test_daemon(void)
{
    daemonize(0);
    daemonize(RAWDB_OPEN_GUARDED);
}

/* A view of before the fork can be read in the child while the parent keeps it. */
static void test_view_in_child(void)
{
    enum { SIZE = 100000 };
    uint8_t *bytes = new_filled(SIZE, 1);
    int go[2];
    char byte = 0;
    pid_t child;
    rawdb_view view;

    set_up(0);
    CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, SIZE));
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    CHECK(pipe(go) == 0);
    child = fork();
    if (child == 0) {
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0); /* until the parent has written */
        CHECK(view.len == SIZE && memcmp(view.data, bytes, SIZE) == 0);
        rawdb_view_release(&view);
        rawdb_region_close(region);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        free(bytes);
        leave_child();
    }
    close(go[0]);
    CHECK_OK(rawdb_region_write_at(region, 0, "other", 5));
    close(go[1]);
    check_child(child);
    CHECK(memcmp(view.data, bytes, SIZE) == 0); /* the child released its copy alone */
    CHECK_OK(rawdb_region_write_at(region, 0, "again", 5));
    CHECK(memcmp(view.data, bytes, SIZE) == 0);
    rawdb_view_release(&view);
    memcpy(bytes, "again", 5);
    CHECK_CONTENT(region, bytes, SIZE);
    free(bytes);
    tear_down();
}

/* A fork amid other threads' calls copies their locks as well; the child must not wait for them. */
static volatile int stop;

static void *write_on(void *argument)
{
    (void)argument;
    while (!stop) {
        CHECK_OK(rawdb_region_write_at(region, 0, "xyz", 3));
        CHECK_OK(rawdb_flush(db));
        rawdb_region_close(create_region(db, "other"));
        CHECK_OK(rawdb_remove(db, "other"));
    }
    return NULL;
}

/* With an append that is being published at the moment of the fork. */
static void *append_on(void *argument)
{
    enum { SIZE = 4 << 20 };
    (void)argument;
    while (!stop) {
        void *room;
        CHECK_OK(rawdb_region_append_begin(region, SIZE, &room));
        CHECK_OK(rawdb_region_append_end(region, SIZE));
        CHECK_OK(rawdb_region_truncate(region, 6));
        CHECK_OK(rawdb_rename(db, "region", "renamed", 0));
        CHECK_OK(rawdb_rename(db, "renamed", "region", 0));
    }
    return NULL;
}

static void check_fork_amid(void *(*calls)(void *), uint32_t flags)
{
    unsigned i;
    pthread_t thread;
    set_up(flags);
    stop = 0;
    CHECK(pthread_create(&thread, NULL, calls, NULL) == 0);
    for (i = 0; i < 100 / test_scale() + 1; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60); /* ends a child that hangs */
            refuse_all();
            rawdb_region_close(region);
            CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
            leave_child();
        }
        check_child(child);
    }
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_CONTENT(region, calls == write_on ? "xyzore" : "before", 6);
    tear_down();
}

static void test_fork_amid_calls(void)
{
#ifdef __SANITIZE_ADDRESS__
    /* Its allocator's locks are copied as well, and nobody lets go of those. */
    return;
#endif
    check_fork_amid(write_on, 0);
    check_fork_amid(append_on, RAWDB_OPEN_GUARDED); /* where publishing takes long */
}

/* ---- forks that run no handlers ---- */

static pid_t raw_clone(void)
{
#ifdef __s390x__
    return (pid_t)syscall(SYS_clone, 0L, (long)SIGCHLD, 0L, 0L, 0L);
#else
    return (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
#endif
}

/* Whether the system wipes memory on request in a child. Emulators say so and do not. */
static int wipes_on_fork(void)
{
    enum { WIPEONFORK = 18, PRIVATE_ANONYMOUS = 0x22 };
    int status = 0;
    pid_t child;
    size_t len = (size_t)sysconf(_SC_PAGESIZE);
    char *page = (char *)mmap(NULL, len, PROT_READ | PROT_WRITE, PRIVATE_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    if (madvise(page, len, WIPEONFORK) != 0)
        return 0;
    *page = 1;
    child = raw_clone();
    if (child == 0)
        _exit(*page);
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(munmap(page, len) == 0);
    return WEXITSTATUS(status) == 0;
}

/*
 * The child of each kind of fork is refused, opens a database of its own, and so does its child.
 * Handles of parent and grandparent stay refused.
 */
static void check_generations(pid_t (*new_process)(void))
{
    enum { GENERATIONS = 4 };
    rawdb *own[GENERATIONS];
    rawdb_region *owned[GENERATIONS];
    unsigned generation, i;
    pid_t child = 0;

    set_up(0);
    for (generation = 0; child == 0 && generation < GENERATIONS; generation++) {
        char path[sizeof dir.db + 16];
        snprintf(path, sizeof path, "%s/own%u", dir.path, generation);
        if (generation > 0) {
            refuse_all();
            for (i = 0; i < generation; i++) {
                CHECK_STATUS(rawdb_region_append(owned[i], "-", 1, NULL), RAWDB_E_FORKED);
                CHECK_STATUS(rawdb_flush(own[i]), RAWDB_E_FORKED);
            }
        }
        own[generation] = open_db(path, 0);
        owned[generation] = create_region(own[generation], "own");
        CHECK_OK(rawdb_region_append(owned[generation], "own", 3, NULL));
        if (generation > 0) {
            refuse_all();
            CHECK_STATUS(rawdb_region_append(owned[generation - 1], "-", 1, NULL), RAWDB_E_FORKED);
        }
        child = new_process();
        CHECK(child >= 0);
    }
    if (child == 0)
        leave_child();
    generation--;
    check_child(child);
    CHECK_CONTENT(owned[generation], "own", 3);
    CHECK_OK(rawdb_region_append(owned[generation], " more", 5, NULL));
    CHECK_CONTENT(owned[generation], "own more", 8);
    rawdb_region_close(owned[generation]);
    CHECK_OK(rawdb_close(own[generation]));
    if (generation > 0)
        leave_child();
    CHECK_CONTENT(region, "before", 6);
    tear_down();
}

static void test_generations(void)
{
    check_generations(fork);
    if (!has(wipes_on_fork(), "memory that is wiped in a child"))
        return; /* only fork() is noticed */
    check_generations(_Fork);
    check_generations(raw_clone);
}

/* A child that is made in a callback returns into a call of its parent's. */
static pid_t forked_in_callback;

static int32_t fork_in_callback(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)total;
    if (done == 0)
        forked_in_callback = fork();
    return 0;
}

static void test_fork_in_callback(void)
{
    uint8_t *bytes = new_filled(8 << 20, 1);
    uint64_t disk;
    set_up(0);
    CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, 8 << 20));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_truncate(region, 6));
    if (rawdb_compact(db, fork_in_callback, NULL) == RAWDB_E_FORKED && forked_in_callback == 0)
        leave_child();
    check_child(forked_in_callback);
    disk = get_stats(db).disk_bytes;
    CHECK(disk < 4 << 20); /* the parent's went on */
    CHECK_CONTENT(region, bytes, 6);
    free(bytes);
    tear_down();
}

/* A program that is executed inherits no descriptor of the database. */
static void test_close_on_exec(void)
{
    struct dirent *entry;
    DIR *fds;
    int found = 0;
    ssize_t n;

    set_up(0);
    fds = opendir("/proc/self/fd");
    CHECK(fds != NULL);
    while ((entry = readdir(fds)) != NULL) {
        char target[1024];
        n = readlinkat(dirfd(fds), entry->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strstr(target, strrchr(dir.path, '/')) == NULL)
            continue;
        CHECK((fcntl(atoi(entry->d_name), F_GETFD) & FD_CLOEXEC) != 0);
        found++;
    }
    closedir(fds);
    CHECK(found >= 2);
    tear_down();
}

int main(void)
{
    RUN(test_refusals);
    RUN(test_lock);
    RUN(test_child_opens);
    RUN(test_lock_of_orphan);
    RUN(test_daemon);
    RUN(test_view_in_child);
    RUN(test_fork_amid_calls);
    RUN(test_generations);
    RUN(test_fork_in_callback);
    RUN(test_close_on_exec);
    return 0;
}
