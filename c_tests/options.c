/* Opening: the options struct and its flags, who may open beside whom. */
#include "check.h"

#include <stddef.h>

#define KNOWN_FLAGS                                                                                \
    (RAWDB_OPEN_READ_ONLY | RAWDB_OPEN_NO_CREATE | RAWDB_OPEN_CREATE_NEW | RAWDB_OPEN_GUARDED |    \
     RAWDB_OPEN_SHARE_DIRECTORY)

static void check_open(const char *path, const rawdb_options *options, rawdb_status wanted)
{
    rawdb *db = (rawdb *)(uintptr_t)0xA5A5;
    CHECK_STATUS(rawdb_open(path, options, &db), wanted);
    CHECK((db != NULL) == (wanted == RAWDB_OK));
    CHECK_OK(rawdb_close(db));
}

static void check_open_flags(const char *path, uint32_t flags, rawdb_status wanted)
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    options.flags = flags;
    check_open(path, &options, wanted);
}

/* A directory's entries, with sizes and times of change, as one number. */
static uint64_t directory_state(const char *path)
{
    uint64_t state = 0;
    struct dirent *entry;
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        char file[1024];
        struct stat info;
        const char *c;
        uint64_t hash = 17;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        CHECK(stat(file, &info) == 0);
        for (c = entry->d_name; *c != '\0'; c++)
            hash = hash * 31 + (uint8_t)*c;
        hash = hash * 31 + (uint64_t)info.st_size;
        hash = hash * 31 + (uint64_t)info.st_mtim.tv_sec;
        hash = hash * 31 + (uint64_t)info.st_mtim.tv_nsec;
        state += hash * hash;
    }
    closedir(dir);
    return state;
}

static void test_struct_size(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_options options = RAWDB_OPTIONS_INIT;
    struct {
        rawdb_options known;
        uint8_t unknown[4097 - sizeof(rawdb_options)];
    } longer;
    size_t size;

    CHECK_EQ(options.struct_size, sizeof options);
    check_open(dir.db, NULL, RAWDB_OK);
    check_open(dir.db, &options, RAWDB_OK);

    /* Forgotten or nonsense sizes. */
    for (size = 0; size < 16; size++) {
        options.struct_size = size;
        check_open(dir.db, &options, RAWDB_E_INVALID_ARGUMENT);
    }
    options.struct_size = SIZE_MAX;
    check_open(dir.db, &options, RAWDB_E_INVALID_ARGUMENT);
    memset(&options.struct_size, 0xA5, sizeof options.struct_size);
    check_open(dir.db, &options, RAWDB_E_INVALID_ARGUMENT);

    /* Of a shorter struct only the fields within it count. */
    memset(&options, 0xA5, sizeof options);
    options.struct_size = offsetof(rawdb_options, max_address_space);
    options.flags = RAWDB_OPEN_NO_CREATE;
    options.reserved = 0;
    options.min_file_len = 0;
    check_open(dir.db, &options, RAWDB_OK);
    options.flags = RAWDB_OPEN_CREATE_NEW;
    check_open(dir.db, &options, RAWDB_E_ALREADY_EXISTS);

    /* What a newer caller asks for may not be ignored, unless it asks for nothing. */
    memset(&longer, 0, sizeof longer);
    longer.known.struct_size = 4096;
    check_open(dir.db, &longer.known, RAWDB_OK);
    longer.unknown[4095 - sizeof(rawdb_options)] = 1;
    check_open(dir.db, &longer.known, RAWDB_E_INVALID_ARGUMENT);
    longer.unknown[4095 - sizeof(rawdb_options)] = 0;
    longer.known.struct_size = 4097;
    check_open(dir.db, &longer.known, RAWDB_E_INVALID_ARGUMENT);
    temp_dir_remove(&dir);
}

static void test_unknown_bits(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_options options = RAWDB_OPTIONS_INIT;
    struct stat info;
    unsigned bit;

    for (bit = 0; bit < 32; bit++) {
        if ((KNOWN_FLAGS >> bit & 1) == 0)
            check_open_flags(dir.db, UINT32_C(1) << bit, RAWDB_E_INVALID_ARGUMENT);
    }
    options.reserved = 1;
    check_open(dir.db, &options, RAWDB_E_INVALID_ARGUMENT);
    CHECK(stat(dir.db, &info) != 0); /* and nothing was created on the way */
    temp_dir_remove(&dir);
}

