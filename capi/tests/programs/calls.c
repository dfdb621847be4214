/* Every kind of call, from several threads, and the end of each handle. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4 };
#define EACH (under_valgrind() ? 20 : 200)

struct shared {
    ringwal_log *log;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t end;
    int calls, called, failed;
    ringwal_status last;
};

static void on_end(void *user_data, uint64_t end, ringwal_status status) {
    struct shared *shared = user_data;
    pthread_mutex_lock(&shared->lock);
    CHECK(status == RINGWAL_OK ? end > shared->end : end == shared->end);
    shared->end = end;
    shared->last = status;
    shared->calls++;
    pthread_cond_broadcast(&shared->changed);
    pthread_mutex_unlock(&shared->lock);
}

static void on_record(void *user_data, uint64_t lsn, ringwal_status status) {
    struct shared *shared = user_data;
    pthread_mutex_lock(&shared->lock);
    CHECK(status == RINGWAL_OK ? ringwal_durable_end(shared->log) > lsn : 1);
    shared->called++;
    shared->failed += status != RINGWAL_OK;
    pthread_mutex_unlock(&shared->lock);
}

static void *append_many(void *user_data) {
    struct shared *shared = user_data;
    for (int n = 0; n < EACH; n++) {
        char text[32];
        uint64_t lsn;
        int len = snprintf(text, sizeof text, "record %d", n);
        switch (n % 4) {
        case 0:
            OK(ringwal_append_durable(shared->log, text, (size_t)len, &lsn));
            CHECK(ringwal_durable_end(shared->log) > lsn);
            break;
        case 1: {
            ringwal_status status;
            while ((status = ringwal_try_append(shared->log, text, (size_t)len, &lsn)) ==
                   RINGWAL_ERROR_RING_FULL) {
                CHECK(ringwal_status_is_transient(status));
            }
            OK(status);
            OK(ringwal_on_durable(shared->log, lsn, on_record, shared));
            break;
        }
        case 2:
            OK(ringwal_append(shared->log, text, (size_t)len, &lsn));
            OK(ringwal_wait_durable(shared->log, lsn));
            break;
        default: {
            ringwal_bytes batch[2] = {{text, (size_t)len}, {text, 6}};
            uint64_t lsns[2];
            OK(ringwal_append_batch(shared->log, batch, 2, lsns));
            CHECK(lsns[0] < lsns[1]);
            /* The listener settles any number of waiters. */
            pthread_mutex_lock(&shared->lock);
            while (shared->end <= lsns[1]) pthread_cond_wait(&shared->changed, &shared->lock);
            pthread_mutex_unlock(&shared->lock);
        }
        }
    }
    /* An error of this thread is not seen by the others. */
    BAD(ringwal_append(shared->log, NULL, 3, NULL));
    CHECK(strstr(ringwal_last_error_message(), "data is NULL"));
    return NULL;
}

static uint64_t read_all(ringwal_log *log) {
    ringwal_reader *reader;
    ringwal_record record, run[64];
    uint64_t count = 0, again = 0, before = 0;
    ringwal_status status;
    OK(ringwal_reader_open(log, 0, &reader));
    while ((status = ringwal_reader_next(reader, &record)) == RINGWAL_OK) {
        CHECK(record.len >= 6 && memcmp(record.data, "record", 6) == 0);
        CHECK(!record.has_tag && record.tag == 0);
        CHECK(record.lsn > before && record.ordinal == count && record.written_at_ns > 0);
        before = record.lsn;
        count++;
    }
    STATUS(status, RINGWAL_END);
    ringwal_reader_free(reader);
    OK(ringwal_reader_open(log, 0, &reader));
    size_t length;
    while ((status = ringwal_reader_next_run(reader, run, 64, &length)) == RINGWAL_OK) {
        CHECK(length >= 1 && length <= 64);
        for (size_t n = 0; n < length; n++, again++) {
            CHECK(run[n].ordinal == again && memcmp(run[n].data, "record", 6) == 0);
        }
    }
    STATUS(status, RINGWAL_END);
    CHECK(again == count);
    ringwal_reader_free(reader);
    return count;
}

