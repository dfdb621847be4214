/* Checks that print what failed, and where. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ringwal.h>

#define CHECK(holds)                                                         \
    do {                                                                     \
        if (!(holds)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);      \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

#define STATUS(call, expected)                                               \
    do {                                                                     \
        int32_t got = (call);                                                \
        if (got != (expected)) {                                             \
            const char *text = ringwal_last_error_message();                 \
            fprintf(stderr, "%s:%d: %s is %s: %s\n", __FILE__, __LINE__,     \
                    #call, ringwal_status_name(got), text ? text : "");      \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

#define OK(call) STATUS(call, RINGWAL_OK)
#define BAD(call) STATUS(call, RINGWAL_ERROR_INVALID_ARGUMENT)

/*
 * valgrind 3.19 may hold its own lock while io_uring_enter blocks, so that the program hangs. It
 * also looks for leaks in a child of fork(), whose other threads are gone with their memory.
 */
static inline int under_valgrind(void) { return getenv("UNDER_VALGRIND") != NULL; }

#endif
