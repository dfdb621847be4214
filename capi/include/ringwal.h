/*
 * ringwal: a write-ahead log for servers.
 *
 * Generated from capi/src by cbindgen. Do not edit.
 *
 * Status    Functions return a ringwal_status: RINGWAL_OK (0), a number above 0 for an error, or a
 *           number below 0 for an outcome that is no error. The numbers never change their meaning.
 *           ringwal_last_error_message() explains the last error of the calling thread.
 * Output    Parameters after the input receive results. Unless a comment says that one may be NULL,
 *           it must not be. They are written only with RINGWAL_OK, unless a comment says otherwise.
 * Threads   A ringwal_log may be used from any number of threads at once. Any other handle may be
 *           used from any thread, by one at a time.
 * Ownership A handle belongs to the caller until its ..._free function. A reader, follower, consumer
 *           or listener may outlive the handle of its log. NULL may be freed. Memory that is passed
 *           in is read only during the call. Strings end with a zero byte.
 * Misuse    NULL, misaligned pointers, impossible lengths, names that are not UTF-8 and unknown
 *           numbers of an enum give RINGWAL_ERROR_INVALID_ARGUMENT. Options out of their range give
 *           RINGWAL_ERROR_OPTIONS from ringwal_open. A dangling pointer cannot be detected.
 * fork()    In a child process, calls with a handle of the parent return RINGWAL_ERROR_FORKED, and
 *           ringwal_on_durable gives it to its function. A reader, follower or consumer may first
 *           return records that it has in memory; after the error a follower gives RINGWAL_END.
 *           The ..._free functions leave the parent's log as it is.
 */


#ifndef RINGWAL_H
#define RINGWAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The outcome of a call.
 *
 * Numbers from 1 to 999 are errors of the log, from 1000 on errors of this interface. Below 0 are
 * outcomes that are no errors. A number keeps its meaning in every later version; a later version
 * may have more numbers.
 */
