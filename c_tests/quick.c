/* The life of a database: create, write, read, flush, remove, compact, close, and again. */
#include "check.h"

static const uint8_t ONE[] = {0, 1, 2, 3, 4};
static const uint8_t TWO[] = {5, 6, 7, 8, 9};

static void test_life_cycle(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = NULL;
    rawdb_region *region1, *region2, *gone = (rawdb_region *)&dir;
    rawdb_view view;
    uint64_t offset = 99;
    uint8_t buffer[5];

    CHECK_OK(rawdb_open(dir.db, NULL, &db));
    region1 = create_region(db, "region1");
    region2 = create_region(db, "region2");
    CHECK_OK(rawdb_region_append(region1, ONE, sizeof ONE, &offset));
    CHECK_EQ(offset, 0);
    CHECK_OK(rawdb_region_append(region1, ONE, 1, &offset));
    CHECK_EQ(offset, 5);
    CHECK_OK(rawdb_region_truncate(region1, 5));
    CHECK_OK(rawdb_region_write_at(region2, 0, TWO, sizeof TWO));
    CHECK_OK(rawdb_flush(db));
    CHECK_CONTENT(region1, ONE, sizeof ONE);
    CHECK_OK(rawdb_region_view(region2, 1, 3, &view));
    CHECK_EQ(view.len, 3);
    CHECK(memcmp(view.data, TWO + 1, 3) == 0);
    rawdb_view_release(&view);
    CHECK_OK(rawdb_region_read(region2, 0, buffer, sizeof buffer));
    CHECK(memcmp(buffer, TWO, sizeof TWO) == 0);

    CHECK_OK(rawdb_remove(db, "region1"));
    CHECK_STATUS(rawdb_region_append(region1, ONE, 1, NULL), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_open(db, "region1", &gone), RAWDB_E_NOT_FOUND);
    CHECK(gone == NULL);
    CHECK_OK(rawdb_compact(db, NULL, NULL));
    CHECK_CONTENT(region2, TWO, sizeof TWO);
    rawdb_region_close(region1);
    rawdb_region_close(region2);
    CHECK_OK(rawdb_close(db));

    /* Only what was there at the close is there again. */
    CHECK_OK(rawdb_open(dir.db, NULL, &db));
    CHECK_EQ(get_stats(db).region_count, 1);
    CHECK_OK(rawdb_region_open(db, "region2", &region2));
    CHECK_CONTENT(region2, TWO, sizeof TWO);
    rawdb_region_close(region2);
    CHECK_OK(rawdb_close(db));
    CHECK_EQ(open_files(&dir), 0);
    temp_dir_remove(&dir);
}

/* Closing flushes; whoever does not care about durability before that need not flush. */
static void test_close_flushes(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, 0);
    rawdb_region *region = create_region(db, "unflushed");
    uint8_t *bytes = new_filled(300000, 1);

    CHECK_OK(rawdb_region_append(region, bytes, 300000, NULL));
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));

    db = open_db(dir.db, RAWDB_OPEN_NO_CREATE);
    CHECK_OK(rawdb_region_open(db, "unflushed", &region));
    CHECK_CONTENT(region, bytes, 300000);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    free(bytes);
    temp_dir_remove(&dir);
}

static void test_closed_handles(void)
{
    temp_dir dir = temp_dir_new();
    rawdb *db = open_db(dir.db, 0);
    rawdb_region *region = create_region(db, "region");
    rawdb_view view;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    uint8_t byte = 1;

    CHECK_OK(rawdb_region_append(region, ONE, sizeof ONE, NULL));
    CHECK_OK(rawdb_close(db));
    CHECK_STATUS(rawdb_region_append(region, ONE, 1, NULL), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_write_at(region, 0, ONE, 1), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_truncate(region, 0), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_reserve(region, 8192), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_read(region, 0, &byte, 1), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_flush(region), RAWDB_E_CLOSED);
    CHECK_STATUS(rawdb_region_get_info(region, &info), RAWDB_E_CLOSED);
    memset(&view, 0xA5, sizeof view);
    CHECK_STATUS(rawdb_region_view(region, 0, 1, &view), RAWDB_E_CLOSED);
    CHECK(is_zero(&view, sizeof view));
    CHECK_EQ(rawdb_region_len(region), 0);

    /* The handle alone holds no lock. */
    db = open_db(dir.db, 0);
    CHECK_STATUS(rawdb_region_append(region, ONE, 1, NULL), RAWDB_E_CLOSED);
    rawdb_region_close(region);
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void test_version(void)
{
    char text[32];
    uint32_t number = rawdb_version_number();
    CHECK_EQ(number, RAWDB_VERSION_NUMBER);
    snprintf(text, sizeof text, "%u.%u.%u", (unsigned)(number / 1000000),
             (unsigned)(number / 1000 % 1000), (unsigned)(number % 1000));
    CHECK(strcmp(rawdb_version_string(), text) == 0);
}

static void test_status_texts(void)
{
    static const rawdb_status ALL[] = {
        RAWDB_OK,           RAWDB_DONE,           RAWDB_E_INVALID_ARGUMENT, RAWDB_E_NOT_FOUND,
        RAWDB_E_LOCKED,     RAWDB_E_OUT_OF_BOUNDS, RAWDB_E_ALREADY_EXISTS,  RAWDB_E_TOO_LARGE,
        RAWDB_E_BUSY,       RAWDB_E_INVALID_NAME, RAWDB_E_REMOVED,          RAWDB_E_CLOSED,
        RAWDB_E_READ_ONLY,  RAWDB_E_FORKED,       RAWDB_E_NO_SPACE,         RAWDB_E_NO_MEMORY,
        RAWDB_E_IO,         RAWDB_E_CORRUPT,      RAWDB_E_INCOMPATIBLE,     RAWDB_E_CANCELLED,
        RAWDB_E_PANIC,
    };
    const size_t count = sizeof ALL / sizeof ALL[0];
    rawdb_status status;
    size_t i, j;

    CHECK(strcmp(rawdb_last_error(), "") == 0);
    CHECK_EQ((uint64_t)rawdb_last_os_error(), 0);
    CHECK(strcmp(rawdb_status_name(RAWDB_OK), "RAWDB_OK") == 0);
    CHECK(strcmp(rawdb_status_name(RAWDB_DONE), "RAWDB_DONE") == 0);
    CHECK(strcmp(rawdb_status_name(RAWDB_E_LOCKED), "RAWDB_E_LOCKED") == 0);
    for (i = 0; i < count; i++) {
        CHECK(i < 2 ? ALL[i] >= 0 : ALL[i] < 0);
        for (j = 0; j < i; j++)
            CHECK(strcmp(rawdb_status_name(ALL[i]), rawdb_status_name(ALL[j])) != 0);
    }
    for (status = -64; status <= 64; status++) {
        CHECK(rawdb_status_name(status) != NULL && rawdb_status_name(status)[0] != '\0');
        CHECK(rawdb_status_message(status) != NULL && rawdb_status_message(status)[0] != '\0');
    }
    CHECK(rawdb_status_name(INT32_MIN) != NULL && rawdb_status_message(INT32_MAX) != NULL);
}

int main(void)
{
    RUN(test_status_texts); /* first: it looks at the messages before any failure */
    RUN(test_version);
    RUN(test_life_cycle);
    RUN(test_close_flushes);
    RUN(test_closed_handles);
    return 0;
}
