/* rawdb.hpp: handles are owned, errors come both ways, every function calls the right one. */
#include "check.h"

#include <rawdb.hpp>

#include <array>
#include <type_traits>

using namespace rawdb_cxx;

template <class T> constexpr bool MOVES_ONLY =
    std::is_nothrow_move_constructible<T>::value && std::is_nothrow_move_assignable<T>::value &&
    !std::is_copy_constructible<T>::value && !std::is_copy_assignable<T>::value;
static_assert(MOVES_ONLY<database>, "");
static_assert(MOVES_ONLY<region>, "");
static_assert(MOVES_ONLY<view>, "");
static_assert(MOVES_ONLY<append_buffer>, "");
static_assert(MOVES_ONLY<region_list>, "");

static temp_dir dir;

/* Under a name of its own, as `region` is also a function's parameter in C. */
static std::string text_of(const region &region)
{
    return std::string(region.view().text());
}

static void test_everything()
{
    auto db = database::open(dir.db);
    CHECK(bool(db) && db.get() != nullptr);
    auto one = db.create_region("one");
    CHECK_EQ(one.append("hello"), 0);
    CHECK_EQ(one.append(std::string(", world")), 5);
    CHECK(text_of(one) == "hello, world");
    one.write_at(0, "J");
    CHECK(text_of(one) == "Jello, world");
    one.truncate(6);
    CHECK(text_of(one) == "Jello,");
    one.truncate_write(1, std::string_view("umbo"));
    CHECK(text_of(one) == "Jumbo");

    const std::array<std::uint64_t, 2> offsets = {{3, 0}};
    one.write_batch({offsets.data(), offsets.size()}, "pyju", 2);
    CHECK(text_of(one) == "jumpy");
    char buffer[2];
    one.read(2, buffer, sizeof buffer);
    CHECK(memcmp(buffer, "mp", 2) == 0);
    CHECK_EQ(one.len(), 5);
    CHECK(one.name() == "one");
    one.reserve(10000);
    CHECK(one.info().len == 5 && one.info().reserved >= 10000);
    one.flush();

    /* Numbers are their bytes. */
    auto numbers = db.create_region(std::string("numbers"));
    const std::vector<std::uint32_t> written = {1, 2, 3};
    numbers.append(written);
    numbers.append(span<const std::uint32_t>(written.data(), 2));
    numbers.append({written.data(), 4});
    CHECK_EQ(numbers.len(), 6 * sizeof written[0]);
    view bytes = numbers.view(4, 8);
    span<const std::uint8_t> shown = bytes.bytes();
    CHECK(shown.size() == 8 && memcmp(shown.data(), &written[1], 8) == 0);
    CHECK_EQ(shown.subspan(4, 4)[0] + shown.subspan(4, 4)[3], 3);
    std::size_t sum = 0;
    for (std::uint8_t byte : bytes)
        sum += byte;
    CHECK(sum == 5 && !bytes.empty() && bytes[0] + bytes[3] == 2);

    append_buffer room = numbers.append_begin(100);
    CHECK_EQ(room.size(), 100);
    for (std::uint8_t &byte : room)
        byte = 7;
    room[0] = 8;
    room.commit(50);
    CHECK(room.data() == nullptr && numbers.len() == 74);
    CHECK(numbers.view(24)[0] == 8 && numbers.view(24)[49] == 7);
    {
        append_buffer abandoned = numbers.append_begin(10);
    }
    CHECK_EQ(numbers.append(""), 74); /* and so not busy */

    std::string names;
    for (const auto &entry : db.list())
        names += std::string(entry.name) + " " + std::to_string(entry.info.len) + " ";
    CHECK(names == "numbers 74 one 5 ");
    CHECK_EQ(db.stats().region_count, 2);
    db.reserve_regions(10);
    db.reserve_file(1 << 20);

    db.rename("one", "two");
    db.create_region("one");
    db.rename("two", "one", RAWDB_RENAME_REPLACE);
    CHECK(text_of(db.open_region("one")) == "jumpy");
    db.remove("numbers");
    db.create_region("three");
    db.retain(std::vector<std::string>{"one"});
    CHECK_EQ(db.stats().region_count, 1);
    db.retain(std::array<const char *, 1>{{"one"}});
    db.flush();
    db.compact();
    std::uint64_t most = 0;
    db.compact([&most](std::uint64_t, std::uint64_t total) {
        most = total;
        return true;
    });
    db.close();
    CHECK(!db);

    /* The view has outlived region and database. */
    CHECK_EQ(bytes.size(), 8);
}