enum ringwal_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No record came within the timeout.
     */
    RINGWAL_TIMED_OUT = -2,
    /**
     * No record follows: the reader is at its end, or the log was closed.
     */
    RINGWAL_END = -1,
    /**
     * Success.
     */
    RINGWAL_OK = 0,
    /**
     * The ring has no room, or the next segment is not prepared yet. Nothing was appended: retry
     * later, or call the blocking function.
     */
    RINGWAL_ERROR_RING_FULL = 1,
    /**
     * The record or batch is larger than the option max_record_size. Nothing was appended.
     */
    RINGWAL_ERROR_RECORD_TOO_LARGE = 2,
    /**
     * A batch needs at least one record.
     */
    RINGWAL_ERROR_EMPTY_BATCH = 3,
    /**
     * A write or a sync failed. Nothing is retried: close the log, fix the cause, open it again.
     */
    RINGWAL_ERROR_POISONED = 4,
    /**
     * The log was closed.
     */
    RINGWAL_ERROR_CLOSED = 5,
    /**
     * The disk has no space for the next segment. Appending resumes by itself.
     */
    RINGWAL_ERROR_NO_SPACE = 6,
    /**
     * A segment cannot be prepared or removed, for a cause that may pass. The log retries.
     */
    RINGWAL_ERROR_OBSTRUCTED = 7,
    /**
     * Another writer has the log open.
     */
    RINGWAL_ERROR_LOCKED = 8,
    /**
     * Durable data was damaged, or a file is missing.
     */
    RINGWAL_ERROR_CORRUPTION = 9,
    /**
     * Retention has removed the position.
     */
    RINGWAL_ERROR_PRUNED = 10,
    /**
     * The position was never assigned to a record.
     */
    RINGWAL_ERROR_NOT_APPENDED = 11,
    /**
     * The position is not durable yet.
     */
    RINGWAL_ERROR_NOT_DURABLE = 12,
    /**
     * No record starts at the position.
     */
    RINGWAL_ERROR_NO_RECORD = 13,
    /**
     * No durable record has the ordinal.
     */
    RINGWAL_ERROR_NO_ORDINAL = 14,
    /**
     * ringwal_truncate_from has made the position void.
     */
    RINGWAL_ERROR_TRUNCATED = 15,
    /**
     * The position lies inside a batch, which is cut as a whole.
     */
    RINGWAL_ERROR_INSIDE_BATCH = 16,
    /**
     * The name is no consumer's name: 1 to 64 of A-Z, a-z, 0-9, - and _.
     */
    RINGWAL_ERROR_CONSUMER_NAME = 17,
    /**
     * The consumer's name is too long for a file name with the log's prefix.
     */
    RINGWAL_ERROR_CONSUMER_NAME_TOO_LONG = 18,
    /**
     * A file that is not the log's has the name, or one that differs only in case.
     */
    RINGWAL_ERROR_NAME_TAKEN = 19,
    /**
     * The consumer is attached already.
     */
    RINGWAL_ERROR_CONSUMER_IN_USE = 20,
    /**
     * There is no consumer of that name.
     */
    RINGWAL_ERROR_NO_CONSUMER = 21,
    /**
     * The record lies below the position that the consumer has committed.
     */
    RINGWAL_ERROR_CONSUMER_BACKWARDS = 22,
    /**
     * The file with a position is damaged.
     */
    RINGWAL_ERROR_CONSUMER_DAMAGED = 23,
    /**
     * A consumer has consumed records that the cut would remove.
     */
    RINGWAL_ERROR_CONSUMED = 24,
    /**
     * A newer version wrote the log.
     */
    RINGWAL_ERROR_UNSUPPORTED = 25,
    /**
     * A segment belongs to another log.
     */
    RINGWAL_ERROR_FOREIGN_SEGMENT = 26,
    /**
     * The log has another application version than the one asked for.
     */
    RINGWAL_ERROR_APPLICATION_VERSION = 27,
    /**
     * There is no log, and one must exist.
     */
    RINGWAL_ERROR_NO_LOG = 28,
    /**
     * There is a log, and it must be created.
     */
    RINGWAL_ERROR_LOG_EXISTS = 29,
    /**
     * The log is another one than the expected.
     */
    RINGWAL_ERROR_OTHER_LOG = 30,
    /**
     * An option is out of its range.
     */
    RINGWAL_ERROR_OPTIONS = 31,
    /**
     * The backend cannot run here.
     */
    RINGWAL_ERROR_BACKEND_UNAVAILABLE = 32,
    /**
     * The system refused a call, or a file is of the wrong kind. ringwal_last_error_os() has the
     * errno, if there is one.
     */
    RINGWAL_ERROR_IO = 33,
    /**
     * The call would wait for its own thread: a callback made a blocking call.
     */
    RINGWAL_ERROR_WOULD_DEADLOCK = 34,
    /**
     * The log was called from inside a call that does not allow it.
     */
    RINGWAL_ERROR_REENTRANT = 35,
    /**
     * The log was opened before fork(). Open another one in the child.
     */
    RINGWAL_ERROR_FORKED = 36,
    /**
     * The name is no cell's name.
     */
    RINGWAL_ERROR_CELL_NAME = 37,
    /**
     * The value of a cell is too large.
     */
    RINGWAL_ERROR_CELL_TOO_LARGE = 38,
    /**
     * The cells of a log together are too large.
     */
    RINGWAL_ERROR_CELLS_FULL = 39,
    /**
     * The file with the cells is damaged.
     */
    RINGWAL_ERROR_CELLS_DAMAGED = 40,
    /**
     * The cells could not be written.
     */
    RINGWAL_ERROR_CELLS_FAILED = 41,
    /**
     * The lease of a job of a work queue has expired.
     */
    RINGWAL_ERROR_LEASE_EXPIRED = 42,
    /**
     * The tag has no floor.
     */
    RINGWAL_ERROR_NO_TAG_FLOOR = 43,
    /**
     * The log holds as many tags as it can.
     */
    RINGWAL_ERROR_TOO_MANY_TAG_FLOORS = 44,
    /**
     * The file with what tags need is damaged.
     */
    RINGWAL_ERROR_TAG_FLOORS_DAMAGED = 45,
    /**
     * An argument is NULL, misaligned, out of its range, or no valid text.
     */
    RINGWAL_ERROR_INVALID_ARGUMENT = 1000,
    /**
     * The library panicked, which is a bug in it.
     */
    RINGWAL_ERROR_PANIC = 1001,
    /**
     * The buffer is too small for the record. The length was written.
     */
    RINGWAL_ERROR_BUFFER_TOO_SMALL = 1002,
    /**
     * An error that has no number of its own in this version.
     */
    RINGWAL_ERROR_OTHER = 1003,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ringwal_status ringwal_status;
