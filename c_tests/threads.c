/*
 * Everything at once: appenders, overwriters, viewers, a replacer, a creator, a flusher and a
 * compacter, each for a fixed number of rounds. Views must never change, a write shows wholly or
 * not at all, and what there is in the end is known.
 */
#include "check.h"

#include <pthread.h>
#include <sched.h>

/*
 * A region begins with BLOCKS blocks, each of which the overwriter rewrites with one word repeated;
 * behind them come the appender's records, each a function of its number.
 */
enum { REGIONS = 3, BLOCKS = 64, BLOCK = 1000, RECORD = 40, VERSION = 30000 };
#define HEAD ((uint64_t)BLOCKS * BLOCK)

static rawdb *db;
static rawdb_region *regions[REGIONS];
static uint64_t last_word[REGIONS][BLOCKS]; /* each region's by its one overwriter */
static unsigned rounds;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill_block(uint8_t *block, uint64_t word)
{
    size_t i;
    for (i = 0; i < BLOCK; i += 8)
        memcpy(block + i, &word, 8);
}

/* One word all through, or a write was seen in part. */
static uint64_t check_uniform(const uint8_t *bytes, size_t len)
{
    uint64_t first, word;
    size_t i;
    memcpy(&first, bytes, 8);
    for (i = 8; i < len; i += 8) {
        memcpy(&word, bytes + i, 8);
        CHECK(word == first);
    }
    return first;
}

