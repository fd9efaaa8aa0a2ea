/*
 * The files of a database in odd surroundings: closed standard streams, paths that lead elsewhere by now,
 * directories of other programs, opens that fail, other owners.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall */
#endif
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* ---- the library's own calls, looked at ---- */

static void (*before_lock)(void);

int flock(int fd, int operation)
{
    void (*run)(void) = before_lock;
    before_lock = NULL;
    if (run != NULL)
        run();
    return (int)syscall(SYS_flock, fd, operation);
}

static struct stat synced[64];
static unsigned synced_count;

int fsync(int fd)
{
    if (synced_count < sizeof synced / sizeof *synced)
        CHECK(fstat(fd, &synced[synced_count++]) == 0);
    return (int)syscall(SYS_fsync, fd);
}

static int was_synced(const char *path)
{
    struct stat info;
    unsigned i;
    CHECK(stat(path, &info) == 0);
    for (i = 0; i < synced_count; i++)
        if (synced[i].st_dev == info.st_dev && synced[i].st_ino == info.st_ino)
            return 1;
    return 0;
}

/* ---- files ---- */

typedef struct path {
    char text[700];
} path;

static path in(const char *directory, const char *name)
{
    path result;
    int n = snprintf(result.text, sizeof result.text, "%s/%s", directory, name);
    CHECK(n > 0 && (size_t)n < sizeof result.text);
    return result;
}

static int exists(const char *directory, const char *name)
{
    struct stat info;
    return lstat(in(directory, name).text, &info) == 0;
}

static void put(const char *directory, const char *name, const void *bytes, size_t len)
{
    FILE *file = fopen(in(directory, name).text, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, len, file) == len);
    CHECK(fclose(file) == 0);
}

static void put_text(const char *directory, const char *name, const char *text)
{
    put(directory, name, text, strlen(text));
}

/* What a directory holds: a sum over its names, and kinds, lengths and bytes of its files. */
static uint64_t sum_of(const char *directory)
{
    uint64_t sum = 0;
    struct dirent *entry;
    DIR *entries = opendir(directory);
    CHECK(entries != NULL);
    while ((entry = readdir(entries)) != NULL) {
        path name = in(directory, entry->d_name);
        uint64_t hash = UINT64_C(1469598103934665603);
        unsigned char bytes[4096];
        size_t i, len;
        struct stat info;
        FILE *file;
        if (entry->d_name[0] == '.')
            continue;
        CHECK(lstat(name.text, &info) == 0);
        for (i = 0; entry->d_name[i] != '\0'; i++)
            hash = (hash ^ (unsigned char)entry->d_name[i]) * UINT64_C(1099511628211);
        hash = (hash ^ info.st_mode ^ (uint64_t)info.st_ino) * UINT64_C(1099511628211);
        if (S_ISREG(info.st_mode)) {
            hash = (hash ^ (uint64_t)info.st_size) * UINT64_C(1099511628211);
            file = fopen(name.text, "rb");
            CHECK(file != NULL);
            /* What lies behind is sparse. */
            while ((len = fread(bytes, 1, sizeof bytes, file)) > 0 && ftell(file) < 1 << 20)
                for (i = 0; i < len; i++)
                    hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
            fclose(file);
        }
        sum += hash;
    }
    closedir(entries);
    return sum;
}

static rawdb_status try_open(const char *directory, uint32_t flags)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db = NULL;
    rawdb_status status;
    options.flags = flags;
    status = rawdb_open(directory, &options, &db);
    CHECK((status == RAWDB_OK) == (db != NULL));
    CHECK(rawdb_close(db) == RAWDB_OK);
    return status;
}

static void check_text(rawdb *db, const char *name, const char *text)
{
    rawdb_region *region;
    CHECK_OK(rawdb_region_open(db, name, &region));
    CHECK_CONTENT(region, text, strlen(text));
    rawdb_region_close(region);
}

static void append_text(rawdb *db, const char *name, const char *text)
{
    rawdb_region *region = create_region(db, name);
    CHECK_OK(rawdb_region_append(region, text, strlen(text), NULL));
    rawdb_region_close(region);
}

static void make_db(const char *directory, const char *text)
{
    rawdb *db = open_db(directory, 0);
    append_text(db, "region", text);
    CHECK_OK(rawdb_close(db));
}

/* ---- another process ---- */

typedef struct other {
    pid_t process;
} other;

/* Opens the database, appends to a region, and stays, until it is killed. */
static other other_process(const char *directory, const char *text)
{
    other result;
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    result.process = fork();
    CHECK(result.process >= 0);
    if (result.process == 0) {
        rawdb *db;
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0); /* where a check fails here */
        db = open_db(directory, 0);
        append_text(db, "region", text);
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return result;
}