#else
typedef int32_t ringwal_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * When records become durable without a request.
 */
enum ringwal_durability
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Each group is synced. The default.
     */
    RINGWAL_DURABILITY_EVERY_GROUP = 0,
    /**
     * Groups are synced together, once per interval.
     */
    RINGWAL_DURABILITY_INTERVAL = 1,
    /**
     * Only when a call asks, when a segment is full, and at close.
     */
    RINGWAL_DURABILITY_MANUAL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ringwal_durability ringwal_durability;
#else
typedef int32_t ringwal_durability;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What does the I/O.
 */
enum ringwal_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * io_uring where it works, otherwise the system calls that every system has. The default.
     */
    RINGWAL_BACKEND_AUTO = 0,
    /**
     * io_uring, or RINGWAL_ERROR_BACKEND_UNAVAILABLE.
     */
    RINGWAL_BACKEND_IO_URING = 1,
    /**
     * pwrite and fdatasync.
     */
    RINGWAL_BACKEND_STD = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ringwal_backend ringwal_backend;
#else
typedef int32_t ringwal_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How io_uring makes a group durable.
 */
enum ringwal_commit_method
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The log measures and chooses. The default.
     */
    RINGWAL_COMMIT_AUTO = 0,
    /**
     * A write with a linked fdatasync.
     */
    RINGWAL_COMMIT_LINKED_FSYNC = 1,
    /**
     * One write with RWF_DSYNC.
     */
    RINGWAL_COMMIT_DSYNC = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ringwal_commit_method ringwal_commit_method;
#else
typedef int32_t ringwal_commit_method;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A consumer of a log: it delivers the records after its last commit, also after a restart.
 */
typedef struct ringwal_consumer ringwal_consumer;

/**
 * Reads durable records, then waits for more.
 */
typedef struct ringwal_follower ringwal_follower;

/**
 * A registration of ringwal_on_durable_end.
 */
typedef struct ringwal_listener ringwal_listener;

/**
 * A log that is open for appending. Any number of threads may use it at once.
 */
typedef struct ringwal_log ringwal_log;

/**
 * Settings for ringwal_open. Each has a default. The functions that set a size, a number or a
 * time accept any. ringwal_open checks them all together, and gives RINGWAL_ERROR_OPTIONS with
 * every bad one.
 */
typedef struct ringwal_options ringwal_options;

/**
 * Reads durable records up to the end that was durable when it was opened.
 */
typedef struct ringwal_reader ringwal_reader;

/**
 * Bytes of the caller: one record of a batch.
 */
typedef struct ringwal_bytes {
    /**
     * The first byte. May be NULL if len is 0.
     */
    const void *data;
    /**
     * Number of bytes.
     */
    size_t len;
} ringwal_bytes;

/**
 * Called once, when the record at lsn is durable (RINGWAL_OK) or cannot become durable (an error).
 *
 * It runs on a thread of the log, or inside ringwal_on_durable. It must be quick, must not block,
 * and no exception or longjmp may leave it. ringwal_last_error_message() explains an error there.
 */
typedef void (*ringwal_durable_fn)(void *user_data, uint64_t lsn, ringwal_status status);

/**
 * Called with each new durable end (RINGWAL_OK): every record below it is durable. The ends
 * increase. The last call has an error, RINGWAL_ERROR_CLOSED or RINGWAL_ERROR_POISONED, and the
 * last end.
 *
 * It runs on a thread of the log, one call at a time. The rules of ringwal_durable_fn hold.
 */
typedef void (*ringwal_durable_end_fn)(void *user_data, uint64_t durable_end, ringwal_status status);

/**
 * A record in the memory of the reader, follower or consumer that returned it. The bytes are valid
 * until the next call with that handle.
 */
typedef struct ringwal_record {
    /**
     * Position in the log.
     */
    uint64_t lsn;
    /**
     * Number of the record: the first one ever appended has 0.
     */
    uint64_t ordinal;
    /**
     * When its group was written, in nanoseconds since 1970, by a clock that may have been set.
     */
    uint64_t written_at_ns;
    /**
     * The tag that it was appended with. 0 if has_tag is false.
     */
    uint64_t tag;
    /**
     * The first byte. Never NULL.
     */
    const void *data;
    /**
     * Number of bytes.
     */
    size_t len;
    /**
     * Whether it was appended with a tag.
     */
    bool has_tag;
} ringwal_record;

