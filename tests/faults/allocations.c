/*
 * What every function of the library does when the heap gives nothing: each call is made in a child
 * process, once for each allocation that it makes, and that one fails (or it and all after it).
 *
 * For each function and situation a line says what was seen: "nothing" where nothing is allocated,
 * or else which of "works", "no-memory" (RAWDB_E_NO_MEMORY, and nothing has changed) and "abort".
 * tests/allocation_failure.rs compares them with the header.
 */
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

/* ---- a heap that fails ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static struct {
    int armed;
    long at;       /* the number of the allocation that fails */
    int lasting;   /* and of all after it */
    size_t least;  /* smaller ones are not counted */
    long counted;
    int hit;
} heap;

static int refused(size_t size)
{
    long number;
    if (!heap.armed || size < heap.least)
        return 0;
    number = heap.counted++;
    if (number != heap.at && !(heap.lasting && number > heap.at))
        return 0;
    heap.hit = 1;
    return 1;
}

void *malloc(size_t size)
{
    return refused(size) ? (errno = ENOMEM, (void *)NULL) : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refused(count * size) ? (errno = ENOMEM, (void *)NULL) : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return refused(size) ? (errno = ENOMEM, (void *)NULL) : __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *memory = refused(size) ? NULL : __libc_memalign(alignment, size);
    if (memory == NULL)
        return ENOMEM;
    *out = memory;
    return 0;
}

/* Nothing here is about power loss, and it is faster so. */
int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

int fsync(int fd)
{
    (void)fd;
    return 0;
}

/* ---- what the calls are made on ---- */

enum { LEN = 100000 };

static uint8_t bytes[2 * LEN];

/* How many regions more there are before an open. */
static int more_regions;

/* Ids of situations. */
enum situation {
    /* Regions "a" and "b" of LEN bytes, flushed; "a" has been given room since. */
    ROOM,
    /* The same with guarded writes. */
    GUARDED,
    /* The same without the room. */
    FLUSHED,
    /* As ROOM, and all of "a" is viewed. */
    VIEWED,
    /* As FLUSHED, and then all of "a" is viewed and has been left behind by an overwrite. */
    RETIRED,
    /* As ROOM, with an append open on "a". */
    APPENDING,
    /* The same with guarded writes. */
    APPENDING_GUARDED,
    /* No database is open, and there is one. */
    CLOSED,
    /* The same, and the process that had it has died and left half of "b" unflushed. */
    DIED,
    /* No database is there. */
    NOTHING
};

static const char *const situations[] = {"room",      "guarded",           "flushed", "viewed", "retired",
                                         "appending", "appending-guarded", "closed",  "died", "new"};

typedef struct state {
    temp_dir dir;
    rawdb *db;
    rawdb_region *a, *b, *opened;
    rawdb_region_iter *iter;
    rawdb_view view;
    void *room;
} state;

static int wait_for(pid_t child)
{
    int status;
    CHECK(child >= 0);
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void create_more_regions(rawdb *db)
{
    char name[16];
    int i;
    for (i = 0; i < more_regions; i++) {
        sprintf(name, "r%d", i);
        rawdb_region_close(create_region(db, name));
    }
}

/* In a child, which dies. */
static void run_until_death(const char *path)
{
    rawdb *db = open_db(path, 0);
    rawdb_region *a = create_region(db, "a"), *b = create_region(db, "b");
    CHECK_OK(rawdb_region_append(a, bytes, LEN, NULL));
    CHECK_OK(rawdb_region_append(b, bytes + LEN, LEN / 2, NULL));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_region_append(b, bytes + LEN + LEN / 2, LEN / 2, NULL));
    create_more_regions(db);
    _exit(0);
}

static void set_up(state *s, enum situation situation)
{
    int guarded = situation == GUARDED || situation == APPENDING_GUARDED;
    if (situation == NOTHING)
        return;
    if (situation == DIED) {
        pid_t child = fork();
        if (child == 0)
            run_until_death(s->dir.db);
        CHECK_EQ((uint64_t)wait_for(child), 0);
        return;
    }
    s->db = open_db(s->dir.db, guarded ? RAWDB_OPEN_GUARDED : 0);
    s->a = create_region(s->db, "a");
    s->b = create_region(s->db, "b");
    CHECK_OK(rawdb_region_append(s->a, bytes, LEN, NULL));
    CHECK_OK(rawdb_region_append(s->b, bytes + LEN, LEN, NULL));
    if (situation == CLOSED)
        create_more_regions(s->db);
    CHECK_OK(rawdb_list(s->db, &s->iter));
    CHECK_OK(rawdb_flush(s->db));
    if (situation == CLOSED) {
        rawdb_region_close(s->a);
        rawdb_region_close(s->b);
        CHECK_OK(rawdb_close(s->db));
        s->db = NULL;
        s->a = s->b = NULL;
        return;
    }
    if (situation == FLUSHED)
        return;
    if (situation == RETIRED) {
        CHECK_OK(rawdb_region_view(s->a, 0, LEN, &s->view));
        CHECK_OK(rawdb_region_write_at(s->a, 0, bytes, 100));
        return;
    }
    CHECK_OK(rawdb_region_reserve(s->a, 4 * LEN));
    if (situation == VIEWED)
        CHECK_OK(rawdb_region_view(s->a, 0, LEN, &s->view));
    if (situation == APPENDING || situation == APPENDING_GUARDED) {
        CHECK_OK(rawdb_region_append_begin(s->a, LEN, &s->room));
        memcpy(s->room, bytes, LEN);
    }
}

