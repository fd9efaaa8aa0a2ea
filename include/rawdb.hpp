/*
 * rawdb for C++17 and later: handles that close themselves, and errors as exceptions or as
 * statuses. Nothing here but inline calls of the functions in rawdb.h, which is the manual of what
 * they do; a member function documented here by one line does what the function of that name there
 * does. The library exports no C++. The namespace is rawdb_cxx, as `rawdb` is a type of C.
 *
 *
 * QUICK EXAMPLE
 *
 *     #include <rawdb.hpp>
 *     #include <iostream>
 *
 *     int main() {
 *         try {
 *             auto db = rawdb_cxx::database::open("example.rawdb");
 *             auto log = db.create_region("log");
 *             log.append("hello\n");
 *             db.flush();
 *             std::cout << log.view().text();
 *             db.close();
 *         } catch (const rawdb_cxx::error &error) {
 *             std::cerr << error.what() << '\n';
 *             return 1;
 *         }
 *     }
 *
 *
 * ERRORS
 *
 * A function that can fail has a last parameter of type rawdb_cxx::outcome. Without an argument
 * for it, a failure is thrown as rawdb_cxx::error. With a rawdb_status, it is put there, and
 * nothing is thrown; what the function returns is then empty, or 0:
 *
 *     rawdb_status status;
 *     auto db = rawdb_cxx::database::open("example.rawdb", rawdb_cxx::options(), status);
 *     if (status != RAWDB_OK) std::cerr << rawdb_last_error() << '\n';
 *
 * With -fno-exceptions use the second form: a failure in the first one calls std::abort(). Nothing
 * else is thrown from here, but for std::bad_alloc by name(), retain() and the making of an error,
 * and what functions of the caller's throw.
 *
 *
 * OWNERSHIP
 *
 * database, region, view, append_buffer and region_list own what their name says. They can be moved
 * and not copied, and their destructors close, release, abandon or free it. An object that has been
 * moved from, or made without arguments, owns nothing: its functions answer as those of rawdb.h
 * answer NULL.
 *
 * They may be destroyed in any order, with one exception: an append_buffer before the region that
 * gave it. The destructor of a database flushes, but cannot tell how that went: call close(), or
 * flush() before.
 *
 * Threads: as rawdb.h says about the handles. Different objects do not share anything.
 */
#ifndef RAWDB_HPP
#define RAWDB_HPP

#include <rawdb.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__cpp_exceptions)
#include <exception>
#include <stdexcept>
#endif

#if __cplusplus >= 202002L
#include <span>
#endif