/**
 * Counters since the log was opened. Later versions add fields at the end.
 */
typedef struct ringwal_stats {
    /**
     * Records in submitted groups.
     */
    uint64_t records;
    /**
     * Bytes of those records with headers and padding.
     */
    uint64_t record_bytes;
    /**
     * Submitted groups that hold records.
     */
    uint64_t groups;
    /**
     * Submitted groups without records.
     */
    uint64_t control_groups;
    /**
     * Bytes written for groups.
     */
    uint64_t group_bytes;
    /**
     * Submitted syncs.
     */
    uint64_t syncs;
    /**
     * Times that the log continued in the next segment.
     */
    uint64_t rotations;
    /**
     * Prepared segments.
     */
    uint64_t segments_prepared;
    /**
     * Segments used again after retention.
     */
    uint64_t segments_recycled;
    /**
     * Segments that retention removed.
     */
    uint64_t segments_removed;
    /**
     * Preparations that found the disk full.
     */
    uint64_t no_space;
    /**
     * Attempts to prepare or remove a segment that were repeated.
     */
    uint64_t obstructions;
    /**
     * Operations that took longer than the stall threshold.
     */
    uint64_t stalls;
    /**
     * Sleeps of the I/O thread.
     */
    uint64_t io_sleeps;
    /**
     * Appends that waited for room in the ring.
     */
    uint64_t ring_full_waits;
    /**
     * The first position that is not durable yet.
     */
    uint64_t durable_end;
    /**
     * Bytes that were appended and are not durable yet.
     */
    uint64_t ring_bytes;
    /**
     * 1 while there is no space for the next segment. Appends give RINGWAL_ERROR_NO_SPACE once the
     * prepared segments are full.
     */
    uint64_t out_of_space;
    /**
     * 1 while a segment cannot be prepared or removed for another cause.
     */
    uint64_t obstructed;
    /**
     * Nanoseconds for which the disk has not answered, if it is stalled now.
     */
    uint64_t stalled_for_ns;
} ringwal_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The text of the last error of this thread. NULL if no call on this thread has failed.
 *
 * The text stays valid until the next call on this thread that returns an error. Inside a callback
 * that gets an error it is the text of that error, which is valid until the callback returns. Then
 * the earlier text is the last one again.
 */
const char *ringwal_last_error_message(void);

/**
 * The errno of the last error of this thread, if a system call was its cause. Otherwise 0. After
 * RINGWAL_ERROR_NO_SPACE it is ENOSPC, also where a quota is used up.
 */
int32_t ringwal_last_error_os(void);

/**
 * The name of a status, such as "RINGWAL_ERROR_RING_FULL". "RINGWAL_ERROR_OTHER" for any other
 * number. The text is valid for ever.
 */
const char *ringwal_status_name(int32_t status);

/**
 * Whether the log goes on by itself, so that the same call may succeed later without a change by
 * the caller: RINGWAL_ERROR_RING_FULL, _NO_SPACE, _OBSTRUCTED and _NOT_DURABLE.
 *
 * RINGWAL_ERROR_LOCKED and _CONSUMER_IN_USE are not transient: another owner has to end first.
 */
bool ringwal_status_is_transient(int32_t status);

/**
 * The version of the library, such as "0.1.0". The text is valid for ever.
 */
const char *ringwal_version(void);

/**
 * Creates options with the defaults. Free them with ringwal_options_free.
 */
struct ringwal_options *ringwal_options_new(void);

/**
 * Frees options. Logs that were opened with them stay as they are.
 */
void ringwal_options_free(struct ringwal_options *options);

/**
 * Start of the file names, "wal" by default. Logs with different prefixes share a directory.
 */
ringwal_status ringwal_options_set_prefix(struct ringwal_options *options, const char *prefix);

/**
 * Bytes of a segment file: a multiple of the filesystem's block (4096 as a rule), from four blocks
 * to 1 TiB. Default 64 MiB.
 */
ringwal_status ringwal_options_set_segment_size(struct ringwal_options *options, uint64_t bytes);

/**
 * Bytes of the ring, the only buffer. Default 8 MiB, less for small segments and more for large
 * records. At most 64 GiB, and at least two of its buffers. A buffer has an eighth of the ring or
 * a quarter of a segment, whichever is less, in whole blocks, and room for the largest record.
 */
ringwal_status ringwal_options_set_ring_capacity(struct ringwal_options *options, size_t bytes);