static void kill_other(other it)
{
    int status;
    CHECK(kill(it.process, SIGKILL) == 0);
    CHECK(waitpid(it.process, &status, 0) == it.process);
}

static void check_child(pid_t child)
{
    int status = 0;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- descriptors ---- */

/* Whatever the program writes to a number that it has closed, or takes for its own. */
static void write_to_descriptors(const temp_dir *dir, unsigned *found)
{
    struct dirent *entry;
    DIR *descriptors = opendir("/proc/self/fd");
    CHECK(descriptors != NULL);
    while ((entry = readdir(descriptors)) != NULL) {
        char target[1024];
        ssize_t len = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof target - 1);
        target[len > 0 ? len : 0] = '\0';
        if (strstr(target, strrchr(dir->path, '/')) == NULL)
            continue;
        ++*found;
        CHECK(atoi(entry->d_name) > 2);
        CHECK(write(atoi(entry->d_name), "a message", 9) == -1);
    }
    closedir(descriptors);
}

static void with_closed_streams(const temp_dir *dir, int closed, uint32_t flags)
{
    int fd;
    unsigned found = 0;
    rawdb *db;
    for (fd = 0; fd < 3; fd++)
        if (closed >> fd & 1)
            close(fd);
    db = open_db(dir->db, flags);
    append_text(db, "region", "text");
    CHECK_OK(rawdb_flush(db));
    for (fd = 0; fd < 3; fd++)
        if (closed >> fd & 1)
            CHECK(write(fd, "a message", 9) == -1 && errno == EBADF);
    write_to_descriptors(dir, &found);
    CHECK(found >= 4); /* the directory and three files */
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    check_text(db, "region", "text");
    CHECK_OK(rawdb_remove(db, "region"));
    CHECK_OK(rawdb_close(db));
}

static void test_closed_streams(void)
{
    int closed;
    for (closed = 0; closed < 8; closed++) {
        temp_dir dir = temp_dir_new();
        pid_t child = fork();
        if (child == 0) {
            with_closed_streams(&dir, closed, 0);                    /* creates */
            with_closed_streams(&dir, closed, RAWDB_OPEN_GUARDED); /* finds */
            leave_child();
        }
        check_child(child);
        temp_dir_remove(&dir);
    }
}

/* ---- paths that lead elsewhere ---- */

static void test_chdir(void)
{
    temp_dir dir = temp_dir_new();
    path a = in(dir.path, "a"), b = in(dir.path, "b");
    path b_db = in(b.text, "db");
    char old[4096];
    other second;
    rawdb *db;

    CHECK(getcwd(old, sizeof old) != NULL);
    CHECK(mkdir(a.text, 0700) == 0 && mkdir(b.text, 0700) == 0);
    second = other_process(b_db.text, "of the other");
    CHECK(chdir(a.text) == 0);
    db = open_db("db", 0);
    append_text(db, "region", "ours");
    CHECK(chdir(b.text) == 0);
    CHECK_OK(rawdb_close(db));
    CHECK(!exists(in(a.text, "db").text, "live"));
    CHECK(exists(b_db.text, "live"));
    kill_other(second);
    db = open_db("db", RAWDB_OPEN_NO_CREATE);
    check_text(db, "region", "of the other");
    CHECK_OK(rawdb_close(db));
    CHECK(chdir(old) == 0);
    temp_dir_remove(&dir);
}

/* Another database is at the path by now. */
static void test_directory_is_replaced(void)
{
    temp_dir dir = temp_dir_new();
    path moved = in(dir.path, "moved");
    other second;
    rawdb *db = open_db(dir.db, 0);
    append_text(db, "region", "ours");
    CHECK(rename(dir.db, moved.text) == 0);
    second = other_process(dir.db, "of the other");
    CHECK_OK(rawdb_close(db));
    CHECK(!exists(moved.text, "live"));
    CHECK(exists(dir.db, "live"));
    kill_other(second);
    db = open_db(dir.db, RAWDB_OPEN_NO_CREATE);
    check_text(db, "region", "of the other");
    CHECK_OK(rawdb_close(db));
    db = open_db(moved.text, RAWDB_OPEN_NO_CREATE);
    check_text(db, "region", "ours");
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

/* So is another file of that name in the directory. */
static void test_mirror_is_replaced(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, 0);
    CHECK(remove(in(dir.db, "live").text) == 0);
    put_text(dir.db, "live", "not ours");
    CHECK_OK(rawdb_close(db));
    CHECK(exists(dir.db, "live"));
    temp_dir_remove(&dir);
}