static void test_create_flags(void)
{
    temp_dir dir = temp_dir_new();
    struct stat info;

    check_open_flags(dir.db, RAWDB_OPEN_NO_CREATE, RAWDB_E_NOT_FOUND);
    CHECK(strstr(rawdb_last_error(), dir.db) != NULL);
    check_open_flags(dir.db, RAWDB_OPEN_READ_ONLY, RAWDB_E_NOT_FOUND);
    CHECK(stat(dir.db, &info) != 0);
    check_open_flags(dir.db, RAWDB_OPEN_CREATE_NEW, RAWDB_OK);
    check_open_flags(dir.db, RAWDB_OPEN_CREATE_NEW, RAWDB_E_ALREADY_EXISTS);
    CHECK(strstr(rawdb_last_error(), dir.db) != NULL);
    check_open_flags(dir.db, RAWDB_OPEN_NO_CREATE, RAWDB_OK);
    check_open_flags(dir.db, 0, RAWDB_OK);
    temp_dir_remove(&dir);

    /* An empty directory, such as mkdtemp makes, holds no database either. */
    dir = temp_dir_new();
    check_open_flags(dir.path, RAWDB_OPEN_NO_CREATE, RAWDB_E_NOT_FOUND);
    check_open_flags(dir.path, RAWDB_OPEN_READ_ONLY, RAWDB_E_NOT_FOUND);
    check_open_flags(dir.path, 0, RAWDB_OK);
    check_open_flags(dir.path, RAWDB_OPEN_NO_CREATE, RAWDB_OK);
    temp_dir_remove(&dir);
}

static void test_contradictions(void)
{
    temp_dir dir = temp_dir_new();
    struct stat info;
    check_open_flags(dir.db, RAWDB_OPEN_NO_CREATE | RAWDB_OPEN_CREATE_NEW,
                     RAWDB_E_INVALID_ARGUMENT);
    check_open_flags(dir.db, RAWDB_OPEN_READ_ONLY | RAWDB_OPEN_CREATE_NEW,
                     RAWDB_E_INVALID_ARGUMENT);
    CHECK(stat(dir.db, &info) != 0);
    temp_dir_remove(&dir);
}

static void test_locked(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, 0);

    check_open_flags(dir.db, 0, RAWDB_E_LOCKED);
    CHECK_MESSAGE(dir.db);
    check_open_flags(dir.db, RAWDB_OPEN_NO_CREATE, RAWDB_E_LOCKED);
    check_open_flags(dir.db, RAWDB_OPEN_GUARDED, RAWDB_E_LOCKED);
    check_open_flags(dir.db, RAWDB_OPEN_READ_ONLY, RAWDB_E_LOCKED);
    CHECK_OK(rawdb_flush(db)); /* the owner is not disturbed */
    CHECK_OK(rawdb_close(db));
    check_open_flags(dir.db, 0, RAWDB_OK);
    temp_dir_remove(&dir);
}

static void check_refuses_writes(rawdb *db, rawdb_region *region)
{
    static const uint64_t ZERO = 0;
    static const char *const NAMES[] = {"region"};
    rawdb_region *created = (rawdb_region *)(uintptr_t)0xA5A5;
    void *room = db;
    uint64_t offset = 7;
    uint8_t byte = 1;

    CHECK_STATUS(rawdb_region_create(db, "new", &created), RAWDB_E_READ_ONLY);
    CHECK(created == NULL);
    CHECK_STATUS(rawdb_region_append(region, &byte, 1, &offset), RAWDB_E_READ_ONLY);
    CHECK_EQ(offset, 0);
    CHECK_STATUS(rawdb_region_write_at(region, 0, &byte, 1), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_region_write_batch(region, &ZERO, &byte, 1, 1), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_region_truncate(region, 0), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_region_truncate_write(region, 0, &byte, 1), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_region_reserve(region, 1 << 20), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_region_append_begin(region, 1, &room), RAWDB_E_READ_ONLY);
    CHECK(room == NULL);
    CHECK_STATUS(rawdb_remove(db, "region"), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_rename(db, "region", "other", 0), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_retain(db, NAMES, 0), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_compact(db, NULL, NULL), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_reserve_file(db, 1 << 30), RAWDB_E_READ_ONLY);
    CHECK_STATUS(rawdb_reserve_regions(db, 100), RAWDB_E_READ_ONLY);
}

