/* Unusable arguments are refused by each function, and nothing is written or called. */
#include <errno.h>

#include "check.h"

#define ODD(type, value) ((type *)((char *)(value) + 1))

static void never(void *user_data, uint64_t at, ringwal_status status) {
    (void)user_data;
    fprintf(stderr, "called with %llu, %d\n", (unsigned long long)at, (int)status);
    exit(1);
}

static void without_a_handle(void) {
    uint64_t number = 7;
    size_t len = 7;
    uint8_t id[16] = {0};
    char buffer[8];
    ringwal_record record;
    ringwal_stats stats;
    ringwal_reader *reader = NULL;
    ringwal_follower *follower = NULL;
    ringwal_consumer *consumer = NULL;
    ringwal_listener *listener = NULL;
    ringwal_bytes one = {"x", 1};
    BAD(ringwal_append(NULL, "x", 1, &number));
    BAD(ringwal_try_append(NULL, "x", 1, &number));
    BAD(ringwal_append_durable(NULL, "x", 1, &number));
    BAD(ringwal_append_batch(NULL, &one, 1, &number));
    BAD(ringwal_try_append_batch(NULL, &one, 1, &number));
    BAD(ringwal_wait_durable(NULL, 7));
    BAD(ringwal_sync(NULL, &number));
    BAD(ringwal_health(NULL));
    BAD(ringwal_close(NULL));
    BAD(ringwal_log_id(NULL, id));
    BAD(ringwal_read(NULL, 7, buffer, sizeof buffer, &len));
    BAD(ringwal_truncate_before(NULL, 7, &number));
    BAD(ringwal_truncate_from(NULL, 7, &number));
    BAD(ringwal_on_durable(NULL, 7, never, NULL));
    BAD(ringwal_on_durable_end(NULL, never, NULL, &listener));
    BAD(ringwal_reader_open(NULL, 0, &reader));
    BAD(ringwal_reader_next(NULL, &record));
    BAD(ringwal_reader_next_run(NULL, &record, 1, &len));
    BAD(ringwal_follower_open(NULL, 0, &follower));
    BAD(ringwal_follower_next(NULL, 0, &record));
    BAD(ringwal_follower_next_run(NULL, 0, &record, 1, &len));
    BAD(ringwal_consumer_open(NULL, "name", &consumer));
    BAD(ringwal_consumer_next(NULL, 0, &record));
    BAD(ringwal_consumer_commit(NULL, 7));
    BAD(ringwal_consumer_seek(NULL, 7));
    BAD(ringwal_consumer_position(NULL, &number, &number));
    BAD(ringwal_remove_consumer(NULL, "name"));
    BAD(ringwal_get_stats(NULL, &stats, sizeof stats));
    BAD(ringwal_remove(NULL, "wal"));
    BAD(ringwal_remove("/nowhere", NULL));
    CHECK(ringwal_durable_end(NULL) == 0 && ringwal_end(NULL) == 0 && ringwal_oldest(NULL) == 0);
    CHECK(number == 7 && len == 7 && !reader && !follower && !consumer && !listener);
    ringwal_free(NULL);
    ringwal_options_free(NULL);
    ringwal_reader_free(NULL);
    ringwal_follower_free(NULL);
    ringwal_consumer_free(NULL);
    ringwal_listener_free(NULL);
}

/* The text of an error stays until a call returns the next one, whatever is called meanwhile. */
static char *copy_of(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    CHECK(copy);
    return strcpy(copy, text);
}

struct inline_call {
    const char *outer;
    int fails;
};

static void explained(void *user_data, uint64_t at, ringwal_status status) {
    struct inline_call *call = user_data;
    (void)at;
    CHECK(status == RINGWAL_ERROR_NOT_APPENDED);
    CHECK(strstr(ringwal_last_error_message(), "nothing was appended"));
    CHECK(ringwal_last_error_message() != call->outer);
    CHECK(strcmp(call->outer, "data is NULL") == 0);
    if (call->fails) BAD(ringwal_close(NULL));
}