/**
 * Bytes of the largest record or batch: 1 to 268435309, which is 256 MiB less 147 bytes for
 * headers. At most the segment size less one block (4096 as a rule) and 147 bytes.
 *
 * Default: the smaller of ring_capacity / 8 and (segment_size - block) / 4, each rounded down to
 * whole blocks, but at least a block and at most 256 MiB. Of that, 147 bytes less, rounded down to
 * a multiple of 8. That is 1048424 with the other defaults, and 257896 with segments of 1 MiB.
 */
ringwal_status ringwal_options_set_max_record_size(struct ringwal_options *options, size_t bytes);

/**
 * When records become durable without a request: a ringwal_durability. The interval in
 * microseconds counts only for RINGWAL_DURABILITY_INTERVAL, and is longer than 0 there.
 */
ringwal_status ringwal_options_set_durability(struct ringwal_options *options,
                                              int32_t durability,
                                              uint64_t interval_us);

/**
 * What does the I/O: a ringwal_backend.
 */
ringwal_status ringwal_options_set_backend(struct ringwal_options *options, int32_t backend);

/**
 * How io_uring makes a group durable: a ringwal_commit_method.
 */
ringwal_status ringwal_options_set_commit_method(struct ringwal_options *options, int32_t method);

/**
 * Groups in flight at most, 1 to 256. Default 4.
 */
ringwal_status ringwal_options_set_depth(struct ringwal_options *options, size_t groups);

/**
 * How long a commit waits for more records while nothing is in flight. Default 0; a second at
 * most.
 */
ringwal_status ringwal_options_set_commit_delay_us(struct ringwal_options *options,
                                                   uint64_t delay_us);

/**
 * Segment files to keep at most, 2 or more. Default: no limit.
 */
ringwal_status ringwal_options_set_max_segments(struct ringwal_options *options, size_t segments);

/**
 * Bytes of all segment files at most, at least two segments. Default: no limit.
 */
ringwal_status ringwal_options_set_max_total_bytes(struct ringwal_options *options, uint64_t bytes);

/**
 * Age of its last record at which a segment is removed. Longer than 0. Default: never.
 */
ringwal_status ringwal_options_set_max_age_ms(struct ringwal_options *options, uint64_t age_ms);

/**
 * Bytes by which a consumer may lag before retention stops keeping records for it. Default: no
 * limit.
 */
ringwal_status ringwal_options_set_consumer_limit(struct ringwal_options *options, uint64_t bytes);

/**
 * Version that the application gives to the form of its records. Opening a log with another
 * version fails. Default 0: nothing is compared.
 */
ringwal_status ringwal_options_set_application_version(struct ringwal_options *options,
                                                       uint32_t version);

/**
 * Permission bits of the log's files, 0600 to 0777. Default 0600.
 */
ringwal_status ringwal_options_set_file_mode(struct ringwal_options *options, uint32_t mode);

/**
 * Whether the log must exist. Otherwise opening creates one if there is none, which is the
 * default.
 */
ringwal_status ringwal_options_set_must_exist(struct ringwal_options *options, bool must_exist);

/**
 * Whether the log must be new. The last call of this and of ringwal_options_set_must_exist counts.
 */
ringwal_status ringwal_options_set_create_new(struct ringwal_options *options, bool create_new);

/**
 * Opens only the log with this id, of 16 bytes: see ringwal_log_id. Default: any.
 */
ringwal_status ringwal_options_set_expected_log_id(struct ringwal_options *options,
                                                   const uint8_t *id);

/**
 * How long opening waits for a lock that another writer holds. Default 2000.
 */
ringwal_status ringwal_options_set_lock_wait_ms(struct ringwal_options *options, uint64_t wait_ms);

/**
 * Opens the log in a directory, or creates it, and recovers its records. Blocks.
 *
 * dir may have any bytes on Unix, and is UTF-8 elsewhere. options may be NULL for the defaults. An
 * option out of its range gives RINGWAL_ERROR_OPTIONS. Free the log with ringwal_free.
 */
ringwal_status ringwal_open(const char *dir,
                            const struct ringwal_options *options,
                            struct ringwal_log **log);

/**
 * Makes everything durable and closes the log. Blocks. The handle stays valid: appends give
 * RINGWAL_ERROR_CLOSED, and reading still works. Closing a closed log does nothing.
 */
ringwal_status ringwal_close(const struct ringwal_log *log);