static void follow(ringwal_log *log) {
    ringwal_follower *follower;
    ringwal_record record;
    uint64_t lsn;
    OK(ringwal_follower_open(log, ringwal_durable_end(log), &follower));
    STATUS(ringwal_follower_next(follower, 0, &record), RINGWAL_TIMED_OUT);
    STATUS(ringwal_follower_next(follower, 10, &record), RINGWAL_TIMED_OUT);
    OK(ringwal_append_durable(log, "record x", 8, &lsn));
    OK(ringwal_follower_next(follower, -1, &record));
    CHECK(record.lsn == lsn && record.len == 8);
    ringwal_follower_free(follower);
}

static void consume(ringwal_log *log) {
    ringwal_consumer *consumer, *second;
    ringwal_record record;
    uint64_t position, lag;
    OK(ringwal_consumer_open(log, "worker", &consumer));
    STATUS(ringwal_consumer_open(log, "worker", &second), RINGWAL_ERROR_CONSUMER_IN_USE);
    OK(ringwal_consumer_next(consumer, 0, &record));
    uint64_t first = record.lsn;
    OK(ringwal_consumer_commit(consumer, first));
    OK(ringwal_consumer_next(consumer, 0, &record));
    OK(ringwal_consumer_position(consumer, &position, &lag));
    CHECK(position > first && position <= record.lsn && lag > 0);
    ringwal_consumer_free(consumer);
    uint64_t uncommitted = record.lsn;
    OK(ringwal_consumer_open(log, "worker", &consumer));
    OK(ringwal_consumer_next(consumer, -1, &record));
    CHECK(record.lsn == uncommitted);
    OK(ringwal_consumer_seek(consumer, 0));
    OK(ringwal_consumer_next(consumer, -1, &record));
    CHECK(record.lsn == first);
    STATUS(ringwal_consumer_commit(consumer, record.lsn + 8), RINGWAL_ERROR_NO_RECORD);
    ringwal_consumer_free(consumer);
    OK(ringwal_remove_consumer(log, "worker"));
    STATUS(ringwal_remove_consumer(log, "worker"), RINGWAL_ERROR_NO_CONSUMER);
}

static void read_one_and_cut(ringwal_log *log) {
    uint64_t lsn, oldest, next;
    char buffer[16];
    size_t len = 0;
    OK(ringwal_append_durable(log, "record to cut", 13, &lsn));
    STATUS(ringwal_read(log, lsn, buffer, 4, &len), RINGWAL_ERROR_BUFFER_TOO_SMALL);
    CHECK(len == 13);
    OK(ringwal_read(log, lsn, buffer, sizeof buffer, &len));
    CHECK(len == 13 && memcmp(buffer, "record to cut", 13) == 0);
    OK(ringwal_truncate_from(log, lsn, &next));
    CHECK(next > lsn);
    STATUS(ringwal_read(log, lsn, buffer, sizeof buffer, &len), RINGWAL_ERROR_TRUNCATED);
    OK(ringwal_truncate_before(log, ringwal_end(log), &oldest));
    CHECK(oldest == ringwal_oldest(log) && oldest <= lsn);
}