static void test_ownership()
{
    auto db = database::open(dir.db);
    auto first = db.create_region("owned");
    first.append("owned");
    view a = first.view(), b = first.view(1);
    const std::uint8_t *at = a.data();
    b = std::move(a);
    CHECK(b.data() == at && a.data() == nullptr && a.empty());
    view &self = b;
    b = std::move(self);
    CHECK(b.text() == "owned");
    view c(std::move(b));
    CHECK(b.data() == nullptr && c.data() == at);
    b = std::move(c);
    rawdb_view raw = b.release();
    CHECK(b.empty() && raw.len == 5);
    b = view(raw);
    CHECK(b.get().data == at);

    append_buffer room = first.append_begin(5), other;
    other = std::move(room);
    CHECK(room.size() == 0 && other.size() == 5);
    rawdb_status status;
    first.append("x", status);
    CHECK_STATUS(status, RAWDB_E_BUSY);
    other = append_buffer(); /* abandons it */
    first.append("x");

    region second = std::move(first);
    CHECK(!first && second);
    CHECK_STATUS((first.flush(status), status), RAWDB_E_INVALID_ARGUMENT);
    CHECK(first.len() == 0 && first.name().empty());
    region third(second.release());
    CHECK_EQ(third.len(), 6);

    /* A destructor closes, so that it can be opened again. */
    b = view();
    database moved = std::move(db);
    moved = database::open((std::string(dir.path) + "/other").c_str());
    db = database::open(dir.db);
    CHECK(text_of(db.open_region("owned")) == "ownedx");
}

static void test_errors()
{
    auto db = database::open(dir.db);
    bool thrown = false;
    try {
        db.open_region("missing");
    } catch (const error &e) {
        thrown = true;
        CHECK_EQ(e.status() == RAWDB_E_NOT_FOUND, 1);
        CHECK(strstr(e.what(), "RAWDB_E_NOT_FOUND: ") == e.what());
        CHECK(strstr(e.what(), "\"missing\"") != nullptr);
        CHECK_EQ((uint64_t)e.os_error(), 0);
    }
    CHECK(thrown);
    try {
        thrown = false;
        database::open("/dev/null/db");
    } catch (const std::exception &e) {
        thrown = dynamic_cast<const error &>(e).os_error() != 0;
    }
    CHECK(thrown);

    rawdb_status status = RAWDB_DONE;
    region none = db.open_region("missing", status);
    CHECK(status == RAWDB_E_NOT_FOUND && !none);
    database second = database::open(dir.db, options(), status);
    CHECK(status == RAWDB_E_LOCKED && !second);
    CHECK(none.view(0, RAWDB_TO_END, status).empty());
    CHECK_STATUS(status, RAWDB_E_INVALID_ARGUMENT);
    CHECK_EQ(none.append_begin(5, status).size(), 0);
    CHECK_EQ(db.stats(status).region_count, 2);
    CHECK_STATUS(status, RAWDB_OK);

    region_list list = db.list(status);
    region_list::entry entry;
    unsigned count = 0;
    while (list.next(entry, status))
        count++;
    CHECK(count == 2 && status == RAWDB_DONE && entry.name == nullptr);
    CHECK(!list.next(entry)); /* the end is no error */

    /* A callback stops the work, or throws through it. */
    db.create_region("large").append(std::vector<char>(5000000));
    db.flush();
    db.remove("large");
    db.compact([](std::uint64_t, std::uint64_t) { return false; }, status);
    CHECK_STATUS(status, RAWDB_E_CANCELLED);
    try {
        thrown = false;
        db.compact([](std::uint64_t, std::uint64_t) -> bool { throw 5; });
    } catch (int value) {
        thrown = value == 5;
    }
    CHECK(thrown);
    db.compact();

    database nothing;
    nothing.flush(status);
    CHECK_STATUS(status, RAWDB_E_INVALID_ARGUMENT);
    nothing.close();
}

int main()
{
    dir = temp_dir_new();
    RUN(test_everything);
    RUN(test_ownership);
    RUN(test_errors);
    temp_dir_remove(&dir);
    return 0;
}