/**
 * Closes the log if it is open, and frees the handle. No other thread may use the handle from here
 * on. Failures are not reported: call ringwal_close first to see them.
 *
 * In a callback on a thread of a log, this returns at once. A thread in the background makes
 * everything durable and closes the log. Opening the log soon after it waits for that, as
 * ringwal_options_set_lock_wait_ms says.
 */
void ringwal_free(struct ringwal_log *log);

/**
 * Appends a record. On return its place in the log is fixed; it becomes durable with its group.
 * Blocks only while the ring is full or the next segment is not prepared yet.
 *
 * lsn receives the record's position, and may be NULL.
 */
ringwal_status ringwal_append(const struct ringwal_log *log,
                              const void *data,
                              size_t len,
                              uint64_t *lsn);

/**
 * As ringwal_append, but never blocks: RINGWAL_ERROR_RING_FULL where ringwal_append would wait.
 */
ringwal_status ringwal_try_append(const struct ringwal_log *log,
                                  const void *data,
                                  size_t len,
                                  uint64_t *lsn);

/**
 * Appends a record and waits until it is durable: it survives power loss from here on.
 *
 * lsn receives the record's position, and may be NULL. After RINGWAL_ERROR_POISONED the record may
 * or may not be there when the log is opened again.
 */
ringwal_status ringwal_append_durable(const struct ringwal_log *log,
                                      const void *data,
                                      size_t len,
                                      uint64_t *lsn);

/**
 * Appends a record with a tag, as ringwal_append does. Readers can skip records of other tags.
 */
ringwal_status ringwal_append_tagged(const struct ringwal_log *log,
                                     uint64_t tag,
                                     const void *data,
                                     size_t len,
                                     uint64_t *lsn);

/**
 * Appends a record with a tag, as ringwal_try_append does.
 */
ringwal_status ringwal_try_append_tagged(const struct ringwal_log *log,
                                         uint64_t tag,
                                         const void *data,
                                         size_t len,
                                         uint64_t *lsn);

/**
 * Appends a record with a tag and waits until it is durable, as ringwal_append_durable does.
 */
ringwal_status ringwal_append_durable_tagged(const struct ringwal_log *log,
                                             uint64_t tag,
                                             const void *data,
                                             size_t len,
                                             uint64_t *lsn);

/**
 * Appends count records that survive a crash all together or not at all. Blocks as ringwal_append.
 *
 * lsns receives count positions, one for each record, and may be NULL. Waiting for any record of a
 * batch waits for the whole batch.
 */
ringwal_status ringwal_append_batch(const struct ringwal_log *log,
                                    const struct ringwal_bytes *records,
                                    size_t count,
                                    uint64_t *lsns);

/**
 * As ringwal_append_batch, but never blocks: RINGWAL_ERROR_RING_FULL where that would wait.
 */
ringwal_status ringwal_try_append_batch(const struct ringwal_log *log,
                                        const struct ringwal_bytes *records,
                                        size_t count,
                                        uint64_t *lsns);

/**
 * As ringwal_append_batch, with a tag for each record: count tags.
 */
ringwal_status ringwal_append_batch_tagged(const struct ringwal_log *log,
                                           const uint64_t *tags,
                                           const struct ringwal_bytes *records,
                                           size_t count,
                                           uint64_t *lsns);

/**
 * Waits until the record at lsn and every earlier record are durable.
 */
ringwal_status ringwal_wait_durable(const struct ringwal_log *log, uint64_t lsn);

/**
 * Waits until everything that was appended before this call is durable.
 *
 * durable_end receives the first position that is not durable yet, and may be NULL.
 */
ringwal_status ringwal_sync(const struct ringwal_log *log, uint64_t *durable_end);

/**
 * The first position that is not durable yet: every record below it is durable. 0 for NULL. In a
 * child of fork(): as of the fork.
 */
uint64_t ringwal_durable_end(const struct ringwal_log *log);

/**
 * The first position after everything that was appended. 0 for NULL. In a child of fork():
 * ringwal_durable_end.
 */
uint64_t ringwal_end(const struct ringwal_log *log);

/**
 * The oldest position that is kept. 0 for NULL. In a child of fork(): as of the fork.
 */
uint64_t ringwal_oldest(const struct ringwal_log *log);