static temp_dir contested;
static other winner;

static void remove_and_make_anew(void)
{
    CHECK(remove(in(contested.db, "data").text) == 0);
    CHECK(remove(in(contested.db, "regions").text) == 0);
    CHECK(rmdir(contested.db) == 0);
    winner = other_process(contested.db, "of the winner");
}

/* Between opening a file and locking it, others may have removed it and made a new database. */
static void test_two_owners(void)
{
    rawdb *db = NULL;
    uint64_t sum;
    contested = temp_dir_new();
    make_db(contested.db, "old");
    before_lock = remove_and_make_anew;
    CHECK_STATUS(rawdb_open(contested.db, NULL, &db), RAWDB_E_LOCKED);
    CHECK(db == NULL && before_lock == NULL);
    sum = sum_of(contested.db);
    CHECK_STATUS(rawdb_open(contested.db, NULL, &db), RAWDB_E_LOCKED);
    CHECK_EQ(sum_of(contested.db), sum);
    kill_other(winner);
    db = open_db(contested.db, RAWDB_OPEN_NO_CREATE);
    check_text(db, "region", "of the winner");
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&contested);
}

/* ---- directories of other programs ---- */

/* The open is refused, whatever the flags, and nothing has changed. */
static void check_refused(const char *directory, uint32_t flags, rawdb_status wanted,
                          const char *message)
{
    uint64_t sum = sum_of(directory);
    CHECK_STATUS(try_open(directory, flags), wanted);
    CHECK_MESSAGE(message);
    CHECK_EQ(sum_of(directory), sum);
    CHECK_STATUS(try_open(directory, flags | RAWDB_OPEN_GUARDED), wanted);
    CHECK_EQ(sum_of(directory), sum);
}

static void test_other_files(void)
{
    temp_dir dir = temp_dir_new();
    uint64_t sum;
    put_text(dir.path, "notes.txt", "notes");
    check_refused(dir.path, 0, RAWDB_E_ALREADY_EXISTS, "notes.txt");
    check_refused(dir.path, RAWDB_OPEN_CREATE_NEW, RAWDB_E_ALREADY_EXISTS, "notes.txt");
    check_refused(dir.path, RAWDB_OPEN_NO_CREATE, RAWDB_E_NOT_FOUND, "data");
    check_refused(dir.path, RAWDB_OPEN_READ_ONLY, RAWDB_E_NOT_FOUND, "data");
    /* An empty file of that name is not ours either. */
    put_text(dir.path, "data", "");
    check_refused(dir.path, 0, RAWDB_E_ALREADY_EXISTS, "notes.txt");
    CHECK(remove(in(dir.path, "data").text) == 0);
    sum = sum_of(dir.path);

    CHECK_STATUS(try_open(dir.path, RAWDB_OPEN_SHARE_DIRECTORY), RAWDB_OK);
    CHECK(sum_of(dir.path) != sum);
    /* From here on it is a database, beside which there may be other files. */
    CHECK_STATUS(try_open(dir.path, 0), RAWDB_OK);
    CHECK(exists(dir.path, "notes.txt"));
    temp_dir_remove(&dir);
}

static void test_files_of_our_names(void)
{
    static const char ZEROS[5000] = {0};
    static const uint32_t FLAGS[] = {0, RAWDB_OPEN_SHARE_DIRECTORY};
    unsigned i;
    for (i = 0; i < 2; i++) {
        temp_dir dir = temp_dir_new();
        put_text(dir.path, "live", "somebody's recording");
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "live");
        put_text(dir.path, "live", "");
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "live");
        put_text(dir.path, "data", "");
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "live");
        CHECK(remove(in(dir.path, "live").text) == 0);

        put_text(dir.path, "regions", "north\nsouth\n");
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "regions");
        put(dir.path, "regions", "\0\0\0\0\0\0\0\0text", 12);
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "regions");
        CHECK(remove(in(dir.path, "data").text) == 0);
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "regions");
        put(dir.path, "regions", ZEROS, sizeof ZEROS);
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "regions");

        put_text(dir.path, "data", "1, 2, 3\n");
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "data");
        put(dir.path, "data", ZEROS, sizeof ZEROS);
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "data");
        CHECK(remove(in(dir.path, "regions").text) == 0);
        check_refused(dir.path, FLAGS[i], RAWDB_E_CORRUPT, "regions");
        temp_dir_remove(&dir);
    }
}

