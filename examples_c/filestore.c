/*
 * filestore: keeps directory trees in a rawdb database, one region per file.
 *
 * A region's name is the path of its file as it was given to `put`. Each file is stored whole or
 * not at all: its bytes go to a region aside, which is then renamed over the old one.
 */
#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rawdb.h>

static const char USAGE[] =
    "usage: filestore DB COMMAND\n"
    "  put DIR                 store the regular files in and below DIR\n"
    "  ls [PREFIX]             list what is stored: length and name\n"
    "  cat NAME                write a stored file to the standard output\n"
    "  verify DIR [PREFIX...]  compare DIR with what is stored, byte by byte; files whose names\n"
    "                          begin with one of the PREFIXes must not be stored\n"
    "  rm PREFIX...            remove the files whose names begin with PREFIX\n"
    "  compact                 return unused space to the file system\n"
    "  stat                    print sizes\n"
    "DB is the directory of the database; put creates it. A name is a path below the DIR of put.\n"
    "Exit status: 0 success, 1 something failed or differs, 2 wrong usage.\n";

enum { CHUNK = 1 << 20 };

/* Names of files have a slash in them, so none of them is this. */
static const char ASIDE[] = "new version";

static void check(rawdb_status status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "filestore: %s: %s: %s\n", what, rawdb_status_name(status),
                rawdb_last_error());
        exit(1);
    }
}

static rawdb *open_database(const char *path, uint32_t flags)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;
    options.flags = flags;
    check(rawdb_open(path, &options, &db), "open");
    return db;
}

static int begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int begins_with_any(const char *text, char **prefixes, int count)
{
    while (count-- > 0)
        if (begins_with(text, prefixes[count]))
            return 1;
    return 0;
}

/* ---- directory trees ---- */

typedef struct walk {
    rawdb *db;
    struct stat db_dir; /* left out, should it be within the tree */
    char **absent;      /* prefixes of names that must not be stored, for verify */
    int absent_count;
    int (*visit)(struct walk *walk, const char *path, uint64_t size); /* 0 if it went wrong */
    uint64_t files, bytes, symlinks, specials, failures;
} walk;

static void walk_directory(walk *w, const char *dir)
{
    struct dirent *entry;
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        perror(dir);
        w->failures++;
        return;
    }
    while ((entry = readdir(stream)) != NULL) {
        size_t room = strlen(dir) + strlen(entry->d_name) + 2;
        char *path = malloc(room);
        struct stat info;
        if (path == NULL) {
            perror("filestore");
            exit(1);
        }
        snprintf(path, room, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            /* not an entry of its own */
        } else if (lstat(path, &info) != 0) {
            perror(path);
            w->failures++;
        } else if (S_ISDIR(info.st_mode)) {
            if (info.st_dev != w->db_dir.st_dev || info.st_ino != w->db_dir.st_ino)
                walk_directory(w, path);
        } else if (S_ISREG(info.st_mode)) {
            if (begins_with_any(path, w->absent, w->absent_count))
                ; /* verify_extra looks for it */
            else if (w->visit(w, path, (uint64_t)info.st_size))
                w->files++;
            else
                w->failures++;
        } else if (S_ISLNK(info.st_mode)) {
            w->symlinks++;
        } else {
            w->specials++;
        }
        free(path);
    }
    closedir(stream);
}

static void walk_tree(walk *w, const char *db_path, char *dir)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        dir[--len] = '\0';
    if (len == 0 || stat(db_path, &w->db_dir) != 0) {
        perror(len == 0 ? "DIR" : db_path);
        exit(1);
    }
    walk_directory(w, dir);
}

static void print_skipped(const walk *w)
{
    if (w->symlinks > 0 || w->specials > 0)
        printf("skipped %" PRIu64 " symbolic links, %" PRIu64 " special files\n", w->symlinks,
               w->specials);
}

/* ---- put ---- */

/* Reads the file straight into the region. */
static int read_into(rawdb_region *region, int fd, const char *path, uint64_t size)
{
    uint64_t done = 0;
    ssize_t n;
    do {
        /* One byte more than the file should have, to see its end or that it has grown. */
        size_t len = size - done < CHUNK ? (size_t)(size - done) + 1 : CHUNK;
        void *room;
        check(rawdb_region_append_begin(region, len, &room), path);
        n = read(fd, room, len);
        if (n < 0)
            perror(path);
        check(rawdb_region_append_end(region, n > 0 ? (size_t)n : 0), path);
        done += n > 0 ? (uint64_t)n : 0;
        if (done > size)
            size = done + CHUNK;
    } while (n > 0);
    return n == 0;
}

