/*
 * Appends records in four ways, waits until they are durable, and reads them back.
 *
 *     append DIRECTORY
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ringwal.h>

static void check(ringwal_status status, const char *what) {
    if (status > RINGWAL_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, ringwal_status_name(status),
                ringwal_last_error_message());
        exit(1);
    }
}

/* Runs on a thread of the log. */
static void is_durable(void *user_data, uint64_t lsn, ringwal_status status) {
    (void)user_data;
    printf("the record at %" PRIu64 " is durable: %s\n", lsn, ringwal_status_name(status));
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: append DIRECTORY\n");
        return 2;
    }
    ringwal_options *options = ringwal_options_new();
    check(ringwal_options_set_segment_size(options, 1 << 20), "segment size");
    ringwal_log *log;
    check(ringwal_open(argv[1], options, &log), "open");
    ringwal_options_free(options);

    /* One call: durable on return. */
    check(ringwal_append_durable(log, "durable", 7, NULL), "append_durable");

    /* Two calls: other records join the same group meanwhile. */
    uint64_t lsn;
    check(ringwal_append(log, "enqueued", 8, &lsn), "append");
    check(ringwal_on_durable(log, lsn, is_durable, NULL), "on_durable");
    check(ringwal_wait_durable(log, lsn), "wait_durable");

    /* A batch is there as a whole after a crash, or not at all. */
    const ringwal_bytes transfer[2] = {{"debit 7", 7}, {"credit 7", 8}};
    uint64_t lsns[2];
    check(ringwal_append_batch(log, transfer, 2, lsns), "append_batch");
    check(ringwal_sync(log, NULL), "sync");

    /* The bytes of a record are valid until the next call with the reader. */
    ringwal_reader *reader;
    check(ringwal_reader_open(log, 0, &reader), "reader");
    ringwal_record record;
    ringwal_status status;
    int count = 0;
    while ((status = ringwal_reader_next(reader, &record)) == RINGWAL_OK) {
        printf("%" PRIu64 ": %.*s\n", record.lsn, (int)record.len, (const char *)record.data);
        count++;
    }
    check(status, "read");
    ringwal_reader_free(reader);

    check(ringwal_close(log), "close");
    ringwal_free(log);
    printf("%d records\n", count);
    return 0;
}