/* A good database, beside which somebody has put a file that the library would remove. */
static void test_mirror_of_somebody_else(void)
{
    temp_dir dir = temp_dir_new();
    make_db(dir.db, "text");
    put_text(dir.db, "live", "somebody's recording");
    check_refused(dir.db, 0, RAWDB_E_CORRUPT, "live");
    CHECK_STATUS(try_open(dir.db, RAWDB_OPEN_READ_ONLY), RAWDB_OK);
    CHECK(remove(in(dir.db, "live").text) == 0);
    CHECK_STATUS(try_open(dir.db, 0), RAWDB_OK);
    temp_dir_remove(&dir);
}

static void test_unfinished_creation(void)
{
    static const char ZEROS[4096] = {0};
    temp_dir dir = temp_dir_new();
    put_text(dir.path, "data", "");
    CHECK(mkdir(in(dir.path, "lost+found").text, 0700) == 0);
    CHECK_STATUS(try_open(dir.path, RAWDB_OPEN_CREATE_NEW), RAWDB_OK);
    temp_dir_remove(&dir);

    dir = temp_dir_new();
    put(dir.path, "data", ZEROS, sizeof ZEROS);
    put_text(dir.path, "regions", "");
    CHECK_STATUS(try_open(dir.path, RAWDB_OPEN_CREATE_NEW), RAWDB_OK);
    temp_dir_remove(&dir);

    dir = temp_dir_new();
    put_text(dir.path, "regions", ""); /* a power loss has kept one of two names */
    CHECK_STATUS(try_open(dir.path, RAWDB_OPEN_CREATE_NEW), RAWDB_OK);
    temp_dir_remove(&dir);
}

