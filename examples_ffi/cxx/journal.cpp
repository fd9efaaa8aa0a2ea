// Writes to a database, opens it again, reads what it wrote, and meets an error.
#include <iostream>

#include <rawdb.hpp>

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "journal.rawdb";
    try {
        {
            auto db = rawdb_cxx::database::open(path);
            auto region = db.create_region("journal");
            region.truncate_write(0, "hello, ");
            region.append("world\n");
            db.flush();
            db.close();
        }
        auto db = rawdb_cxx::database::open(path, rawdb_cxx::options(RAWDB_OPEN_NO_CREATE));
        auto region = db.open_region("journal");
        std::cout << region.view().text();

        // By status, ...
        rawdb_status status;
        db.open_region("missing", status);
        if (status != RAWDB_E_NOT_FOUND)
            return 1;
        // ... or by exception.
        db.open_region("missing");
    } catch (const rawdb_cxx::error &error) {
        std::cout << error.what() << '\n';
        return error.status() == RAWDB_E_NOT_FOUND ? 0 : 1;
    }
    return 1;
}