/* The database is as set_up() left it, or as it was flushed there. */
static void check_content_of(rawdb *db)
{
    rawdb_region *a = NULL, *b = NULL;
    CHECK_EQ(get_stats(db).live_bytes, 2 * LEN);
    CHECK_OK(rawdb_region_open(db, "a", &a));
    CHECK_OK(rawdb_region_open(db, "b", &b));
    CHECK_CONTENT(a, bytes, LEN);
    CHECK_CONTENT(b, bytes + LEN, LEN);
    rawdb_region_close(a);
    rawdb_region_close(b);
}

static int go_on(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    return done > total;
}

/* ---- the calls ---- */

#define CALL(name, ...)                                                                            \
    static rawdb_status name##_(state *s)                                                          \
    {                                                                                              \
        (void)s;                                                                                   \
        __VA_ARGS__                                                                                \
    }
#define VOID_CALL(name, ...) CALL(name, __VA_ARGS__; return RAWDB_OK;)

static volatile uint64_t sink;

VOID_CALL(rawdb_version_number, sink = rawdb_version_number())
VOID_CALL(rawdb_version_string, sink = (uint64_t)*rawdb_version_string())
VOID_CALL(rawdb_status_name, sink = (uint64_t)*rawdb_status_name(RAWDB_E_IO))
VOID_CALL(rawdb_status_message, sink = (uint64_t)*rawdb_status_message(RAWDB_E_IO))
VOID_CALL(rawdb_last_error, sink = (uint64_t)*rawdb_last_error())
VOID_CALL(rawdb_last_os_error, sink = (uint64_t)rawdb_last_os_error())
CALL(rawdb_open, return rawdb_open(s->dir.db, NULL, &s->db);)
CALL(rawdb_close, {
    rawdb *db = s->db;
    s->db = NULL;
    return rawdb_close(db);
})
CALL(rawdb_flush, return rawdb_flush(s->db);)
CALL(rawdb_compact, return rawdb_compact(s->db, go_on, NULL);)
CALL(rawdb_reserve_file, return rawdb_reserve_file(s->db, UINT64_C(1) << 30);)
CALL(rawdb_reserve_regions, return rawdb_reserve_regions(s->db, 1000);)
CALL(rawdb_get_stats, {
    rawdb_stats stats = RAWDB_STATS_INIT;
    return rawdb_get_stats(s->db, &stats);
})
CALL(rawdb_remove, return rawdb_remove(s->db, "a");)
CALL(rawdb_rename, return rawdb_rename(s->db, "a", "b", RAWDB_RENAME_REPLACE);)
CALL(rawdb_retain, {
    static const char *names[20000];
    size_t i;
    for (i = 0; i < 20000; i++)
        names[i] = "b";
    return rawdb_retain(s->db, names, 20000);
})
CALL(rawdb_list, {
    rawdb_region_iter_free(s->iter);
    s->iter = NULL;
    return rawdb_list(s->db, &s->iter);
})
CALL(rawdb_region_iter_next, {
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    const char *name;
    return rawdb_region_iter_next(s->iter, &name, &info);
})
VOID_CALL(rawdb_region_iter_free, {
    rawdb_region_iter_free(s->iter);
    s->iter = NULL;
})
CALL(rawdb_region_create, return rawdb_region_create(s->db, "c", &s->opened);)
CALL(rawdb_region_open, return rawdb_region_open(s->db, "b", &s->opened);)
VOID_CALL(rawdb_region_close, {
    rawdb_region_close(s->a);
    s->a = NULL;
})
CALL(rawdb_region_append, return rawdb_region_append(s->a, bytes, LEN, NULL);)
CALL(rawdb_region_write_at, return rawdb_region_write_at(s->a, 0, bytes + 1, LEN);)
CALL(rawdb_region_write_batch, {
    static const uint64_t offsets[] = {5, 50000};
    return rawdb_region_write_batch(s->a, offsets, bytes, 40000, 2);
})
CALL(rawdb_region_truncate, return rawdb_region_truncate(s->a, 10);)
CALL(rawdb_region_truncate_write, return rawdb_region_truncate_write(s->a, 0, bytes + 1, LEN - 1);)
CALL(rawdb_region_append_begin, return rawdb_region_append_begin(s->a, LEN, &s->room);)
CALL(rawdb_region_append_end, return rawdb_region_append_end(s->a, LEN);)
CALL(rawdb_region_reserve, return rawdb_region_reserve(s->a, 5000000);)
CALL(rawdb_region_read, {
    static uint8_t copy[LEN];
    return rawdb_region_read(s->a, 0, copy, LEN);
})
CALL(rawdb_region_view, return rawdb_region_view(s->b, 0, RAWDB_TO_END, &s->view);)
VOID_CALL(rawdb_view_release, rawdb_view_release(&s->view))
VOID_CALL(rawdb_region_len, sink = rawdb_region_len(s->a))
VOID_CALL(rawdb_region_name, {
    char name[8];
    sink = rawdb_region_name(s->a, name, sizeof name);
})
CALL(rawdb_region_get_info, {
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    return rawdb_region_get_info(s->a, &info);
})
CALL(rawdb_region_flush, return rawdb_region_flush(s->a);)

