/* Names: listing, opening, renaming, replacing, retaining, removing. */
#include "check.h"

static temp_dir dir;
static rawdb *db;

static void set_up(void)
{
    dir = temp_dir_new();
    db = open_db(dir.db, 0);
}

static void tear_down(void)
{
    CHECK_OK(rawdb_close(db));
    temp_dir_remove(&dir);
}

static void reopen(void)
{
    CHECK_OK(rawdb_close(db));
    db = open_db(dir.db, 0);
}

/* A region whose content is its first name. */
static rawdb_region *create_named(const char *name)
{
    rawdb_region *region = create_region(db, name);
    CHECK_OK(rawdb_region_append(region, name, strlen(name), NULL));
    return region;
}

static void check_region(const char *name, const char *content)
{
    rawdb_region *region = NULL;
    CHECK_OK(rawdb_region_open(db, name, &region));
    CHECK_CONTENT(region, content, strlen(content));
    rawdb_region_close(region);
}

static void check_missing(const char *name)
{
    rawdb_region *region = NULL;
    CHECK_STATUS(rawdb_region_open(db, name, &region), RAWDB_E_NOT_FOUND);
    CHECK_MESSAGE(name);
}

/* The names in order, each followed by a space. */
static void check_list(const char *wanted)
{
    char got[1024] = "";
    rawdb_region_iter *iter = NULL;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    const char *name = NULL;
    rawdb_status status;

    CHECK_OK(rawdb_list(db, &iter));
    while ((status = rawdb_region_iter_next(iter, &name, &info)) == RAWDB_OK) {
        strcat(got, name);
        strcat(got, " ");
    }
    CHECK_STATUS(status, RAWDB_DONE);
    rawdb_region_iter_free(iter);
    if (strcmp(got, wanted) != 0)
        check_fail(__FILE__, __LINE__, got, wanted);
}

static void check_removed(rawdb_region *region)
{
    static const uint64_t ZERO = 0;
    uint8_t byte = 0;
    uint64_t offset = 99;
    void *room = &byte;
    rawdb_view view;
    rawdb_region_info info;

    CHECK_STATUS(rawdb_region_append(region, "x", 1, &offset), RAWDB_E_REMOVED);
    CHECK_EQ(offset, 0);
    CHECK_STATUS(rawdb_region_write_at(region, 0, "x", 1), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_write_batch(region, &ZERO, "x", 1, 1), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_truncate(region, 0), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_truncate_write(region, 0, "x", 1), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_append_begin(region, 1, &room), RAWDB_E_REMOVED);
    CHECK(room == NULL);
    CHECK_STATUS(rawdb_region_reserve(region, 1), RAWDB_E_REMOVED);
    CHECK_STATUS(rawdb_region_read(region, 0, &byte, 1), RAWDB_E_REMOVED);
    memset(&view, 0xA5, sizeof view);
    CHECK_STATUS(rawdb_region_view(region, 0, 0, &view), RAWDB_E_REMOVED);
    CHECK(is_zero(&view, sizeof view));
    memset(&info, 0xA5, sizeof info);
    info.struct_size = sizeof info;
    CHECK_STATUS(rawdb_region_get_info(region, &info), RAWDB_E_REMOVED);
    CHECK(is_zero(&info.start, sizeof info - sizeof info.struct_size));
    CHECK_STATUS(rawdb_region_flush(region), RAWDB_E_REMOVED);
    CHECK_EQ(rawdb_region_len(region), 0);
}