/* What has returned a record that is cut later learns of it. */
static void cut_what_was_returned(ringwal_log *log) {
    ringwal_follower *follower;
    ringwal_consumer *consumer;
    ringwal_reader *reader;
    ringwal_record record;
    uint64_t kept, cut, after;
    OK(ringwal_append_durable(log, "record kept", 11, &kept));
    OK(ringwal_append_durable(log, "record cut", 10, &cut));
    OK(ringwal_reader_open(log, kept, &reader));
    OK(ringwal_follower_open(log, cut, &follower));
    OK(ringwal_follower_next(follower, -1, &record));
    CHECK(record.lsn == cut);
    OK(ringwal_consumer_open(log, "cut", &consumer));
    OK(ringwal_consumer_seek(consumer, kept));
    OK(ringwal_consumer_next(consumer, -1, &record));
    OK(ringwal_consumer_next(consumer, -1, &record));
    CHECK(record.lsn == cut);
    OK(ringwal_truncate_from(log, cut, NULL));
    OK(ringwal_append_durable(log, "record after", 12, &after));
    STATUS(ringwal_follower_next(follower, -1, &record), RINGWAL_ERROR_TRUNCATED);
    STATUS(ringwal_follower_next(follower, -1, &record), RINGWAL_END);
    STATUS(ringwal_consumer_next(consumer, -1, &record), RINGWAL_ERROR_TRUNCATED);
    OK(ringwal_consumer_next(consumer, -1, &record));
    CHECK(record.lsn == kept);
    OK(ringwal_consumer_next(consumer, -1, &record));
    CHECK(record.lsn == after);
    OK(ringwal_reader_next(reader, &record));
    CHECK(record.lsn == kept);
    STATUS(ringwal_reader_next(reader, &record), RINGWAL_END);
    uint64_t lag;
    OK(ringwal_consumer_commit(consumer, after));
    OK(ringwal_consumer_position(consumer, NULL, &lag));
    CHECK(lag == 0);
    STATUS(ringwal_truncate_from(log, after, NULL), RINGWAL_ERROR_CONSUMED);
    ringwal_reader_free(reader);
    ringwal_follower_free(follower);
    ringwal_consumer_free(consumer);
    OK(ringwal_remove_consumer(log, "cut"));
}

static void tag(ringwal_log *log) {
    ringwal_reader *reader;
    ringwal_follower *follower;
    ringwal_record record;
    const ringwal_bytes batch[2] = {{"of 8", 4}, {"of 7", 4}};
    const uint64_t tags[2] = {8, 7};
    uint64_t lsn, lsns[2];
    OK(ringwal_append_tagged(log, 7, "of 7", 4, NULL));
    OK(ringwal_try_append_tagged(log, 8, "of 8", 4, NULL));
    OK(ringwal_append_batch_tagged(log, tags, batch, 2, lsns));
    BAD(ringwal_append_batch_tagged(log, NULL, batch, 2, lsns));
    OK(ringwal_append_durable_tagged(log, 7, "of 7", 4, &lsn));
    BAD(ringwal_reader_open_tagged(log, 0, NULL, 1, &reader));
    OK(ringwal_reader_open_tagged(log, 0, &tags[1], 1, &reader));
    for (int n = 0; n < 3; n++) {
        OK(ringwal_reader_next(reader, &record));
        CHECK(record.has_tag && record.tag == 7 && memcmp(record.data, "of 7", 4) == 0);
        CHECK(n != 1 || record.lsn == lsns[1]);
    }
    CHECK(record.lsn == lsn);
    STATUS(ringwal_reader_next(reader, &record), RINGWAL_END);
    ringwal_reader_free(reader);
    OK(ringwal_follower_open_tagged(log, 0, tags, 1, &follower));
    OK(ringwal_follower_next(follower, -1, &record));
    CHECK(record.has_tag && record.tag == 8);
    ringwal_follower_free(follower);
}

static void count(ringwal_log *log, uint64_t records) {
    ringwal_stats stats;
    uint64_t only[2] = {0, 7};
    OK(ringwal_get_stats(log, &stats, sizeof stats));
    CHECK(stats.records >= records && stats.groups > 0 && stats.syncs > 0);
    CHECK(stats.durable_end == ringwal_durable_end(log) && stats.obstructed == 0);
    /* An older program knows fewer fields. */
    OK(ringwal_get_stats(log, (ringwal_stats *)(void *)only, sizeof only[0]));
    CHECK(only[0] >= records && only[1] == 7);
}

static void keep_status(void *user_data, uint64_t lsn, ringwal_status status) {
    (void)lsn;
    *(ringwal_status *)user_data = status;
}

#define FORKED(call) STATUS(call, RINGWAL_ERROR_FORKED)

