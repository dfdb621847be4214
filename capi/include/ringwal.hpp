/*
 * ringwal for C++17: handles that free themselves, and errors as exceptions. Header only.
 *
 * The rules of ringwal.h hold: a ringwal::log may be used by many threads at once, any other handle
 * by one at a time, and the bytes of a record are valid until the next call with its handle. A
 * std::string with a zero byte in it throws std::invalid_argument.
 */
#ifndef RINGWAL_HPP
#define RINGWAL_HPP

#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ringwal.h"

namespace ringwal {

/** A failed call: its status, and the text of ringwal_last_error_message(). */
class error : public std::runtime_error {
public:
    explicit error(ringwal_status status, const char *text)
        : std::runtime_error(text != nullptr ? text : ringwal_status_name(status)),
          status_(status) {}
    ringwal_status status() const noexcept { return status_; }
    /** Whether the log goes on by itself: see ringwal_status_is_transient. */
    bool is_transient() const noexcept { return ringwal_status_is_transient(status_); }

private:
    ringwal_status status_;
};

/** Throws for an error. Returns the status otherwise: RINGWAL_OK, _END or _TIMED_OUT. */
inline ringwal_status check(ringwal_status status) {
    if (status > RINGWAL_OK) throw error(status, ringwal_last_error_message());
    return status;
}

template <typename T, void (*Free)(T *)>
struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};
template <typename T, void (*Free)(T *)>
using handle = std::unique_ptr<T, deleter<T, Free>>;

/** A record in the memory of its reader. */
struct record : ringwal_record {
    std::string_view bytes() const noexcept { return {static_cast<const char *>(data), len}; }
};

/** Milliseconds to wait; without a value, for ever. A negative number is as zero. */
using timeout = std::optional<std::chrono::milliseconds>;

inline std::int64_t milliseconds(timeout wait) {
    if (!wait) return -1;
    return wait->count() < 0 ? 0 : static_cast<std::int64_t>(wait->count());
}

/** The text for C, which ends at the first zero byte. Throws if there is one in the text. */
inline const char *text(const std::string &text) {
    if (text.find('\0') != std::string::npos) {
        throw std::invalid_argument("ringwal: a text has a zero byte");
    }
    return text.c_str();
}

/** Settings: options().segment_size(1 << 20).must_exist(true). For the others use get(). */
class options {
public:
    options() : handle_(ringwal_options_new()) {
        if (!handle_) throw std::bad_alloc();
    }
    options &prefix(const std::string &prefix) {
        check(ringwal_options_set_prefix(get(), text(prefix)));
        return *this;
    }
    options &segment_size(std::uint64_t bytes) {
        check(ringwal_options_set_segment_size(get(), bytes));
        return *this;
    }
    options &must_exist(bool must) {
        check(ringwal_options_set_must_exist(get(), must));
        return *this;
    }
    ringwal_options *get() const noexcept { return handle_.get(); }

private:
    handle<ringwal_options, ringwal_options_free> handle_;
};

/** Durable records up to a fixed end. */
class reader {
public:
    reader(const ringwal_log *log, std::uint64_t from) {
        ringwal_reader *opened = nullptr;
        check(ringwal_reader_open(log, from, &opened));
        handle_.reset(opened);
    }
    /** The next record, or none at the end. */
    std::optional<record> next() {
        record next{};
        if (check(ringwal_reader_next(handle_.get(), &next)) != RINGWAL_OK) return std::nullopt;
        return next;
    }

private:
    handle<ringwal_reader, ringwal_reader_free> handle_;
};

/** Durable records, and then those to come. */
class follower {
public:
    follower(const ringwal_log *log, std::uint64_t from) {
        ringwal_follower *opened = nullptr;
        check(ringwal_follower_open(log, from, &opened));
        handle_.reset(opened);
    }
    /** The next record. None after the timeout, or at the end of a closed log: see ended(). */
    std::optional<record> next(timeout wait = std::nullopt) {
        record next{};
        auto status = check(ringwal_follower_next(handle_.get(), milliseconds(wait), &next));
        ended_ = status == RINGWAL_END;
        if (status != RINGWAL_OK) return std::nullopt;
        return next;
    }
    bool ended() const noexcept { return ended_; }

private:
    handle<ringwal_follower, ringwal_follower_free> handle_;
    bool ended_ = false;
};