/* A link in the place of a file would lead to somebody else's. */
static void test_links(void)
{
    static const char *const NAMES[] = {"data", "regions", "live"};
    temp_dir dir = temp_dir_new();
    path target = in(dir.path, "target");
    unsigned i, has_target;
    for (i = 0; i < 3; i++) {
        for (has_target = 0; has_target < 2; has_target++) {
            path db = in(dir.path, NAMES[i]);
            make_db(db.text, "text");
            if (i < 2)
                CHECK(remove(in(db.text, NAMES[i]).text) == 0);
            if (has_target)
                put_text(dir.path, "target", "of somebody else");
            CHECK(symlink(target.text, in(db.text, NAMES[i]).text) == 0);
            check_refused(db.text, 0, RAWDB_E_CORRUPT, "symbolic link");
            check_refused(db.text, RAWDB_OPEN_SHARE_DIRECTORY, RAWDB_E_CORRUPT, NAMES[i]);
            check_refused(db.text, RAWDB_OPEN_READ_ONLY, RAWDB_E_CORRUPT, NAMES[i]);
            CHECK(exists(dir.path, "target") == (int)has_target);
            if (has_target) {
                char text[32] = "";
                FILE *file = fopen(target.text, "rb");
                CHECK(file != NULL && fread(text, 1, sizeof text, file) == 16);
                CHECK(memcmp(text, "of somebody else", 16) == 0);
                fclose(file);
                CHECK(remove(target.text) == 0);
            }
            CHECK(nftw(db.text, temp_dir_remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
        }
    }
    temp_dir_remove(&dir);
}

/* ---- odd paths ---- */

/* Creates a database by this path, in `directory`, whose name in `parent` has to last. */
static void check_created(const char *by, const char *directory, const char *parent)
{
    rawdb *db;
    synced_count = 0;
    db = open_db(by, RAWDB_OPEN_CREATE_NEW);
    CHECK(was_synced(directory));
    CHECK(was_synced(parent));
    append_text(db, "region", "text");
    CHECK_OK(rawdb_close(db));
    db = open_db(directory, RAWDB_OPEN_NO_CREATE);
    check_text(db, "region", "text");
    CHECK_OK(rawdb_close(db));
}

static void test_odd_paths(void)
{
    temp_dir dir = temp_dir_new();
    path real = in(dir.path, "real"), links = in(dir.path, "links"), one = in(real.text, "one"),
         two = in(real.text, "two"), three = in(real.text, "three"), link = in(links.text, "link");
    char by[64], old[4096];
    int fd;
    CHECK(getcwd(old, sizeof old) != NULL);
    CHECK(mkdir(real.text, 0700) == 0 && mkdir(links.text, 0700) == 0);
    CHECK(mkdir(one.text, 0700) == 0 && mkdir(two.text, 0700) == 0 && mkdir(three.text, 0700) == 0);

    fd = open(one.text, O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0);
    snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
    check_created(by, one.text, real.text);
    close(fd);

    CHECK(chdir(two.text) == 0);
    check_created(".", two.text, real.text);
    CHECK(chdir(old) == 0);

    CHECK(symlink(three.text, link.text) == 0);
    check_created(link.text, three.text, real.text);

    CHECK(chdir(dir.path) == 0);
    check_created("new", in(dir.path, "new").text, dir.path);
    check_created("./newer/", in(dir.path, "newer").text, dir.path);
    CHECK(chdir(old) == 0);
    temp_dir_remove(&dir);
}

/* ---- opens that fail ---- */

static void test_failed_creation(void)
{
    static const uint64_t LENS[] = {UINT64_MAX, UINT64_C(1) << 60};
    rawdb_options options = RAWDB_OPTIONS_INIT;
    temp_dir dir = temp_dir_new();
    rawdb *db = NULL;
    unsigned i;
    for (i = 0; i < 2; i++) {
        options.min_file_len = LENS[i];
        CHECK(rawdb_open(dir.db, &options, &db) != RAWDB_OK);
        CHECK(!exists(dir.path, "db"));
        CHECK(rawdb_open(dir.path, &options, &db) != RAWDB_OK);
        CHECK(!exists(dir.path, "data") && !exists(dir.path, "regions") && !exists(dir.path, "live"));
    }
    options.min_file_len = 0;
    options.max_address_space = 4096;
    CHECK_STATUS(rawdb_open(dir.db, &options, &db), RAWDB_E_NO_MEMORY);
    CHECK(!exists(dir.path, "db"));
    CHECK_STATUS(try_open(dir.db, RAWDB_OPEN_CREATE_NEW), RAWDB_OK);

    /* What was there is left as it was found. */
    options.max_address_space = 0;
    options.min_file_len = UINT64_C(1) << 60;
    {
        uint64_t sum = sum_of(dir.db);
        CHECK(rawdb_open(dir.db, &options, &db) != RAWDB_OK);
        CHECK_EQ(sum_of(dir.db), sum);
    }
    CHECK_STATUS(try_open(dir.db, RAWDB_OPEN_NO_CREATE), RAWDB_OK);
    temp_dir_remove(&dir);
}

/* ---- who has it open ---- */

static void test_who_has_it_open(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, 0), *second = NULL;
    rawdb_region *region = create_region(db, "region"), *removed = create_region(db, "removed");
    rawdb_view views[3];
    void *room;
    char process[64];
    other it;
    unsigned i;

    CHECK_STATUS(rawdb_open(dir.db, NULL, &second), RAWDB_E_LOCKED);
    CHECK_MESSAGE("is open already in this process");
    CHECK_OK(rawdb_region_append(region, "text", 4, NULL));
    CHECK_OK(rawdb_region_append(removed, "text", 4, NULL));
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &views[0]));
    CHECK_OK(rawdb_region_view(region, 0, 2, &views[1]));
    CHECK_OK(rawdb_region_view(removed, 0, 2, &views[2]));
    CHECK_OK(rawdb_remove(db, "removed"));
    CHECK_OK(rawdb_close(db));
    for (i = 3; i > 0; i--) {
        char text[64];
        CHECK_STATUS(rawdb_open(dir.db, NULL, &second), RAWDB_E_LOCKED);
        snprintf(text, sizeof text, "was closed in this process, and %u view", i);
        CHECK_MESSAGE(text);
        rawdb_view_release(&views[i - 1]);
    }
    rawdb_region_close(removed);
    rawdb_region_close(region);

    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_OK(rawdb_region_append_begin(region, 10, &room));
    CHECK_OK(rawdb_close(db));
    CHECK_STATUS(rawdb_open(dir.db, NULL, &second), RAWDB_E_LOCKED);
    CHECK_MESSAGE("was closed in this process while an append");
    rawdb_region_close(region);

    it = other_process(dir.db, "");
    CHECK_STATUS(rawdb_open(dir.db, NULL, &second), RAWDB_E_LOCKED);
    snprintf(process, sizeof process, "is open in process %ld (", (long)it.process);
    CHECK_MESSAGE(process);
    kill_other(it);
    temp_dir_remove(&dir);
}

int main(void)
{
    RUN(test_closed_streams);
    RUN(test_chdir);
    RUN(test_directory_is_replaced);
    RUN(test_mirror_is_replaced);
    RUN(test_two_owners);
    RUN(test_other_files);
    RUN(test_files_of_our_names);
    RUN(test_mirror_of_somebody_else);
    RUN(test_unfinished_creation);
    RUN(test_links);
    RUN(test_odd_paths);
    RUN(test_failed_creation);
    RUN(test_who_has_it_open);
    return 0;
}