/**
 * RINGWAL_OK while the log is running. Otherwise RINGWAL_ERROR_POISONED, _CLOSED, _FORKED, or
 * _OBSTRUCTED while a segment cannot be prepared or removed.
 *
 * A full disk is no failure, although appends may give RINGWAL_ERROR_NO_SPACE. The field
 * out_of_space of ringwal_stats reports it.
 */
ringwal_status ringwal_health(const struct ringwal_log *log);

/**
 * Writes the log's id to 16 bytes: random, and fixed when the log is created.
 */
ringwal_status ringwal_log_id(const struct ringwal_log *log, uint8_t *id);

/**
 * Copies the record at exactly lsn to a buffer of capacity bytes.
 *
 * len receives the record's length, also with RINGWAL_ERROR_BUFFER_TOO_SMALL, which copies
 * nothing. buffer may be NULL if capacity is 0.
 */
ringwal_status ringwal_read(const struct ringwal_log *log,
                            uint64_t lsn,
                            void *buffer,
                            size_t capacity,
                            size_t *len);

/**
 * Removes the segments that hold only records below lsn, and that no reader, follower or consumer
 * needs.
 *
 * oldest receives the oldest position that is kept, and may be NULL.
 */
ringwal_status ringwal_truncate_before(const struct ringwal_log *log,
                                       uint64_t lsn,
                                       uint64_t *oldest);

/**
 * Cuts off the record at lsn and every record after it, for ever.
 *
 * continues_at receives the position where the log continues, and may be NULL.
 *
 * Readers and followers skip cut records. A reader that was opened before may still return cut
 * records that it has in memory. A follower that has returned cut records gives
 * RINGWAL_ERROR_TRUNCATED and has ended. A consumer that has returned cut records gives it once,
 * and then returns again every record that it has not committed. If a consumer has committed
 * records that the cut would remove, this gives RINGWAL_ERROR_CONSUMED and cuts nothing.
 */
ringwal_status ringwal_truncate_from(const struct ringwal_log *log,
                                     uint64_t lsn,
                                     uint64_t *continues_at);

/**
 * Deletes the log with this prefix from a directory, and nothing else. The log must not be open.
 */
ringwal_status ringwal_remove(const char *dir, const char *prefix);

/**
 * Calls a function once, when the record at lsn and every earlier record are durable, or cannot
 * become durable. Does not block.
 *
 * With RINGWAL_OK the function is called exactly once, perhaps before this returns. Otherwise it
 * is not called. For many records, ringwal_on_durable_end costs less.
 */
ringwal_status ringwal_on_durable(const struct ringwal_log *log,
                                  uint64_t lsn,
                                  ringwal_durable_fn call,
                                  void *user_data);

/**
 * Calls a function with each new durable end, until the log is closed or the listener is freed.
 *
 * One listener serves any number of waiters: keep them ordered by position, and settle those below
 * the end. Free it with ringwal_listener_free.
 */
ringwal_status ringwal_on_durable_end(const struct ringwal_log *log,
                                      ringwal_durable_end_fn call,
                                      void *user_data,
                                      struct ringwal_listener **listener);

/**
 * Removes a listener, and waits for its running call. After this returns it is not called again,
 * unless the listener itself frees it. Hold no lock that the listener takes.
 */
void ringwal_listener_free(struct ringwal_listener *listener);

/**
 * Opens a reader of the durable records from the first one at or after from. 0 is the oldest.
 *
 * Retention keeps the segment that the reader is in, and every later one. Free it with
 * ringwal_reader_free.
 */
ringwal_status ringwal_reader_open(const struct ringwal_log *log,
                                   uint64_t from,
                                   struct ringwal_reader **reader);

/**
 * As ringwal_reader_open, for the records with one of count tags. Others are skipped.
 */
ringwal_status ringwal_reader_open_tagged(const struct ringwal_log *log,
                                          uint64_t from,
                                          const uint64_t *tags,
                                          size_t count,
                                          struct ringwal_reader **reader);

/**
 * The next record. RINGWAL_END at the end. After an error the reader has ended.
 *
 * The bytes are the reader's, without a copy, and valid until the next call with this reader.
 */
ringwal_status ringwal_reader_next(struct ringwal_reader *reader, struct ringwal_record *record);

/**
 * As ringwal_reader_next, for up to capacity records that lie in memory together, at least one.
 *
 * count receives their number. It may be lower than capacity although more records follow.
 */
ringwal_status ringwal_reader_next_run(struct ringwal_reader *reader,
                                       struct ringwal_record *records,
                                       size_t capacity,
                                       size_t *count);