/* A child of fork() has no log. */
static void in_a_child(ringwal_log *log) {
    int status;
    uint64_t lsn, number = 7;
    ringwal_reader *reader, *none = NULL;
    ringwal_follower *follower, *no_follower = NULL;
    ringwal_consumer *consumer, *no_consumer = NULL;
    ringwal_listener *no_listener = NULL;
    ringwal_record record;
    ringwal_stats stats;
    OK(ringwal_append_durable(log, "record x", 8, &lsn));
    uint64_t end = ringwal_durable_end(log), oldest = ringwal_oldest(log);
    OK(ringwal_reader_open(log, lsn, &reader));
    OK(ringwal_follower_open(log, end, &follower));
    OK(ringwal_consumer_open(log, "forked", &consumer));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        uint8_t id[16];
        size_t len = 7;
        ringwal_bytes one = {"x", 1};
        uint64_t tag = 7;
        ringwal_status told = RINGWAL_OK;
        FORKED(ringwal_append(log, "x", 1, &number));
        FORKED(ringwal_try_append(log, "x", 1, &number));
        FORKED(ringwal_append_durable(log, "x", 1, &number));
        FORKED(ringwal_append_tagged(log, 7, "x", 1, &number));
        FORKED(ringwal_append_batch(log, &one, 1, &number));
        FORKED(ringwal_append_batch_tagged(log, &tag, &one, 1, &number));
        FORKED(ringwal_wait_durable(log, lsn));
        FORKED(ringwal_wait_durable(log, end));
        OK(ringwal_on_durable(log, lsn, keep_status, &told));
        CHECK(told == RINGWAL_ERROR_FORKED);
        FORKED(ringwal_on_durable_end(log, on_end, NULL, &no_listener));
        FORKED(ringwal_sync(log, &number));
        FORKED(ringwal_health(log));
        FORKED(ringwal_log_id(log, id));
        FORKED(ringwal_get_stats(log, &stats, sizeof stats));
        FORKED(ringwal_read(log, lsn, NULL, 0, &len));
        FORKED(ringwal_truncate_before(log, end, &number));
        FORKED(ringwal_truncate_from(log, lsn, &number));
        FORKED(ringwal_reader_open(log, 0, &none));
        FORKED(ringwal_reader_open_tagged(log, 0, &tag, 1, &none));
        FORKED(ringwal_reader_next(reader, &record));
        FORKED(ringwal_follower_open(log, 0, &no_follower));
        FORKED(ringwal_follower_open_tagged(log, 0, &tag, 1, &no_follower));
        FORKED(ringwal_follower_next(follower, 0, &record));
        STATUS(ringwal_follower_next(follower, 0, &record), RINGWAL_END);
        FORKED(ringwal_consumer_open(log, "other", &no_consumer));
        FORKED(ringwal_consumer_next(consumer, 0, &record));
        FORKED(ringwal_consumer_commit(consumer, lsn));
        FORKED(ringwal_consumer_seek(consumer, 0));
        FORKED(ringwal_consumer_position(consumer, &number, NULL));
        FORKED(ringwal_remove_consumer(log, "forked"));
        FORKED(ringwal_close(log));
        CHECK(ringwal_durable_end(log) == end && ringwal_end(log) == end);
        CHECK(ringwal_oldest(log) == oldest);
        CHECK(number == 7 && len == 7 && !none && !no_follower && !no_consumer && !no_listener);
        ringwal_reader_free(reader);
        ringwal_follower_free(follower);
        ringwal_consumer_free(consumer);
        ringwal_free(log);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    ringwal_reader_free(reader);
    ringwal_follower_free(follower);
    OK(ringwal_consumer_position(consumer, &number, NULL));
    ringwal_consumer_free(consumer);
    OK(ringwal_remove_consumer(log, "forked"));
    OK(ringwal_health(log));
}

static void free_in_a_callback(void *user_data, uint64_t end, ringwal_status status) {
    ringwal_log **log = user_data;
    (void)end;
    if (status == RINGWAL_OK && *log) {
        ringwal_free(*log);
        *log = NULL;
    }
}