static uint64_t checksum(const uint8_t *bytes, size_t len)
{
    uint64_t sum = 14695981039346656037u; /* FNV-1a */
    size_t i;
    for (i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static void check_records(const uint8_t *bytes, size_t len, unsigned region)
{
    uint8_t wanted[RECORD];
    size_t i;
    CHECK(len % RECORD == 0);
    for (i = 0; i < len / RECORD; i++) {
        fill(wanted, RECORD, (uint64_t)region << 32 | i);
        CHECK(memcmp(bytes + i * RECORD, wanted, RECORD) == 0);
    }
}

static void *append_records(void *argument)
{
    unsigned region = *(unsigned *)argument, i = 0, n, k;
    uint8_t records[RECORD * 100];
    uint64_t offset;
    void *room = NULL;
    while (i < rounds * 4) {
        /* one record, a hundred at once, or ten written in place */
        n = i % 7 == 0 ? 100 : i % 5 == 0 ? 10 : 1;
        for (k = 0; k < n; k++)
            fill(records + k * RECORD, RECORD, (uint64_t)region << 32 | (i + k));
        if (n == 10) {
            CHECK_OK(rawdb_region_append_begin(regions[region], sizeof records, &room));
            memcpy(room, records, n * RECORD);
            CHECK_OK(rawdb_region_append_end(regions[region], n * RECORD));
        } else {
            CHECK_OK(rawdb_region_append(regions[region], records, n * RECORD, &offset));
            CHECK_EQ(offset, HEAD + (uint64_t)i * RECORD);
        }
        i += n;
    }
    CHECK_EQ(rawdb_region_len(regions[region]), HEAD + (uint64_t)i * RECORD);
    return NULL;
}

static void *overwrite_blocks(void *argument)
{
    unsigned region = *(unsigned *)argument, i, block;
    uint64_t random = 88172645463325252u + region;
    uint8_t bytes[BLOCK];
    for (i = 0; i < rounds; i++) {
        rawdb_status status;
        uint64_t word = next_random(&random);
        block = (unsigned)(word % BLOCKS);
        fill_block(bytes, word);
        do {
            status = rawdb_region_write_at(regions[region], (uint64_t)block * BLOCK, bytes, BLOCK);
            if (status == RAWDB_E_BUSY) /* the appender is between append_begin and append_end */
                sched_yield();
        } while (status == RAWDB_E_BUSY);
        CHECK_OK(status);
        last_word[region][block] = word;
    }
    return NULL;
}

static void *view_regions(void *argument)
{
    unsigned region = *(unsigned *)argument, i;
    uint64_t random = 36243606992373u + region;
    for (i = 0; i < rounds; i++) {
        rawdb_view whole, part;
        uint64_t sum, block = next_random(&random) % BLOCKS;
        unsigned k;
        CHECK_OK(rawdb_region_view(regions[region], block * BLOCK, BLOCK, &part));
        sum = check_uniform(part.data, BLOCK);
        if (i % 8 == 0) {
            uint64_t whole_sum;
            CHECK_OK(rawdb_region_view(regions[region], 0, RAWDB_TO_END, &whole));
            CHECK(whole.len >= HEAD);
            whole_sum = checksum(whole.data, whole.len);
            for (k = 0; k < BLOCKS; k++)
                check_uniform(whole.data + k * BLOCK, BLOCK);
            check_records(whole.data + HEAD, whole.len - HEAD, region);
            sched_yield();
            CHECK(checksum(whole.data, whole.len) == whole_sum);
            rawdb_view_release(&whole);
        } else {
            sched_yield();
        }
        CHECK(check_uniform(part.data, BLOCK) == sum);
        rawdb_view_release(&part);
    }
    return NULL;
}

/* New versions aside, renamed over: whoever opens the name sees one version, whole. */
static void *replace_versions(void *argument)
{
    uint8_t *bytes = (uint8_t *)malloc(VERSION);
    uint64_t i;
    (void)argument;
    CHECK(bytes != NULL);
    for (i = 1; i <= rounds / 4; i++) {
        rawdb_region *aside = create_region(db, "aside");
        size_t k;
        for (k = 0; k < VERSION; k += 8)
            memcpy(bytes + k, &i, 8);
        CHECK_OK(rawdb_region_append(aside, bytes, VERSION, NULL));
        CHECK_OK(rawdb_rename(db, "aside", "current", RAWDB_RENAME_REPLACE));
        rawdb_region_close(aside);
    }
    free(bytes);
    return NULL;
}

static void *read_versions(void *argument)
{
    uint64_t last = 0, version;
    unsigned i;
    (void)argument;
    for (i = 0; i < rounds; i++) {
        rawdb_region *region = NULL;
        rawdb_view view;
        rawdb_status status;
        CHECK_OK(rawdb_region_open(db, "current", &region));
        status = rawdb_region_view(region, 0, RAWDB_TO_END, &view);
        if (status != RAWDB_E_REMOVED) { /* replaced since it was opened */
            CHECK_OK(status);
            CHECK_EQ(view.len, VERSION);
            version = check_uniform(view.data, view.len);
            CHECK(version >= last);
            last = version;
            sched_yield();
            CHECK(check_uniform(view.data, view.len) == version);
            rawdb_view_release(&view);
        }
        rawdb_region_close(region);
    }
    return NULL;
}

static void *create_and_remove(void *argument)
{
    uint8_t bytes[5000];
    unsigned i;
    (void)argument;
    for (i = 0; i < rounds / 4; i++) {
        char name[32];
        rawdb_region *region;
        rawdb_view view;
        snprintf(name, sizeof name, "passing%u", i % 3);
        region = create_region(db, name);
        fill(bytes, sizeof bytes, i);
        CHECK_OK(rawdb_region_truncate_write(region, 0, bytes, sizeof bytes));
        CHECK_OK(rawdb_region_view(region, 0, RAWDB_TO_END, &view));
        if (i % 2 == 0)
            CHECK_OK(rawdb_remove(db, name));
        rawdb_region_close(region);
        sched_yield();
        CHECK(view.len == sizeof bytes && memcmp(view.data, bytes, sizeof bytes) == 0);
        rawdb_view_release(&view);
    }
    return NULL;
}

static void *flush_all(void *argument)
{
    unsigned i;
    (void)argument;
    for (i = 0; i < rounds / 16; i++) {
        CHECK_OK(rawdb_flush(db));
        CHECK_OK(rawdb_region_flush(regions[i % REGIONS]));
        get_stats(db);
    }
    return NULL;
}

static void *compact_all(void *argument)
{
    unsigned i;
    (void)argument;
    for (i = 0; i < rounds / 64; i++) {
        rawdb_region_iter *iter = NULL;
        rawdb_region_info info = RAWDB_REGION_INFO_INIT;
        const char *name = NULL;
        CHECK_OK(rawdb_compact(db, NULL, NULL));
        CHECK_OK(rawdb_list(db, &iter));
        while (rawdb_region_iter_next(iter, &name, &info) == RAWDB_OK)
            CHECK(name != NULL && info.len <= info.reserved);
        rawdb_region_iter_free(iter);
    }
    return NULL;
}

static void check_end(void)
{
    unsigned region, block;
    for (region = 0; region < REGIONS; region++) {
        rawdb_view view;
        CHECK_OK(rawdb_region_view(regions[region], 0, RAWDB_TO_END, &view));
        CHECK(view.len >= HEAD + (uint64_t)rounds * 4 * RECORD);
        for (block = 0; block < BLOCKS; block++)
            CHECK(check_uniform(view.data + block * BLOCK, BLOCK) == last_word[region][block]);
        check_records(view.data + HEAD, view.len - HEAD, region);
        rawdb_view_release(&view);
    }
}

static void open_regions(void)
{
    unsigned region;
    char name[16];
    for (region = 0; region < REGIONS; region++) {
        snprintf(name, sizeof name, "region%u", region);
        regions[region] = create_region(db, name);
    }
}

static void close_all(void)
{
    unsigned region;
    for (region = 0; region < REGIONS; region++)
        rawdb_region_close(regions[region]);
    CHECK_OK(rawdb_close(db));
}

static void run(uint32_t flags)
{
    static void *(*const WORK[])(void *) = {append_records, overwrite_blocks, view_regions,
                                            replace_versions, read_versions, create_and_remove,
                                            flush_all, compact_all, compact_all};
    enum { PER_REGION = 3, WORKS = 9, THREADS = PER_REGION * REGIONS + WORKS - PER_REGION };
    static const unsigned NUMBERS[REGIONS] = {0, 1, 2};
    temp_dir dir = temp_dir_new();
    pthread_t threads[THREADS];
    uint8_t block_bytes[BLOCK];
    unsigned region, block, work, n = 0;
    rawdb_region *current;
    uint64_t *version = (uint64_t *)calloc(1, VERSION);

    CHECK(version != NULL);
    db = open_db(dir.db, flags);
    open_regions();
    for (region = 0; region < REGIONS; region++) {
        for (block = 0; block < BLOCKS; block++) {
            last_word[region][block] = region * BLOCKS + block;
            fill_block(block_bytes, last_word[region][block]);
            CHECK_OK(rawdb_region_append(regions[region], block_bytes, BLOCK, NULL));
        }
    }
    current = create_region(db, "current");
    CHECK_OK(rawdb_region_append(current, version, VERSION, NULL));
    rawdb_region_close(current);
    free(version);

    for (work = 0; work < WORKS; work++)
        for (region = 0; region < (work < PER_REGION ? REGIONS : 1); region++)
            CHECK(pthread_create(&threads[n++], NULL, WORK[work], (void *)&NUMBERS[region]) == 0);
    CHECK(n == THREADS);
    while (n > 0)
        CHECK(pthread_join(threads[--n], NULL) == 0);

    check_end();
    CHECK_EQ(get_stats(db).pinned_bytes, 0);
    close_all();
    db = open_db(dir.db, flags);
    open_regions();
    check_end();
    close_all();
    temp_dir_remove(&dir);
}

static void test_mapped(void)
{
    run(0);
}

static void test_guarded(void)
{
    run(RAWDB_OPEN_GUARDED);
}

/* Each thread has its own last error. */
static void *fail_quietly(void *argument)
{
    rawdb_region *region = NULL;
    (void)argument;
    CHECK(strcmp(rawdb_last_error(), "") == 0);
    CHECK_STATUS(rawdb_region_open(db, "of the thread", &region), RAWDB_E_NOT_FOUND);
    CHECK_MESSAGE("of the thread");
    return NULL;
}

static void test_last_error(void)
{
    temp_dir dir = temp_dir_new();
    rawdb_region *region = NULL;
    pthread_t thread;
    db = open_db(dir.db, 0);
    CHECK_STATUS(rawdb_region_open(db, "of main", &region), RAWDB_E_NOT_FOUND);
    CHECK(pthread_create(&thread, NULL, fail_quietly, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_MESSAGE("of main");
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

int main(void)
{
    rounds = 2000 / test_scale();
    RUN(test_mapped);
    RUN(test_guarded);
    RUN(test_last_error);
    return 0;
}