namespace rawdb_cxx {

#if __cplusplus >= 202002L

template <class T> using span = std::span<T>;

#else

/* What std::span is in C++20, as far as needed: a pointer and a length. */
template <class T> class span {
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using iterator = T *;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
    constexpr span subspan(std::size_t offset, std::size_t count) const noexcept
    {
        return span(data_ + offset, count);
    }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

#endif

#if defined(__cpp_exceptions)

/* A failure: its status, and the thread's last error as it was then. */
class error : public std::runtime_error {
public:
    explicit error(rawdb_status status)
        : std::runtime_error(std::string(rawdb_status_name(status)) + ": " + rawdb_last_error()),
          status_(status), os_error_(rawdb_last_os_error())
    {
    }

    rawdb_status status() const noexcept { return status_; }
    /* errno; 0 when the operating system had no part in it. */
    int os_error() const noexcept { return os_error_; }

private:
    rawdb_status status_;
    int os_error_;
};

#endif

/* Where the status of a call goes: see ERRORS. Not for variables. */
class outcome {
public:
    outcome() noexcept : status_(nullptr) {}
    outcome(rawdb_status &status) noexcept : status_(&status) {}

    /* Whether the call has succeeded, if this returns. */
    bool operator()(rawdb_status status) const
    {
        if (status_ != nullptr)
            *status_ = status;
        else if (status < 0)
#if defined(__cpp_exceptions)
            throw error(status);
#else
            std::abort();
#endif
        return status == RAWDB_OK;
    }

private:
    rawdb_status *status_;
};

/* A string that ends with NUL, as the C interface takes it. For parameters. */
class c_string {
public:
    c_string(const char *text) noexcept : text_(text) {}
    c_string(const std::string &text) noexcept : text_(text.c_str()) {}

    const char *get() const noexcept { return text_; }

private:
    const char *text_;
};

/*
 * Bytes to be written: of text (without the NUL), of a std::array, vector, string or span of
 * numbers or other types that are their bytes, or { pointer, number of bytes }. For parameters.
 */
class const_buffer {
public:
    const_buffer(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    const_buffer(const char *text) noexcept : data_(text), size_(std::string_view(text).size()) {}

    template <class C,
              class T = std::remove_pointer_t<decltype(std::declval<const C &>().data())>,
              class = std::enable_if_t<std::is_trivially_copyable<T>::value>>
    const_buffer(const C &values) noexcept
        : data_(values.data()), size_(values.size() * sizeof(T))
    {
    }

    const void *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    const void *data_;
    std::size_t size_;
};

/* The defaults, with the RAWDB_OPEN_* flags given. */
inline rawdb_options options(std::uint32_t flags = 0) noexcept
{
    rawdb_options options = RAWDB_OPTIONS_INIT;
    options.flags = flags;
    return options;
}

/* Bytes of a region that do not change: rawdb_view. */
class view {
public:
    view() noexcept = default;
    explicit view(const rawdb_view &raw) noexcept : view_(raw) {}
    view(view &&other) noexcept : view_(other.release()) {}
    view &operator=(view &&other) noexcept
    {
        if (this != &other) {
            rawdb_view_release(&view_);
            view_ = other.release();
        }
        return *this;
    }
    ~view() { rawdb_view_release(&view_); }

    const std::uint8_t *data() const noexcept { return view_.data; }
    std::size_t size() const noexcept { return view_.len; }
    bool empty() const noexcept { return view_.len == 0; }
    const std::uint8_t *begin() const noexcept { return view_.data; }
    const std::uint8_t *end() const noexcept { return view_.data + view_.len; }
    std::uint8_t operator[](std::size_t index) const noexcept { return view_.data[index]; }

    /* The bytes, as long as this view is there. */
    span<const std::uint8_t> bytes() const noexcept { return {view_.data, view_.len}; }
    std::string_view text() const noexcept
    {
        return {reinterpret_cast<const char *>(view_.data), view_.len};
    }

    const rawdb_view &get() const noexcept { return view_; }
    /* The caller has to release what this returns. */
    rawdb_view release() noexcept { return std::exchange(view_, rawdb_view RAWDB_VIEW_INIT); }

private:
    rawdb_view view_ = RAWDB_VIEW_INIT;
};

/*
 * Room at the end of a region, to be filled in place: rawdb_region_append_begin(). commit() appends
 * it; without that, the destructor abandons it.
 */
class append_buffer {
public:
    append_buffer() noexcept = default;
    append_buffer(rawdb_region *region, void *data, std::size_t size) noexcept
        : region_(region), data_(static_cast<std::uint8_t *>(data)), size_(size)
    {
    }
    append_buffer(append_buffer &&other) noexcept
        : region_(std::exchange(other.region_, nullptr)),
          data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0))
    {
    }
    append_buffer &operator=(append_buffer &&other) noexcept
    {
        append_buffer old(std::move(*this));
        region_ = std::exchange(other.region_, nullptr);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }
    ~append_buffer()
    {
        if (region_ != nullptr && rawdb_region_append_end(region_, 0) != RAWDB_OK) {
            /* In a forked child, or after the database has been closed: nothing to abandon. */
        }
    }

    std::uint8_t *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::uint8_t *begin() const noexcept { return data_; }
    std::uint8_t *end() const noexcept { return data_ + size_; }
    std::uint8_t &operator[](std::size_t index) const noexcept { return data_[index]; }
    span<std::uint8_t> bytes() const noexcept { return {data_, size_}; }

    /* Appends the first `written` bytes: rawdb_region_append_end(). When it fails, the room is as
     * it was, and it can be tried again. */
    void commit(std::size_t written, outcome out = {})
    {
        if (out(rawdb_region_append_end(region_, written))) {
            region_ = nullptr;
            data_ = nullptr;
            size_ = 0;
        }
    }

private:
    rawdb_region *region_ = nullptr;
    std::uint8_t *data_ = nullptr;
    std::size_t size_ = 0;
};

/* A handle of a region: rawdb_region. */
class region {
public:
    region() noexcept = default;
    explicit region(rawdb_region *handle) noexcept : handle_(handle) {}

    /* rawdb_region_append(): returns where the first byte is. */
    std::uint64_t append(const_buffer data, outcome out = {})
    {
        std::uint64_t offset = 0;
        out(rawdb_region_append(get(), data.data(), data.size(), &offset));
        return offset;
    }

    /* rawdb_region_write_at() */
    void write_at(std::uint64_t offset, const_buffer data, outcome out = {})
    {
        out(rawdb_region_write_at(get(), offset, data.data(), data.size()));
    }