static void text_of_the_last_error(ringwal_log *log) {
    BAD(ringwal_append(log, NULL, 1, NULL));
    const char *text = ringwal_last_error_message();
    char *copy = copy_of(text);
    struct inline_call call = {text, 0};
    OK(ringwal_on_durable(log, UINT64_MAX, explained, &call));
    CHECK(ringwal_last_error_message() == text && strcmp(text, copy) == 0);
    CHECK(ringwal_durable_end(NULL) == 0 && ringwal_end(NULL) == 0 && ringwal_oldest(NULL) == 0);
    ringwal_free(NULL);
    ringwal_options_free(ringwal_options_new());
    ringwal_listener_free(NULL);
    ringwal_reader *reader;
    ringwal_record record;
    OK(ringwal_reader_open(log, ringwal_durable_end(log), &reader));
    STATUS(ringwal_reader_next(reader, &record), RINGWAL_END);
    ringwal_reader_free(reader);
    CHECK(ringwal_last_error_message() == text && strcmp(text, copy) == 0);
    /* A call in the callback that returns an error replaces it. */
    call.fails = 1;
    OK(ringwal_on_durable(log, UINT64_MAX, explained, &call));
    CHECK(strcmp(ringwal_last_error_message(), "log is NULL") == 0);
    free(copy);
}

static void bad_options(const char *dir) {
    ringwal_log *log = NULL;
    ringwal_options *options = ringwal_options_new();
    CHECK(options);
    BAD(ringwal_options_set_prefix(NULL, "wal"));
    BAD(ringwal_options_set_prefix(options, NULL));
    BAD(ringwal_options_set_prefix(options, "\xff"));
    BAD(ringwal_options_set_segment_size(NULL, 1 << 20));
    BAD(ringwal_options_set_durability(options, 3, 0));
    BAD(ringwal_options_set_durability(options, -1, 0));
    BAD(ringwal_options_set_backend(options, 77));
    BAD(ringwal_options_set_commit_method(options, 77));
    BAD(ringwal_options_set_expected_log_id(options, NULL));
    /* What only the log can judge comes with opening, every bad option in one message. */
    OK(ringwal_options_set_segment_size(options, 5));
    OK(ringwal_options_set_max_segments(options, 1));
    STATUS(ringwal_open(dir, options, &log), RINGWAL_ERROR_OPTIONS);
    CHECK(strstr(ringwal_last_error_message(), "segment_size"));
    CHECK(strstr(ringwal_last_error_message(), "max_segments"));
    BAD(ringwal_open(dir, NULL, NULL));
    BAD(ringwal_open(NULL, NULL, &log));
    CHECK(!log);
    ringwal_options_free(options);
    options = ringwal_options_new();
    OK(ringwal_options_set_must_exist(options, true));
    STATUS(ringwal_open(dir, options, &log), RINGWAL_ERROR_NO_LOG);
    ringwal_options_free(options);
    STATUS(ringwal_open("/proc/nothing/can/be/here", NULL, &log), RINGWAL_ERROR_IO);
    CHECK(ringwal_last_error_os() != 0 && !log);
    STATUS(ringwal_open("/dev/null", NULL, &log), RINGWAL_ERROR_IO);
    CHECK(ringwal_last_error_os() == ENOTDIR && !log);
    STATUS(ringwal_open("/dev/null/below", NULL, &log), RINGWAL_ERROR_IO);
    CHECK(ringwal_last_error_os() == ENOTDIR && !log);
}

/* A directory may have any bytes on Linux, and its name is no text. */
static void directory_of_any_bytes(const char *dir) {
#ifdef __linux__
    ringwal_log *log;
    ringwal_options *options = ringwal_options_new();
    char path[4096];
    CHECK(snprintf(path, sizeof path, "%s-\xff\xfe", dir) < (int)sizeof path);
    OK(ringwal_options_set_segment_size(options, 1 << 16));
    OK(ringwal_options_set_backend(options, RINGWAL_BACKEND_STD));
    OK(ringwal_open(path, options, &log));
    ringwal_options_free(options);
    ringwal_free(log);
    OK(ringwal_remove(path, "wal"));
#else
    (void)dir;
#endif
}