/** A reader under a name, with a position that survives. */
class consumer {
public:
    consumer(const ringwal_log *log, const std::string &name) {
        ringwal_consumer *opened = nullptr;
        check(ringwal_consumer_open(log, text(name), &opened));
        handle_.reset(opened);
    }
    /** The next record. None after the timeout, or at the end of a closed log. */
    std::optional<record> next(timeout wait = std::nullopt) {
        record next{};
        auto status = check(ringwal_consumer_next(handle_.get(), milliseconds(wait), &next));
        if (status != RINGWAL_OK) return std::nullopt;
        return next;
    }
    void commit(std::uint64_t lsn) { check(ringwal_consumer_commit(handle_.get(), lsn)); }
    void seek(std::uint64_t lsn) { check(ringwal_consumer_seek(handle_.get(), lsn)); }
    /** Bytes of the log from the position to the durable end. */
    std::uint64_t lag() const {
        std::uint64_t lag = 0;
        check(ringwal_consumer_position(handle_.get(), nullptr, &lag));
        return lag;
    }

private:
    handle<ringwal_consumer, ringwal_consumer_free> handle_;
};

/** A log that is open for appending. Many threads may use it at once. */
class log {
public:
    explicit log(const std::string &dir) { open(dir, nullptr); }
    log(const std::string &dir, const options &options) { open(dir, options.get()); }

    /** Fixes the record's place; it becomes durable with its group. */
    std::uint64_t append(std::string_view bytes) {
        std::uint64_t lsn = 0;
        check(ringwal_append(get(), bytes.data(), bytes.size(), &lsn));
        return lsn;
    }
    /** As append, but never blocks: RINGWAL_ERROR_RING_FULL. */
    std::uint64_t try_append(std::string_view bytes) {
        std::uint64_t lsn = 0;
        check(ringwal_try_append(get(), bytes.data(), bytes.size(), &lsn));
        return lsn;
    }
    /** Durable on return. */
    std::uint64_t append_durable(std::string_view bytes) {
        std::uint64_t lsn = 0;
        check(ringwal_append_durable(get(), bytes.data(), bytes.size(), &lsn));
        return lsn;
    }
    /** All together or not at all. Returns the position of each. */
    std::vector<std::uint64_t> append_batch(const std::vector<std::string_view> &records) {
        std::vector<ringwal_bytes> batch;
        batch.reserve(records.size());
        for (auto bytes : records) batch.push_back({bytes.data(), bytes.size()});
        std::vector<std::uint64_t> lsns(records.size());
        check(ringwal_append_batch(get(), batch.data(), batch.size(), lsns.data()));
        return lsns;
    }
    void wait_durable(std::uint64_t lsn) { check(ringwal_wait_durable(get(), lsn)); }
    std::uint64_t sync() {
        std::uint64_t end = 0;
        check(ringwal_sync(get(), &end));
        return end;
    }
    std::uint64_t durable_end() const noexcept { return ringwal_durable_end(get()); }
    ringwal::reader read_from(std::uint64_t from) const { return {get(), from}; }
    ringwal::follower follow(std::uint64_t from) const { return {get(), from}; }
    ringwal::consumer attach(const std::string &name) const { return {get(), name}; }
    std::uint64_t truncate_before(std::uint64_t lsn) {
        std::uint64_t oldest = 0;
        check(ringwal_truncate_before(get(), lsn, &oldest));
        return oldest;
    }
    ringwal_stats stats() const {
        ringwal_stats stats{};
        check(ringwal_get_stats(get(), &stats, sizeof stats));
        return stats;
    }
    /** Reports what the destructor, which also closes, cannot. */
    void close() { check(ringwal_close(get())); }
    ringwal_log *get() const noexcept { return handle_.get(); }

private:
    void open(const std::string &dir, const ringwal_options *options) {
        ringwal_log *opened = nullptr;
        check(ringwal_open(text(dir), options, &opened));
        handle_.reset(opened);
    }
    handle<ringwal_log, ringwal_free> handle_;
};

}  // namespace ringwal

#endif