static int put_file(walk *w, const char *path, uint64_t size)
{
    int stored, fd = open(path, O_RDONLY);
    rawdb_region *region;
    if (fd < 0) {
        perror(path);
        return 0;
    }
    check(rawdb_region_create(w->db, ASIDE, &region), path);
    check(rawdb_region_truncate(region, 0), path); /* one may be left of a run that was killed */
    stored = read_into(region, fd, path, size);
    close(fd);
    if (stored) {
        rawdb_status status = rawdb_rename(w->db, ASIDE, path, RAWDB_RENAME_REPLACE);
        stored = status == RAWDB_OK;
        if (status == RAWDB_E_INVALID_NAME)
            fprintf(stderr, "filestore: %s: %s\n", path, rawdb_last_error());
        else
            check(status, path);
    }
    if (stored)
        w->bytes += rawdb_region_len(region);
    else
        check(rawdb_remove(w->db, ASIDE), path);
    rawdb_region_close(region);
    return stored;
}

static int put(const char *db_path, char *dir)
{
    walk w = {0};
    w.db = open_database(db_path, 0);
    w.visit = put_file;
    walk_tree(&w, db_path, dir);
    check(rawdb_flush(w.db), "flush");
    check(rawdb_close(w.db), "close");
    printf("stored %" PRIu64 " files, %" PRIu64 " bytes\n", w.files, w.bytes);
    print_skipped(&w);
    if (w.failures > 0)
        fprintf(stderr, "filestore: %" PRIu64 " could not be stored\n", w.failures);
    return w.failures == 0 ? 0 : 1;
}

/* ---- verify ---- */

static int equals(int fd, const char *path, const rawdb_view *view)
{
    static uint8_t buffer[CHUNK];
    size_t done = 0;
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) {
        if ((size_t)n > view->len - done || memcmp(buffer, view->data + done, (size_t)n) != 0) {
            printf("differs: %s\n", path);
            return 0;
        }
        done += (size_t)n;
    }
    if (n < 0)
        perror(path);
    else if (done < view->len)
        printf("differs: %s\n", path);
    return n == 0 && done == view->len;
}

static int verify_file(walk *w, const char *path, uint64_t size)
{
    rawdb_region *region;
    rawdb_view view;
    rawdb_status status;
    int fd, same;

    (void)size;
    status = rawdb_region_open(w->db, path, &region);
    if (status == RAWDB_E_NOT_FOUND || status == RAWDB_E_INVALID_NAME) {
        printf("missing: %s\n", path);
        return 0;
    }
    check(status, path);
    fd = open(path, O_RDONLY);
    if (fd < 0) {
        perror(path);
        rawdb_region_close(region);
        return 0;
    }
    check(rawdb_region_view(region, 0, RAWDB_TO_END, &view), path);
    same = equals(fd, path, &view);
    w->bytes += same ? view.len : 0;
    rawdb_view_release(&view);
    rawdb_region_close(region);
    close(fd);
    return same;
}

/* What is stored under `dir` must be a file there still. */
static void verify_extra(walk *w, const char *dir)
{
    rawdb_region_iter *iter;
    rawdb_region_info region = RAWDB_REGION_INFO_INIT;
    const char *name;
    size_t len = strlen(dir);
    rawdb_status status;

    check(rawdb_list(w->db, &iter), "list");
    while ((status = rawdb_region_iter_next(iter, &name, &region)) == RAWDB_OK) {
        struct stat file;
        if (!begins_with(name, dir) || (dir[len - 1] != '/' && name[len] != '/'))
            continue;
        if (lstat(name, &file) != 0 || !S_ISREG(file.st_mode) ||
            begins_with_any(name, w->absent, w->absent_count)) {
            printf("extra: %s\n", name);
            w->failures++;
        }
    }
    check(status, "list");
    rawdb_region_iter_free(iter);
}

static int verify(const char *db_path, char *dir, char **absent, int absent_count)
{
    walk w = {0};
    w.db = open_database(db_path, RAWDB_OPEN_READ_ONLY);
    w.absent = absent;
    w.absent_count = absent_count;
    w.visit = verify_file;
    walk_tree(&w, db_path, dir);
    verify_extra(&w, dir);
    check(rawdb_close(w.db), "close");
    printf("%" PRIu64 " files, %" PRIu64 " bytes equal; %" PRIu64 " differences\n", w.files,
           w.bytes, w.failures);
    print_skipped(&w);
    return w.failures == 0 ? 0 : 1;
}

/* ---- the other commands ---- */