    /* rawdb_region_write_batch(): `offsets.size()` values of `value_len` bytes each, which `values`
     * must have. */
    void write_batch(span<const std::uint64_t> offsets, const void *values, std::size_t value_len,
                     outcome out = {})
    {
        out(rawdb_region_write_batch(get(), offsets.data(), values, value_len, offsets.size()));
    }

    /* rawdb_region_truncate() */
    void truncate(std::uint64_t len, outcome out = {}) { out(rawdb_region_truncate(get(), len)); }

    /* rawdb_region_truncate_write() */
    void truncate_write(std::uint64_t offset, const_buffer data, outcome out = {})
    {
        out(rawdb_region_truncate_write(get(), offset, data.data(), data.size()));
    }

    /* rawdb_region_append_begin() */
    append_buffer append_begin(std::size_t len, outcome out = {})
    {
        void *data = nullptr;
        if (!out(rawdb_region_append_begin(get(), len, &data)))
            return {};
        return {get(), data, len};
    }

    /* rawdb_region_reserve() */
    void reserve(std::uint64_t capacity, outcome out = {})
    {
        out(rawdb_region_reserve(get(), capacity));
    }

    /* rawdb_region_read() */
    void read(std::uint64_t offset, void *buffer, std::size_t len, outcome out = {}) const
    {
        out(rawdb_region_read(get(), offset, buffer, len));
    }

    /* rawdb_region_view() */
    rawdb_cxx::view view(std::uint64_t offset = 0, std::uint64_t len = RAWDB_TO_END,
                     outcome out = {}) const
    {
        rawdb_view view = RAWDB_VIEW_INIT;
        out(rawdb_region_view(get(), offset, len, &view));
        return rawdb_cxx::view(view);
    }

    /* rawdb_region_len() */
    std::uint64_t len() const noexcept { return rawdb_region_len(get()); }

    /* rawdb_region_name() */
    std::string name() const
    {
        char buffer[RAWDB_MAX_NAME_LEN + 1];
        std::size_t len = rawdb_region_name(get(), buffer, sizeof buffer);
        return std::string(buffer, len);
    }

    /* rawdb_region_get_info() */
    rawdb_region_info info(outcome out = {}) const
    {
        rawdb_region_info info = RAWDB_REGION_INFO_INIT;
        out(rawdb_region_get_info(get(), &info));
        return info;
    }

    /* rawdb_region_flush() */
    void flush(outcome out = {}) { out(rawdb_region_flush(get())); }

    explicit operator bool() const noexcept { return handle_ != nullptr; }
    rawdb_region *get() const noexcept { return handle_.get(); }
    /* The caller has to close what this returns. */
    rawdb_region *release() noexcept { return handle_.release(); }

private:
    struct closer {
        void operator()(rawdb_region *region) const noexcept { rawdb_region_close(region); }
    };
    std::unique_ptr<rawdb_region, closer> handle_;
};

/* What there was of regions when database::list() was called, sorted by name: rawdb_region_iter. */
class region_list {
public:
    struct entry {
        /* As long as the list is there. */
        const char *name = nullptr;
        rawdb_region_info info = RAWDB_REGION_INFO_INIT;
    };

    region_list() noexcept = default;
    explicit region_list(rawdb_region_iter *handle) noexcept : handle_(handle) {}

    /* rawdb_region_iter_next(): false after the last one. */
    bool next(entry &next, outcome out = {})
    {
        return out(rawdb_region_iter_next(handle_.get(), &next.name, &next.info));
    }

    /* For a range-based for loop. A list can be gone through once. */
    class iterator {
    public:
        explicit iterator(region_list *list) : list_(list), entry_() { ++*this; }
        const entry &operator*() const noexcept { return entry_; }
        const entry *operator->() const noexcept { return &entry_; }
        iterator &operator++()
        {
            if (list_ != nullptr && !list_->next(entry_))
                list_ = nullptr;
            return *this;
        }
        bool operator!=(const iterator &other) const noexcept { return list_ != other.list_; }

    private:
        region_list *list_;
        entry entry_;
    };

    iterator begin() { return iterator(this); }
    iterator end() { return iterator(nullptr); }

private:
    struct closer {
        void operator()(rawdb_region_iter *iter) const noexcept { rawdb_region_iter_free(iter); }
    };
    std::unique_ptr<rawdb_region_iter, closer> handle_;
};

/* An open database: rawdb. */
class database {
public:
    database() noexcept = default;
    explicit database(rawdb *handle) noexcept : handle_(handle) {}