/**
 * Frees a reader, with the memory of the records that it returned last.
 */
void ringwal_reader_free(struct ringwal_reader *reader);

/**
 * Opens a follower: it reads durable records from the first one at or after from, and then waits
 * for more. 0 is the oldest record, ringwal_durable_end() the next one.
 *
 * Retention keeps the segment that the follower is in, and every later one, also while it
 * is idle. Free it with ringwal_follower_free.
 */
ringwal_status ringwal_follower_open(const struct ringwal_log *log,
                                     uint64_t from,
                                     struct ringwal_follower **follower);

/**
 * As ringwal_follower_open, for the records with one of count tags. Others are skipped.
 */
ringwal_status ringwal_follower_open_tagged(const struct ringwal_log *log,
                                            uint64_t from,
                                            const uint64_t *tags,
                                            size_t count,
                                            struct ringwal_follower **follower);

/**
 * The next record. Waits for it, for timeout_ms milliseconds at most, or for ever if that is
 * negative. RINGWAL_TIMED_OUT if none came, RINGWAL_END if the log was closed and every record was
 * returned. After an error the follower has ended.
 *
 * The bytes are valid until the next call with this follower.
 */
ringwal_status ringwal_follower_next(struct ringwal_follower *follower,
                                     int64_t timeout_ms,
                                     struct ringwal_record *record);

/**
 * As ringwal_follower_next, for up to capacity records that lie in memory together, at least one.
 *
 * count receives their number. It may be lower than capacity although more records follow.
 */
ringwal_status ringwal_follower_next_run(struct ringwal_follower *follower,
                                         int64_t timeout_ms,
                                         struct ringwal_record *records,
                                         size_t capacity,
                                         size_t *count);

/**
 * Frees a follower, with the memory of the records that it returned last.
 */
void ringwal_follower_free(struct ringwal_follower *follower);

/**
 * Attaches the consumer of this name, or creates it at the oldest record.
 *
 * The log keeps every record that it has not committed. Free it with ringwal_consumer_free; its
 * position stays.
 */
ringwal_status ringwal_consumer_open(const struct ringwal_log *log,
                                     const char *name,
                                     struct ringwal_consumer **consumer);

/**
 * The next record. Waits for it, for timeout_ms milliseconds at most, or for ever if that is
 * negative. RINGWAL_TIMED_OUT if none came, RINGWAL_END if the log was closed and every record was
 * returned.
 *
 * After a failed read (RINGWAL_ERROR_TRUNCATED, _CORRUPTION, _IO) the next call begins at the
 * consumer's position again, and returns every record that was not committed. RINGWAL_ERROR_PRUNED
 * stays until ringwal_consumer_seek: the record at the position is gone.
 *
 * The bytes are valid until the next call with this consumer.
 */
ringwal_status ringwal_consumer_next(struct ringwal_consumer *consumer,
                                     int64_t timeout_ms,
                                     struct ringwal_record *record);

/**
 * Commits the record at lsn and every record before it, durably: they are not delivered again. It
 * costs a write and a sync, so commit every so many records.
 */
ringwal_status ringwal_consumer_commit(struct ringwal_consumer *consumer, uint64_t lsn);

/**
 * Moves the position to the first record at or after lsn, forwards or backwards, durably. 0 is the
 * oldest record.
 */
ringwal_status ringwal_consumer_seek(struct ringwal_consumer *consumer, uint64_t lsn);

/**
 * The consumer's position: every record below it is committed. And its lag: the bytes of the log
 * from there to the durable end, or 0 if every durable record is committed. Either may be NULL.
 */
ringwal_status ringwal_consumer_position(const struct ringwal_consumer *consumer,
                                         uint64_t *position,
                                         uint64_t *lag);

/**
 * Detaches a consumer and frees it. Its position stays in the log.
 */
void ringwal_consumer_free(struct ringwal_consumer *consumer);

/**
 * Deletes a consumer with its position. It must not be attached.
 */
ringwal_status ringwal_remove_consumer(const struct ringwal_log *log, const char *name);

/**
 * Reads the counters. size is sizeof(ringwal_stats): of a program that was built with an older
 * header, only the fields that it knows are written.
 */
ringwal_status ringwal_get_stats(const struct ringwal_log *log,
                                 struct ringwal_stats *stats,
                                 size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGWAL_H */