static int list(const char *db_path, const char *prefix)
{
    rawdb *db = open_database(db_path, RAWDB_OPEN_READ_ONLY);
    rawdb_region_iter *iter;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    const char *name;
    rawdb_status status;

    check(rawdb_list(db, &iter), "list");
    while ((status = rawdb_region_iter_next(iter, &name, &info)) == RAWDB_OK)
        if (begins_with(name, prefix))
            printf("%12" PRIu64 " %s\n", info.len, name);
    check(status, "list");
    rawdb_region_iter_free(iter);
    check(rawdb_close(db), "close");
    return 0;
}

static int cat(const char *db_path, const char *name)
{
    rawdb *db = open_database(db_path, RAWDB_OPEN_READ_ONLY);
    rawdb_region *region;
    rawdb_view view;

    check(rawdb_region_open(db, name, &region), "cat");
    check(rawdb_region_view(region, 0, RAWDB_TO_END, &view), "cat");
    fwrite(view.data, 1, view.len, stdout);
    rawdb_view_release(&view);
    rawdb_region_close(region);
    check(rawdb_close(db), "close");
    return 0;
}

static int remove_files(const char *db_path, char **prefixes, int count)
{
    rawdb *db = open_database(db_path, RAWDB_OPEN_NO_CREATE);
    rawdb_region_iter *iter;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    const char *name;
    rawdb_status status;
    uint64_t removed = 0, bytes = 0;

    check(rawdb_list(db, &iter), "list");
    while ((status = rawdb_region_iter_next(iter, &name, &info)) == RAWDB_OK) {
        if (begins_with_any(name, prefixes, count)) {
            check(rawdb_remove(db, name), "rm");
            removed++;
            bytes += info.len;
        }
    }
    check(status, "list");
    rawdb_region_iter_free(iter);
    check(rawdb_flush(db), "flush");
    check(rawdb_close(db), "close");
    printf("removed %" PRIu64 " files, %" PRIu64 " bytes\n", removed, bytes);
    return removed > 0 ? 0 : 1;
}

static rawdb_stats stats_of(rawdb *db)
{
    rawdb_stats stats = RAWDB_STATS_INIT;
    check(rawdb_get_stats(db, &stats), "stat");
    return stats;
}

static int compact(const char *db_path)
{
    rawdb *db = open_database(db_path, RAWDB_OPEN_NO_CREATE);
    uint64_t before = stats_of(db).disk_bytes;
    check(rawdb_compact(db, NULL, NULL), "compact");
    printf("data occupied %" PRIu64 " KiB of disk, now %" PRIu64 " KiB\n", before / 1024,
           stats_of(db).disk_bytes / 1024);
    check(rawdb_close(db), "close");
    return 0;
}

static int print_stats(const char *db_path)
{
    rawdb *db = open_database(db_path, RAWDB_OPEN_READ_ONLY);
    rawdb_stats stats = stats_of(db);
    check(rawdb_close(db), "close");
    printf("files stored    %12" PRIu64 "\n", stats.region_count);
    printf("their bytes     %12" PRIu64 "\n", stats.live_bytes);
    printf("disk occupied   %12" PRIu64 "\n", stats.disk_bytes);
    printf("file length     %12" PRIu64 "\n", stats.file_len);
    printf("  reserved      %12" PRIu64 "\n", stats.reserved_bytes);
    printf("  free          %12" PRIu64 "\n", stats.free_bytes);
    printf("generation      %12" PRIu64 "\n", stats.generation);
    return 0;
}

static int run(int argc, char **argv)
{
    const char *db = argv[1], *command = argc > 2 ? argv[2] : "";
    char **args = argv + 3;
    int count = argc - 3;

    if (strcmp(command, "put") == 0 && count == 1)
        return put(db, args[0]);
    if (strcmp(command, "ls") == 0 && (count == 0 || count == 1))
        return list(db, count == 1 ? args[0] : "");
    if (strcmp(command, "cat") == 0 && count == 1)
        return cat(db, args[0]);
    if (strcmp(command, "verify") == 0 && count >= 1)
        return verify(db, args[0], args + 1, count - 1);
    if (strcmp(command, "rm") == 0 && count >= 1)
        return remove_files(db, args, count);
    if (strcmp(command, "compact") == 0 && count == 0)
        return compact(db);
    if (strcmp(command, "stat") == 0 && count == 0)
        return print_stats(db);
    fputs(USAGE, stderr);
    return 2;
}

int main(int argc, char **argv)
{
    int result = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("filestore: standard output");
        return 1;
    }
    return result;
}
