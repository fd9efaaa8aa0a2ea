/*
 * Filters of system calls (seccomp) that refuse what the library asks for: membarrier(), which locks
 * rely on once they lean, and the advice by which every fork is noticed.
 */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "filter.h"

/* Many more than it takes for a lock to lean. */
enum { APPENDS = 1000 };

static temp_dir dir;
static rawdb *db;
static rawdb_region *region;

/* Without membarrier() from the beginning no lock leans, and there is nothing to take away. */
static int locks_lean(void)
{
    enum { QUERY = 0, REGISTER_PRIVATE_EXPEDITED = 16 };
    long known = syscall(SYS_membarrier, QUERY, 0, 0);
    return has(known > 0 && (known & REGISTER_PRIVATE_EXPEDITED) != 0, "membarrier()");
}

static void append_many(void)
{
    unsigned i;
    for (i = 0; i < APPENDS; i++)
        CHECK_OK(rawdb_region_append(region, "0123456789", 10, NULL));
}

static void *append_many_thread(void *argument)
{
    (void)argument;
    append_many();
    return NULL;
}

static void *append_many_filtered(void *argument)
{
    (void)argument;
    CHECK(refuse(SYS_membarrier, EPERM, OWN_THREAD));
    append_many();
    return NULL;
}

static void open_region(void)
{
    db = open_db(dir.db, 0);
    region = create_region(db, "region");
}

static void run_thread(void *(*body)(void *))
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void close_region(void)
{
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
}

/* How `body` ends in a process of its own, and what it says on stderr. */
static int outcome(void (*body)(void), char *said, size_t room)
{
    int ends[2], status = 0;
    size_t len = 0;
    ssize_t n;
    pid_t child;
    CHECK(pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        CHECK(dup2(ends[1], STDERR_FILENO) >= 0);
        close(ends[0]);
        close(ends[1]);
        alarm(60);
        body();
        leave_child();
    }
    close(ends[1]);
    while ((n = read(ends[0], said + len, room - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = '\0';
    close(ends[0]);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static void check_runs(void (*body)(void), unsigned appends)
{
    char said[4096];
    rawdb_view view;
    unsigned i;
    int status;
    dir = temp_dir_new();
    status = outcome(body, said, sizeof said);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fprintf(stderr, "%s", said);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    open_region();
    CHECK_EQ(rawdb_region_len(region), appends * 10);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    for (i = 0; i < appends; i++)
        CHECK(memcmp(view.data + i * 10, "0123456789", 10) == 0);
    rawdb_view_release(&view);
    close_region();
    temp_dir_remove(&dir);
}

/* What was done before is all there. */
static void check_ends_loudly(void (*body)(void))
{
    char said[4096];
    int status;
    dir = temp_dir_new();
    status = outcome(body, said, sizeof said);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(said, "membarrier() is refused") != NULL);
    open_region();
    CHECK_EQ(rawdb_region_len(region), APPENDS * 10);
    close_region();
    temp_dir_remove(&dir);
}

static void filter_before(void)
{
    CHECK(refuse(SYS_membarrier, EPERM, ALL_THREADS));
    open_region();
    append_many();
    run_thread(append_many_thread);
    append_many();
    close_region();
}

static void filter_of_all_threads(void)
{
    open_region();
    append_many();
    CHECK(refuse(SYS_membarrier, EPERM, ALL_THREADS));
    run_thread(append_many_thread);
}

static void filter_of_other_thread(void)
{
    open_region();
    append_many();
    run_thread(append_many_filtered);
}

static void test_filter_before(void)
{
    if (can_filter())
        check_runs(filter_before, 3 * APPENDS);
}

static void test_filter_after(void)
{
    if (!can_filter() || !locks_lean())
        return;
    check_ends_loudly(filter_of_all_threads);
    check_ends_loudly(filter_of_other_thread);
}

/* All advice is refused, and so that for the page which tells a child. */
static void fork_without_advice(void)
{
    int status = 0;
    pid_t child;
    CHECK(refuse(SYS_madvise, EPERM, ALL_THREADS));
    open_region();
    append_many();
    child = fork();
    if (child == 0) {
        CHECK_STATUS(rawdb_region_append(region, "child", 5, NULL), RAWDB_E_FORKED);
        CHECK_STATUS(rawdb_close(db), RAWDB_E_FORKED);
        leave_child();
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    append_many();
    close_region();
}

static void test_fork_without_advice(void)
{
    if (can_filter())
        check_runs(fork_without_advice, 2 * APPENDS);
}

int main(void)
{
    RUN(test_fork_without_advice); /* children inherit advice that has been taken before */
    RUN(test_filter_before);
    RUN(test_filter_after);
    return 0;
}