static const struct {
    const char *name;
    rawdb_status (*call)(state *s);
    enum situation situation;
} cases[] = {
#define CASE(name, situation) {#name, name##_, situation}
    CASE(rawdb_version_number, NOTHING),
    CASE(rawdb_version_string, NOTHING),
    CASE(rawdb_status_name, NOTHING),
    CASE(rawdb_status_message, NOTHING),
    CASE(rawdb_last_error, NOTHING),
    CASE(rawdb_last_os_error, NOTHING),
    CASE(rawdb_open, NOTHING),
    CASE(rawdb_open, CLOSED),
    CASE(rawdb_open, DIED),
    CASE(rawdb_close, ROOM),
    CASE(rawdb_close, FLUSHED),
    CASE(rawdb_flush, ROOM),
    CASE(rawdb_compact, ROOM),
    CASE(rawdb_reserve_file, ROOM),
    CASE(rawdb_reserve_regions, ROOM),
    CASE(rawdb_get_stats, ROOM),
    CASE(rawdb_remove, FLUSHED),
    CASE(rawdb_rename, FLUSHED),
    CASE(rawdb_retain, ROOM),
    CASE(rawdb_list, ROOM),
    CASE(rawdb_region_iter_next, ROOM),
    CASE(rawdb_region_iter_free, ROOM),
    CASE(rawdb_region_create, ROOM),
    CASE(rawdb_region_open, ROOM),
    CASE(rawdb_region_close, ROOM),
    CASE(rawdb_region_append, ROOM),
    CASE(rawdb_region_append, GUARDED),
    CASE(rawdb_region_append, FLUSHED),
    CASE(rawdb_region_append, VIEWED),
    CASE(rawdb_region_write_at, ROOM),
    CASE(rawdb_region_write_at, GUARDED),
    CASE(rawdb_region_write_at, FLUSHED),
    CASE(rawdb_region_write_at, VIEWED),
    CASE(rawdb_region_write_batch, ROOM),
    CASE(rawdb_region_write_batch, GUARDED),
    CASE(rawdb_region_write_batch, FLUSHED),
    CASE(rawdb_region_write_batch, VIEWED),
    CASE(rawdb_region_truncate, ROOM),
    CASE(rawdb_region_truncate, GUARDED),
    CASE(rawdb_region_truncate, FLUSHED),
    CASE(rawdb_region_truncate_write, ROOM),
    CASE(rawdb_region_truncate_write, GUARDED),
    CASE(rawdb_region_truncate_write, FLUSHED),
    CASE(rawdb_region_truncate_write, VIEWED),
    CASE(rawdb_region_append_begin, ROOM),
    CASE(rawdb_region_append_begin, GUARDED),
    CASE(rawdb_region_append_begin, FLUSHED),
    CASE(rawdb_region_append_end, APPENDING),
    CASE(rawdb_region_append_end, APPENDING_GUARDED),
    CASE(rawdb_region_reserve, FLUSHED),
    CASE(rawdb_region_read, ROOM),
    CASE(rawdb_region_view, ROOM),
    CASE(rawdb_region_view, FLUSHED),
    CASE(rawdb_view_release, VIEWED),
    CASE(rawdb_view_release, RETIRED),
    CASE(rawdb_region_len, ROOM),
    CASE(rawdb_region_name, ROOM),
    CASE(rawdb_region_get_info, ROOM),
    CASE(rawdb_region_flush, ROOM),
};

