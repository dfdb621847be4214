// The C++ header where it differs from C: timeouts, texts and exceptions.
#include <chrono>
#include <stdexcept>
#include <string>

#include <ringwal.hpp>

#include "check.h"

using namespace std::chrono_literals;

template <typename Call>
static bool refuses(Call call) {
    try {
        call();
    } catch (const std::invalid_argument &) {
        return true;
    }
    return false;
}

static void texts_with_a_zero_byte(ringwal::log &log, const std::string &dir) {
    const std::string zero("a\0b", 3);
    CHECK(refuses([&] { ringwal::log(dir + zero); }));
    CHECK(refuses([&] { ringwal::log(std::string(1, '\0')); }));
    CHECK(refuses([&] { ringwal::options().prefix(zero); }));
    CHECK(refuses([&] { log.attach(zero); }));
    // Nothing was created under the text before the zero byte.
    STATUS(ringwal_remove_consumer(log.get(), "a"), RINGWAL_ERROR_NO_CONSUMER);
    STATUS(ringwal_remove((dir + "a").c_str(), "wal"), RINGWAL_ERROR_NO_LOG);
}

static void timeouts(ringwal::log &log) {
    CHECK(ringwal::milliseconds(std::nullopt) == -1);
    CHECK(ringwal::milliseconds(0ms) == 0 && ringwal::milliseconds(7ms) == 7);
    CHECK(ringwal::milliseconds(-1ms) == 0);
    CHECK(ringwal::milliseconds(std::chrono::milliseconds::min()) == 0);
    auto follower = log.follow(log.durable_end());
    CHECK(!follower.next(-1ms) && !follower.ended());
    auto consumer = log.attach("waits");
    CHECK(!consumer.next(-1ms));
    auto lsn = log.append_durable("one");
    auto next = follower.next();
    CHECK(next && next->lsn == lsn && next->bytes() == "one");
    CHECK(consumer.next(-1ms)->lsn == lsn);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    ringwal::options options;
    options.segment_size(1 << 20);
    ringwal::log log(argv[1], options);
    texts_with_a_zero_byte(log, argv[1]);
    timeouts(log);
    log.close();
    try {
        log.append("late");
        CHECK(false);
    } catch (const ringwal::error &error) {
        CHECK(error.status() == RINGWAL_ERROR_CLOSED && !error.is_transient());
    }
    puts("wrapper: ok");
    return 0;
}