static void test_read_only(void)
{
    temp_dir dir = temp_dir_new();
    uint8_t *bytes = new_filled(100000, 2);
    rawdb *db = open_db(dir.db, 0), *second;
    rawdb_region *region = create_region(db, "region"), *same, *created = NULL;
    rawdb_view view;
    uint64_t before;

    CHECK_OK(rawdb_region_append(region, bytes, 100000, NULL));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    before = directory_state(dir.db);

    /* Any number of readers, no writer beside them. */
    db = open_db(dir.db, RAWDB_OPEN_READ_ONLY);
    second = open_db(dir.db, RAWDB_OPEN_READ_ONLY);
    check_open_flags(dir.db, 0, RAWDB_E_LOCKED);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_OK(rawdb_region_open(second, "region", &same));
    CHECK_CONTENT(region, bytes, 100000);
    CHECK_CONTENT(same, bytes, 100000);
    check_refuses_writes(db, region);
    CHECK_CONTENT(region, bytes, 100000);
    CHECK_EQ(get_stats(db).region_count, 1);
    CHECK_OK(rawdb_flush(db)); /* there is nothing to flush */
    CHECK_OK(rawdb_region_create(db, "region", &created)); /* there is nothing to create */
    rawdb_region_close(created);
    rawdb_region_close(same);
    CHECK_OK(rawdb_close(second));
    check_open_flags(dir.db, 0, RAWDB_E_LOCKED);

    /* A reader's view holds the lock as a writer's does. */
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    check_open_flags(dir.db, 0, RAWDB_E_LOCKED);
    CHECK(memcmp(view.data, bytes, 100000) == 0);
    rawdb_view_release(&view);

    /* Reading leaves no trace. */
    CHECK_EQ(directory_state(dir.db), before);
    check_open_flags(dir.db, 0, RAWDB_OK);
    free(bytes);
    temp_dir_remove(&dir);
}

/* With GUARDED a stray store of the host program meets a read-only page. */
static void test_guarded(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, RAWDB_OPEN_GUARDED);
    rawdb_region *region = create_region(db, "region");
    rawdb_view view;
    FILE *maps;
    char line[512];
    int found = 0;

    CHECK_OK(rawdb_region_append(region, "guarded", 7, NULL));
    CHECK_CONTENT(region, "guarded", 7);
    CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
    maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        uint64_t start, end;
        char access[5];
        CHECK(sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, access) == 3);
        if ((uintptr_t)view.data >= start && (uintptr_t)view.data < end) {
            CHECK(access[0] == 'r' && access[1] == '-');
            found = 1;
        }
    }
    fclose(maps);
    CHECK(found);
    rawdb_view_release(&view);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    /* The files are the same either way. */
    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_CONTENT(region, "guarded", 7);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    check_open_flags(dir.db, RAWDB_OPEN_GUARDED | RAWDB_OPEN_READ_ONLY, RAWDB_OK);
    temp_dir_remove(&dir);
}

static void test_min_file_len(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_options options = RAWDB_OPTIONS_INIT;
    rawdb *db;

    options.min_file_len = 100000001; /* no multiple of anything */
    CHECK_OK(rawdb_open(dir.db, &options, &db));
    CHECK(get_stats(db).file_len >= options.min_file_len);
    CHECK(get_stats(db).disk_bytes < 50000000); /* long, not full */
    CHECK_OK(rawdb_close(db));
    options.min_file_len = UINT64_MAX;
    check_open(dir.db, &options, RAWDB_E_TOO_LARGE);
    check_open_flags(dir.db, 0, RAWDB_OK);
    temp_dir_remove(&dir);
}

/* How much of the data file of a closed database has to be mapped: all of it, in pieces of 2 MiB. */
static uint64_t data_pieces(const char *path)
{
    struct stat info;
    char file[600];
    snprintf(file, sizeof file, "%s/data", path);
    CHECK(stat(file, &info) == 0);
    return ((uint64_t)info.st_size + (2 << 20) - 1) / (2 << 20) * (2 << 20);
}