/* ---- the runs ---- */

enum outcome { NOT_HIT = 10, WORKS, NO_MEMORY, ABORT };

/* In a child: makes the call, and looks at what it has left. */
static void run_child(size_t number, const temp_dir *dir)
{
    state s;
    rawdb_status status;
    memset(&s, 0, sizeof s);
    s.dir = *dir;
    set_up(&s, cases[number].situation);
    heap.armed = 1;
    status = cases[number].call(&s);
    heap.armed = 0;
    if (!heap.hit) {
        CHECK_EQ((uint64_t)status, RAWDB_OK);
        _exit(NOT_HIT);
    }
    if (status == RAWDB_OK) {
        if (cases[number].situation == DIED)
            check_content_of(s.db);
        _exit(WORKS);
    }
    CHECK_STATUS(status, RAWDB_E_NO_MEMORY);
    CHECK(rawdb_last_error()[0] != '\0');
    if (s.db != NULL) {
        check_content_of(s.db);
        CHECK_OK(cases[number].call(&s));
        CHECK_OK(rawdb_flush(s.db));
    } else if (cases[number].situation == DIED) {
        CHECK_OK(cases[number].call(&s));
        check_content_of(s.db);
    }
    _exit(NO_MEMORY);
}

/* In a child: what is there can be opened, and what was flushed is there. */
static void run_look(enum situation situation, const temp_dir *dir)
{
    rawdb *db = NULL;
    rawdb_stats stats = RAWDB_STATS_INIT;
    rawdb_options read_only = RAWDB_OPTIONS_INIT;
    char live[600];
    read_only.flags = RAWDB_OPEN_READ_ONLY;
    if (situation != NOTHING) {
        CHECK_OK(rawdb_open(dir->db, &read_only, &db));
        CHECK_OK(rawdb_close(db));
    }
    /* Where it has been begun: the call that has ended the process is in there, or not. */
    snprintf(live, sizeof live, "%s/live", dir->db);
    if (situation != DIED)
        (void)unlink(live);
    CHECK_OK(rawdb_open(dir->db, NULL, &db));
    CHECK_OK(rawdb_get_stats(db, &stats));
    CHECK_EQ(stats.live_bytes, situation == NOTHING ? 0 : 2 * LEN);
    CHECK_OK(rawdb_close(db));
    _exit(0);
}

/* One run, with the heap as set. */
static enum outcome run(size_t number)
{
    temp_dir dir = temp_dir_new();
    enum situation situation = cases[number].situation;
    pid_t child;
    int status;
    child = fork();
    if (child == 0)
        run_child(number, &dir);
    status = wait_for(child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ((uint64_t)WTERMSIG(status), SIGABRT);
        child = fork();
        if (child == 0)
            run_look(situation, &dir);
        CHECK_EQ((uint64_t)wait_for(child), 0);
    }
    temp_dir_remove(&dir);
    if (WIFSIGNALED(status))
        return ABORT;
    if (WEXITSTATUS(status) < NOT_HIT) {
        fprintf(stderr, "%s, %s, allocation %ld\n", cases[number].name, situations[situation],
                heap.at);
        exit(1);
    }
    return (enum outcome)WEXITSTATUS(status);
}

/* Lets every allocation of a case that has at least `least` bytes fail. */
static void sweep(size_t number, size_t least, const char *what)
{
    unsigned seen = 0;
    enum outcome outcome;
    memset(&heap, 0, sizeof heap);
    heap.least = least;
    for (heap.lasting = 0; heap.lasting <= 1; heap.lasting++) {
        for (heap.at = 0; (outcome = run(number)) != NOT_HIT; heap.at++)
            seen |= 1u << outcome;
    }
    printf("%s %s %s:%s%s%s%s\n", cases[number].name, situations[cases[number].situation], what,
           seen == 0 ? " nothing" : "", seen >> WORKS & 1 ? " works" : "",
           seen >> NO_MEMORY & 1 ? " no-memory" : "", seen >> ABORT & 1 ? " abort" : "");
}

int main(void)
{
    static const struct rlimit no_core = {0, 0};
    size_t i;
    CHECK(setrlimit(RLIMIT_CORE, &no_core) == 0);
    /* To print one for each abort takes its time. */
    CHECK(setenv("RUST_BACKTRACE", "0", 1) == 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    fill(bytes, sizeof bytes, 1);
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        more_regions = 0;
        sweep(i, 0, "any");
        /* Larger than anything but buffers whose size the caller chose, and large tables. */
        more_regions = 300;
        sweep(i, 16384, "large");
    }
    return 0;
}