    /* rawdb_open() */
    static database open(c_string path, const rawdb_options &options = rawdb_cxx::options(),
                         outcome out = {})
    {
        rawdb *db = nullptr;
        out(rawdb_open(path.get(), &options, &db));
        return database(db);
    }

    /* rawdb_close(): it is closed in any case. */
    void close(outcome out = {}) { out(rawdb_close(handle_.release())); }

    /* rawdb_flush() */
    void flush(outcome out = {}) { out(rawdb_flush(get())); }

    /* rawdb_compact() */
    void compact(outcome out = {}) { out(rawdb_compact(get(), nullptr, nullptr)); }

    /*
     * rawdb_compact(), where progress(done, total) is called before each step, and stops the work
     * by returning false. What it throws stops it too, and is thrown again from here.
     */
    template <class Progress,
              class = std::enable_if_t<std::is_convertible<
                  std::invoke_result_t<Progress &, std::uint64_t, std::uint64_t>, bool>::value>>
    void compact(Progress &&progress, outcome out = {})
    {
        caller<Progress> call{progress};
        rawdb_status status = rawdb_compact(get(), caller<Progress>::step, &call);
#if defined(__cpp_exceptions)
        if (call.thrown)
            std::rethrow_exception(call.thrown);
#endif
        out(status);
    }

    /* rawdb_reserve_file() */
    void reserve_file(std::uint64_t min_len, outcome out = {})
    {
        out(rawdb_reserve_file(get(), min_len));
    }

    /* rawdb_reserve_regions() */
    void reserve_regions(std::uint64_t count, outcome out = {})
    {
        out(rawdb_reserve_regions(get(), count));
    }

    /* rawdb_get_stats() */
    rawdb_stats stats(outcome out = {}) const
    {
        rawdb_stats stats = RAWDB_STATS_INIT;
        out(rawdb_get_stats(get(), &stats));
        return stats;
    }

    /* rawdb_remove() */
    void remove(c_string name, outcome out = {}) { out(rawdb_remove(get(), name.get())); }

    /* rawdb_rename(), with flags 0 or RAWDB_RENAME_REPLACE */
    void rename(c_string from, c_string to, std::uint32_t flags = 0, outcome out = {})
    {
        out(rawdb_rename(get(), from.get(), to.get(), flags));
    }

    /* rawdb_retain(), with a range of std::string or of const char * */
    template <class Names> void retain(const Names &names, outcome out = {})
    {
        std::vector<const char *> pointers;
        for (const auto &name : names)
            pointers.push_back(c_string(name).get());
        out(rawdb_retain(get(), pointers.data(), pointers.size()));
    }

    /* rawdb_list() */
    region_list list(outcome out = {}) const
    {
        rawdb_region_iter *iter = nullptr;
        out(rawdb_list(get(), &iter));
        return region_list(iter);
    }

    /* rawdb_region_create(): opens it if it exists. */
    region create_region(c_string name, outcome out = {})
    {
        rawdb_region *handle = nullptr;
        out(rawdb_region_create(get(), name.get(), &handle));
        return region(handle);
    }

    /* rawdb_region_open() */
    region open_region(c_string name, outcome out = {}) const
    {
        rawdb_region *handle = nullptr;
        out(rawdb_region_open(get(), name.get(), &handle));
        return region(handle);
    }

    explicit operator bool() const noexcept { return handle_ != nullptr; }
    rawdb *get() const noexcept { return handle_.get(); }
    /* The caller has to close what this returns. */
    rawdb *release() noexcept { return handle_.release(); }

private:
    /* No exception may pass through the library. */
    template <class Progress> struct caller {
        Progress &progress;
#if defined(__cpp_exceptions)
        std::exception_ptr thrown = nullptr;
#endif

        static std::int32_t step(void *context, std::uint64_t done, std::uint64_t total) noexcept
        {
            caller &self = *static_cast<caller *>(context);
#if defined(__cpp_exceptions)
            try {
                return self.progress(done, total) ? 0 : 1;
            } catch (...) {
                self.thrown = std::current_exception();
                return 1;
            }
#else
            return self.progress(done, total) ? 0 : 1;
#endif
        }
    };

    struct closer {
        void operator()(rawdb *db) const noexcept
        {
            if (rawdb_close(db) != RAWDB_OK) {
                /* Nobody is there to be told. */
            }
        }
    };
    std::unique_ptr<rawdb, closer> handle_;
};

} // namespace rawdb_cxx

#endif