/* A bound on address space is an error for whoever needs more, and only then. */
static void test_max_address_space(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_options options = RAWDB_OPTIONS_INIT, too_long = RAWDB_OPTIONS_INIT;
    uint8_t *bytes = new_filled(1 << 20, 3), *got = new_filled(1 << 20, 0);
    rawdb *db;
    rawdb_region *region;
    rawdb_status status = RAWDB_OK;
    uint64_t len = 0, before, i;

    options.max_address_space = 16 << 20;
    CHECK_OK(rawdb_open(dir.db, &options, &db));
    region = create_region(db, "region");
    while (len <= options.max_address_space) {
        uint64_t offset;
        status = rawdb_region_append(region, bytes, 1 << 20, &offset);
        if (status != RAWDB_OK) {
            CHECK_EQ(offset, 0);
            break;
        }
        CHECK_EQ(offset, len);
        len += 1 << 20;
    }
    CHECK_STATUS(status, RAWDB_E_NO_MEMORY);
    CHECK(len >= 1 << 20);
    CHECK_EQ(rawdb_region_len(region), len);
    CHECK_STATUS(rawdb_region_reserve(region, 32 << 20), RAWDB_E_NO_MEMORY);
    CHECK_STATUS(rawdb_reserve_file(db, 32 << 20), RAWDB_E_NO_MEMORY);
    CHECK(get_stats(db).file_len <= options.max_address_space);
    CHECK_OK(rawdb_region_write_at(region, 0, bytes, 4096));
    CHECK_OK(rawdb_flush(db));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    too_long = options;
    too_long.min_file_len = 32 << 20;
    check_open(dir.db, &too_long, RAWDB_E_NO_MEMORY);

    db = open_db(dir.db, 0);
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_EQ(rawdb_region_len(region), len);
    for (i = 0; i < len; i += 1 << 20) {
        CHECK_OK(rawdb_region_read(region, i, got, 1 << 20));
        CHECK(memcmp(got, bytes, 1 << 20) == 0);
    }
    for (; len < 32 << 20; len += 1 << 20)
        CHECK_OK(rawdb_region_append(region, bytes, 1 << 20, NULL));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    /* What is larger does not open, and is left as it is. */
    before = directory_state(dir.db);
    check_open(dir.db, &options, RAWDB_E_NO_MEMORY);
    CHECK_MESSAGE(dir.db);
    options.max_address_space = data_pieces(dir.db) - (2 << 20);
    check_open(dir.db, &options, RAWDB_E_NO_MEMORY);
    options.flags = RAWDB_OPEN_GUARDED;
    check_open(dir.db, &options, RAWDB_E_NO_MEMORY);
    options.flags = RAWDB_OPEN_READ_ONLY;
    check_open(dir.db, &options, RAWDB_E_NO_MEMORY);
    CHECK_EQ(directory_state(dir.db), before);
    options.max_address_space += 2 << 20;
    check_open(dir.db, &options, RAWDB_OK);
    options.flags = 0;
    CHECK_OK(rawdb_open(dir.db, &options, &db));
    CHECK_OK(rawdb_region_open(db, "region", &region));
    CHECK_OK(rawdb_region_read(region, len - (1 << 20), got, 1 << 20));
    CHECK(memcmp(got, bytes, 1 << 20) == 0);
    CHECK_OK(rawdb_region_write_at(region, 0, bytes + 1, 1));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(bytes);
    free(got);
    temp_dir_remove(&dir);

    /* The same for a small one. */
    dir = temp_dir_new();
    db = open_db(dir.db, 0);
    region = create_region(db, "region");
    CHECK_OK(rawdb_region_append(region, "small", 5, NULL));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    before = directory_state(dir.db);
    options.max_address_space = 4096;
    check_open(dir.db, &options, RAWDB_E_NO_MEMORY);
    CHECK_EQ(directory_state(dir.db), before);
    temp_dir_remove(&dir);
}

int main(void)
{
    RUN(test_struct_size);
    RUN(test_unknown_bits);
    RUN(test_create_flags);
    RUN(test_contradictions);
    RUN(test_locked);
    RUN(test_read_only);
    RUN(test_guarded);
    RUN(test_min_file_len);
    RUN(test_max_address_space);
    return 0;
}