/* A log that a thread of another log frees is closed in the background, and leaves nothing. */
static void free_on_a_thread_of_the_log(ringwal_log *log, const char *dir) {
    ringwal_options *options = ringwal_options_new();
    OK(ringwal_options_set_prefix(options, "freed"));
    OK(ringwal_options_set_segment_size(options, 1 << 16));
    OK(ringwal_options_set_lock_wait_ms(options, 600000));
    if (under_valgrind()) OK(ringwal_options_set_backend(options, RINGWAL_BACKEND_STD));
    ringwal_log *freed, *again;
    ringwal_listener *listener;
    uint64_t lsn;
    OK(ringwal_open(dir, options, &freed));
    OK(ringwal_append(freed, "kept", 4, &lsn));
    OK(ringwal_on_durable_end(log, free_in_a_callback, &freed, &listener));
    OK(ringwal_append_durable(log, "record", 6, NULL));
    OK(ringwal_open(dir, options, &again));
    OK(ringwal_wait_durable(again, lsn));
    ringwal_listener_free(listener);
    CHECK(!freed);
    ringwal_free(again);
    OK(ringwal_remove(dir, "freed"));
    ringwal_options_free(options);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER,
                            .changed = PTHREAD_COND_INITIALIZER};
    uint8_t id[16], again[16];
    ringwal_options *options = ringwal_options_new();
    OK(ringwal_options_set_prefix(options, "jobs"));
    OK(ringwal_options_set_segment_size(options, 1 << 20));
    OK(ringwal_options_set_durability(options, RINGWAL_DURABILITY_EVERY_GROUP, 0));
    if (under_valgrind()) OK(ringwal_options_set_backend(options, RINGWAL_BACKEND_STD));
    OK(ringwal_options_set_create_new(options, true));
    OK(ringwal_open(argv[1], options, &shared.log));
    ringwal_log *other;
    OK(ringwal_options_set_lock_wait_ms(options, 0));
    OK(ringwal_options_set_create_new(options, false));
    STATUS(ringwal_open(argv[1], options, &other), RINGWAL_ERROR_LOCKED);
    OK(ringwal_health(shared.log));
    OK(ringwal_log_id(shared.log, id));

    ringwal_listener *listener, *removed;
    OK(ringwal_on_durable_end(shared.log, on_end, &shared, &listener));
    struct shared unused = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    OK(ringwal_on_durable_end(shared.log, on_end, &unused, &removed));
    ringwal_listener_free(removed);
    pthread_t threads[THREADS];
    for (int n = 0; n < THREADS; n++) {
        CHECK(pthread_create(&threads[n], NULL, append_many, &shared) == 0);
    }
    for (int n = 0; n < THREADS; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    CHECK(!ringwal_last_error_message() || !strstr(ringwal_last_error_message(), "data"));
    OK(ringwal_sync(shared.log, NULL));
    uint64_t records = (uint64_t)(THREADS * EACH / 4 * 5);
    CHECK(read_all(shared.log) == records);
    follow(shared.log);
    consume(shared.log);
    count(shared.log, records);
    cut_what_was_returned(shared.log);
    tag(shared.log);
    read_one_and_cut(shared.log);

    free_on_a_thread_of_the_log(shared.log, argv[1]);
    if (!under_valgrind()) in_a_child(shared.log);

    ringwal_follower *follower;
    ringwal_record record;
    OK(ringwal_follower_open(shared.log, ringwal_durable_end(shared.log), &follower));
    OK(ringwal_close(shared.log));
    OK(ringwal_close(shared.log));
    STATUS(ringwal_append(shared.log, "x", 1, NULL), RINGWAL_ERROR_CLOSED);
    STATUS(ringwal_health(shared.log), RINGWAL_ERROR_CLOSED);
    STATUS(ringwal_follower_next(follower, -1, &record), RINGWAL_END);
    ringwal_free(shared.log);
    ringwal_follower_free(follower);
    ringwal_listener_free(listener);
    CHECK(shared.last == RINGWAL_ERROR_CLOSED && shared.calls > 1 && unused.calls == 0);
    CHECK(shared.called == THREADS * EACH / 4 && shared.failed == 0);

    OK(ringwal_options_set_expected_log_id(options, id));
    OK(ringwal_open(argv[1], options, &other));
    OK(ringwal_log_id(other, again));
    CHECK(memcmp(id, again, sizeof id) == 0);
    ringwal_free(other);
    ringwal_options_free(options);
    OK(ringwal_remove(argv[1], "jobs"));
    puts("calls: ok");
    return 0;
}
