//! Writes to a database, opens it again, reads what it wrote, and meets an error.
const std = @import("std");
const c = @cImport(@cInclude("rawdb.h"));

fn check(status: c.rawdb_status) !void {
    if (status == c.RAWDB_OK) return;
    std.debug.print("{s}: {s}\n", .{ c.rawdb_status_name(status), c.rawdb_last_error() });
    return error.Rawdb;
}

pub fn main() !void {
    const path = if (std.os.argv.len > 1) std.os.argv[1] else "journal.rawdb";
    const out = std.io.getStdOut().writer();
    var db: ?*c.rawdb = null;
    var region: ?*c.rawdb_region = null;

    try check(c.rawdb_open(path, null, &db));
    try check(c.rawdb_region_create(db, "journal", &region));
    try check(c.rawdb_region_truncate_write(region, 0, "hello, ", 7));
    try check(c.rawdb_region_append(region, "world\n", 6, null));
    try check(c.rawdb_flush(db));
    c.rawdb_region_close(region);
    try check(c.rawdb_close(db));

    // The RAWDB_..._INIT macros are initialisers, which only C has.
    var options = std.mem.zeroInit(c.rawdb_options, .{ .flags = c.RAWDB_OPEN_NO_CREATE });
    options.struct_size = @sizeOf(c.rawdb_options);
    try check(c.rawdb_open(path, &options, &db));
    try check(c.rawdb_region_open(db, "journal", &region));
    var view = std.mem.zeroes(c.rawdb_view);
    try check(c.rawdb_region_view(region, 0, c.RAWDB_TO_END, &view));
    try out.writeAll(view.data[0..view.len]);
    c.rawdb_view_release(&view);
    c.rawdb_region_close(region);

    const status = c.rawdb_region_open(db, "missing", &region);
    try out.print("{s}: {s}\n", .{ c.rawdb_status_name(status), c.rawdb_last_error() });
    try check(c.rawdb_close(db));
}