static void test_list(void)
{
    static const char *const CREATED[] = {"b", "a", "\xc3\xa9", "aa", "B", "a b", "z", "a/b"};
    static const char *const SORTED[] = {"B", "a", "a b", "a/b", "aa", "b", "z", "\xc3\xa9"};
    enum { COUNT = 8 };
    rawdb_region *region = NULL;
    rawdb_region_iter *iter = NULL, *second = NULL;
    rawdb_region_info info = RAWDB_REGION_INFO_INIT, own;
    const char *names[COUNT], *name;
    size_t i;

    set_up();
    check_list("");
    for (i = 0; i < COUNT; i++)
        rawdb_region_close(create_named(CREATED[i]));
    CHECK_OK(rawdb_list(db, &iter));
    CHECK_OK(rawdb_list(db, &second));
    for (i = 0; i < COUNT; i++) {
        CHECK_OK(rawdb_region_iter_next(iter, &names[i], &info));
        CHECK_OK(rawdb_region_open(db, names[i], &region));
        own = get_info(region);
        CHECK(memcmp(&info, &own, sizeof info) == 0);
        rawdb_region_close(region);
        CHECK_EQ(info.len, strlen(names[i]));
    }
    for (i = 0; i < 2; i++) { /* the end stays the end */
        name = "garbage";
        memset(&info, 0xA5, sizeof info);
        info.struct_size = sizeof info;
        CHECK_STATUS(rawdb_region_iter_next(iter, &name, &info), RAWDB_DONE);
        CHECK(name == NULL);
        CHECK(is_zero(&info.start, sizeof info - sizeof info.struct_size));
    }
    /* A snapshot: what happens meanwhile does not show; not even a close takes the names away. */
    CHECK_OK(rawdb_remove(db, "z"));
    CHECK_OK(rawdb_rename(db, "a", "c", 0));
    rawdb_region_close(create_named("new"));
    CHECK_OK(rawdb_close(db));
    for (i = 0; i < COUNT; i++) {
        CHECK_OK(rawdb_region_iter_next(second, &name, &info));
        CHECK(strcmp(name, SORTED[i]) == 0);
        CHECK(strcmp(names[i], SORTED[i]) == 0);
    }
    rawdb_region_iter_free(iter);
    CHECK(strcmp(name, SORTED[COUNT - 1]) == 0);
    rawdb_region_iter_free(second);
    db = open_db(dir.db, 0);
    check_list("B a b a/b aa b c new \xc3\xa9 ");
    tear_down();
}

static void test_create_opens(void)
{
    rawdb_region *first, *second, *third = NULL;
    set_up();
    first = create_region(db, "region");
    CHECK_OK(rawdb_region_append(first, "abc", 3, NULL));
    second = create_region(db, "region");
    CHECK_OK(rawdb_region_open(db, "region", &third));
    CHECK_CONTENT(second, "abc", 3);
    CHECK_OK(rawdb_region_append(second, "def", 3, NULL));
    CHECK_CONTENT(first, "abcdef", 6);
    CHECK_CONTENT(third, "abcdef", 6);
    rawdb_region_close(first);
    CHECK_OK(rawdb_region_append(third, "g", 1, NULL));
    CHECK_CONTENT(second, "abcdefg", 7);
    rawdb_region_close(second);
    rawdb_region_close(third);
    check_list("region ");
    tear_down();
}

static void test_rename(void)
{
    rawdb_region *region, *other;
    char name[16];
    set_up();
    region = create_named("from");
    other = create_named("taken");
    CHECK_STATUS(rawdb_rename(db, "missing", "to", 0), RAWDB_E_NOT_FOUND);
    CHECK_MESSAGE("missing");
    CHECK_STATUS(rawdb_rename(db, "missing", "taken", RAWDB_RENAME_REPLACE), RAWDB_E_NOT_FOUND);
    CHECK_STATUS(rawdb_rename(db, "from", "taken", 0), RAWDB_E_ALREADY_EXISTS);
    CHECK_MESSAGE("taken");
    check_list("from taken ");
    check_region("from", "from");
    check_region("taken", "taken");

    CHECK_OK(rawdb_rename(db, "from", "to", 0));
    check_list("taken to ");
    check_missing("from");
    check_region("to", "from");
    CHECK_EQ(rawdb_region_name(region, name, sizeof name), 2); /* the handle goes along */
    CHECK(strcmp(name, "to") == 0);
    CHECK_OK(rawdb_region_append(region, "+", 1, NULL));
    check_region("to", "from+");

    /* The old name is free. */
    rawdb_region_close(create_named("from"));
    check_region("from", "from");
    reopen();
    check_list("from taken to ");
    check_region("to", "from+");
    check_region("from", "from");
    rawdb_region_close(region);
    rawdb_region_close(other);
    tear_down();
}

static void test_rename_onto_itself(void)
{
    rawdb_region *region;
    set_up();
    region = create_named("same");
    /* As rename(2) has it. */
    CHECK_OK(rawdb_rename(db, "same", "same", RAWDB_RENAME_REPLACE));
    check_list("same ");
    CHECK_CONTENT(region, "same", 4);
    check_region("same", "same");
    rawdb_region_close(region);
    tear_down();
}