static void with_a_log(ringwal_log *log) {
    uint64_t numbers[4] = {7, 7, 7, 7};
    size_t len = 7;
    ringwal_record record;
    ringwal_reader *reader;
    ringwal_consumer *consumer = NULL;
    ringwal_listener *listener = NULL;
    ringwal_bytes batch[2] = {{"x", 1}, {NULL, 1}};
    BAD(ringwal_append(log, NULL, 1, numbers));
    BAD(ringwal_append(log, "x", SIZE_MAX, numbers));
    BAD(ringwal_append(log, "x", 1, ODD(uint64_t, numbers)));
    BAD(ringwal_append_batch(log, NULL, 1, numbers));
    BAD(ringwal_append_batch(log, batch, 2, numbers));
    BAD(ringwal_append_batch(log, batch, SIZE_MAX / 8, numbers));
    BAD(ringwal_append_batch(log, ODD(ringwal_bytes, batch), 1, numbers));
    STATUS(ringwal_append_batch(log, NULL, 0, numbers), RINGWAL_ERROR_EMPTY_BATCH);
    STATUS(ringwal_append(log, "x", SIZE_MAX / 2, numbers), RINGWAL_ERROR_RECORD_TOO_LARGE);
    /* The default that the header states for segments of 1 MiB. */
    CHECK(strstr(ringwal_last_error_message(), " 257896 bytes"));
    STATUS(ringwal_truncate_from(log, UINT64_MAX, numbers), RINGWAL_ERROR_NOT_APPENDED);
    CHECK(strstr(ringwal_last_error_message(), "at 18446744073709551615"));
    STATUS(ringwal_wait_durable(log, UINT64_MAX), RINGWAL_ERROR_NOT_APPENDED);
    BAD(ringwal_on_durable(log, 7, NULL, NULL));
    BAD(ringwal_on_durable_end(log, NULL, NULL, &listener));
    BAD(ringwal_on_durable_end(log, never, NULL, NULL));
    BAD(ringwal_reader_open(log, 0, NULL));
    BAD(ringwal_follower_open(log, 0, NULL));
    BAD(ringwal_consumer_open(log, NULL, &consumer));
    BAD(ringwal_consumer_open(log, "\xff", &consumer));
    BAD(ringwal_consumer_open(log, "name", NULL));
    STATUS(ringwal_consumer_open(log, "no/name", &consumer), RINGWAL_ERROR_CONSUMER_NAME);
    BAD(ringwal_remove_consumer(log, NULL));
    BAD(ringwal_log_id(log, NULL));
    BAD(ringwal_get_stats(log, NULL, 8));
    CHECK(numbers[0] == 7 && !listener && !consumer);

    /* An empty record needs no memory. */
    OK(ringwal_append_durable(log, NULL, 0, numbers));
    BAD(ringwal_read(log, numbers[0], NULL, 1, &len));
    BAD(ringwal_read(log, numbers[0], NULL, 0, NULL));
    OK(ringwal_read(log, numbers[0], NULL, 0, &len));
    CHECK(len == 0);

    OK(ringwal_reader_open(log, 0, &reader));
    BAD(ringwal_reader_next(reader, NULL));
    BAD(ringwal_reader_next(reader, ODD(ringwal_record, &record)));
    BAD(ringwal_reader_next_run(reader, &record, 0, &len));
    BAD(ringwal_reader_next_run(reader, &record, 1, NULL));
    /* No record was lost by the refusals. */
    OK(ringwal_reader_next(reader, &record));
    CHECK(record.lsn == numbers[0] && record.len == 0 && record.data);
    STATUS(ringwal_reader_next(reader, &record), RINGWAL_END);
    STATUS(ringwal_reader_next(reader, &record), RINGWAL_END);
    ringwal_reader_free(reader);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(!ringwal_last_error_message() && ringwal_last_error_os() == 0);
    without_a_handle();
    CHECK(strcmp(ringwal_last_error_message(), "prefix is NULL") == 0);
    bad_options(argv[1]);
    directory_of_any_bytes(argv[1]);
    ringwal_options *options = ringwal_options_new();
    OK(ringwal_options_set_segment_size(options, 1 << 20));
    if (under_valgrind()) OK(ringwal_options_set_backend(options, RINGWAL_BACKEND_STD));
    ringwal_log *log;
    OK(ringwal_open(argv[1], options, &log));
    ringwal_options_free(options);
    with_a_log(log);
    text_of_the_last_error(log);
    ringwal_free(log);
    CHECK(strcmp(ringwal_status_name(1), "RINGWAL_ERROR_RING_FULL") == 0);
    CHECK(strcmp(ringwal_status_name(-12345), "RINGWAL_ERROR_OTHER") == 0);
    CHECK(ringwal_status_is_transient(RINGWAL_ERROR_RING_FULL));
    CHECK(ringwal_status_is_transient(RINGWAL_ERROR_NO_SPACE));
    CHECK(ringwal_status_is_transient(RINGWAL_ERROR_OBSTRUCTED));
    CHECK(ringwal_status_is_transient(RINGWAL_ERROR_NOT_DURABLE));
    CHECK(!ringwal_status_is_transient(RINGWAL_ERROR_CLOSED));
    CHECK(!ringwal_status_is_transient(RINGWAL_ERROR_LOCKED));
    CHECK(!ringwal_status_is_transient(RINGWAL_OK));
    puts("border: ok");
    return 0;
}