static void test_replace(void)
{
    rawdb_region *fresh, *old;
    rawdb_view view;
    set_up();
    old = create_named("current");
    fresh = create_named("aside");
    CHECK_OK(rawdb_region_view(old, 0, RAWDB_TO_END, &view));
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_rename(db, "aside", "current", RAWDB_RENAME_REPLACE));
    check_list("current ");
    check_region("current", "aside");
    CHECK_CONTENT(fresh, "aside", 5);
    check_removed(old);
    CHECK(view.len == 7 && memcmp(view.data, "current", 7) == 0);
    rawdb_view_release(&view);

    /* Where there is nothing to replace it is a plain rename. */
    CHECK_OK(rawdb_rename(db, "current", "free", RAWDB_RENAME_REPLACE));
    check_list("free ");
    reopen();
    check_list("free ");
    check_region("free", "aside");
    rawdb_region_close(fresh);
    rawdb_region_close(old);
    tear_down();
}

static void test_swap(void)
{
    rawdb_region *a, *b;
    set_up();
    a = create_named("a");
    b = create_named("b");
    CHECK_OK(rawdb_rename(db, "a", "c", 0));
    CHECK_OK(rawdb_rename(db, "b", "a", 0));
    CHECK_OK(rawdb_rename(db, "c", "b", 0));
    check_region("a", "b");
    check_region("b", "a");
    reopen();
    check_region("a", "b");
    check_region("b", "a");
    rawdb_region_close(a);
    rawdb_region_close(b);
    tear_down();
}

static void test_remove(void)
{
    rawdb_region *region, *same, *again;
    set_up();
    region = create_named("region");
    same = create_region(db, "region");
    CHECK_STATUS(rawdb_remove(db, "missing"), RAWDB_E_NOT_FOUND);
    CHECK_MESSAGE("missing");
    CHECK_OK(rawdb_remove(db, "region"));
    check_missing("region");
    check_removed(region);
    check_removed(same);
    CHECK_STATUS(rawdb_remove(db, "region"), RAWDB_E_NOT_FOUND);

    /* The name may come back; the old handles do not. */
    again = create_region(db, "region");
    CHECK_EQ(rawdb_region_len(again), 0);
    CHECK_OK(rawdb_region_append(again, "again", 5, NULL));
    check_removed(region);
    check_region("region", "again");
    CHECK_OK(rawdb_flush(db));
    CHECK_OK(rawdb_remove(db, "region"));
    reopen();
    check_list("");
    rawdb_region_close(region);
    rawdb_region_close(same);
    rawdb_region_close(again);
    tear_down();
}

static void test_retain(void)
{
    static const char *const KEPT[] = {"d", "b", "d", "missing"};
    rawdb_region *a, *b;
    set_up();
    a = create_named("a");
    b = create_named("b");
    rawdb_region_close(create_named("c"));
    rawdb_region_close(create_named("d"));
    CHECK_OK(rawdb_retain(db, KEPT, 4));
    check_list("b d ");
    check_removed(a);
    CHECK_CONTENT(b, "b", 1);
    reopen();
    check_list("b d ");
    CHECK_OK(rawdb_retain(db, NULL, 0));
    check_list("");
    reopen();
    check_list("");
    rawdb_region_close(a);
    rawdb_region_close(b);
    tear_down();
}

static void test_many_regions(void)
{
    enum { COUNT = 300 };
    unsigned round, i;
    char name[16];
    set_up();
    CHECK_OK(rawdb_reserve_regions(db, COUNT));
    for (i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "region %03u", i * 7 % COUNT);
        rawdb_region_close(create_named(name));
    }
    for (round = 0; round < 2; round++) {
        rawdb_region_iter *iter = NULL;
        rawdb_region_info info = RAWDB_REGION_INFO_INIT;
        const char *got = NULL;
        CHECK_EQ(get_stats(db).region_count, COUNT);
        CHECK_EQ(get_stats(db).live_bytes, COUNT * 10);
        CHECK_OK(rawdb_list(db, &iter));
        for (i = 0; i < COUNT; i++) {
            snprintf(name, sizeof name, "region %03u", i);
            CHECK_OK(rawdb_region_iter_next(iter, &got, &info));
            CHECK(strcmp(got, name) == 0);
            check_region(name, name);
        }
        CHECK_STATUS(rawdb_region_iter_next(iter, &got, &info), RAWDB_DONE);
        rawdb_region_iter_free(iter);
        reopen();
    }
    tear_down();
}

int main(void)
{
    RUN(test_list);
    RUN(test_create_opens);
    RUN(test_rename);
    RUN(test_rename_onto_itself);
    RUN(test_replace);
    RUN(test_swap);
    RUN(test_remove);
    RUN(test_retain);
    RUN(test_many_regions);
    return 0;
}
