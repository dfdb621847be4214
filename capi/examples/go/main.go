// Appends records from many goroutines and reads them back, through cgo.
//
//	CGO_CFLAGS="$(pkg-config --cflags ringwal)" CGO_LDFLAGS="$(pkg-config --libs ringwal)" go run . DIRECTORY
package main

/*
#include <stdlib.h>
#include <ringwal.h>
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"
)

// check turns a status into an error. The text belongs to the thread of the failed call: the caller
// has locked its goroutine to one.
func check(status C.ringwal_status) error {
	if status <= C.RINGWAL_OK {
		return nil
	}
	name := C.GoString(C.ringwal_status_name(C.int32_t(status)))
	return fmt.Errorf("%s: %s", name, C.GoString(C.ringwal_last_error_message()))
}

// Log is a log that any number of goroutines may use.
type Log struct{ handle *C.ringwal_log }

// Open opens the log in a directory, or creates it.
func Open(dir string) (*Log, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	options := C.ringwal_options_new()
	defer C.ringwal_options_free(options)
	if err := check(C.ringwal_options_set_segment_size(options, 1<<20)); err != nil {
		return nil, err
	}
	var log Log
	return &log, check(C.ringwal_open(path, options, &log.handle))
}

// AppendDurable appends a record and returns its position once it survives power loss.
func (log *Log) AppendDurable(record []byte) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var lsn C.uint64_t
	var data unsafe.Pointer
	if len(record) > 0 {
		data = unsafe.Pointer(&record[0])
	}
	err := check(C.ringwal_append_durable(log.handle, data, C.size_t(len(record)), &lsn))
	return uint64(lsn), err
}

// Replay calls apply with every durable record. Many records cross the border in one call.
func (log *Log) Replay(apply func(lsn uint64, record []byte)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var reader *C.ringwal_reader
	if err := check(C.ringwal_reader_open(log.handle, 0, &reader)); err != nil {
		return err
	}
	defer C.ringwal_reader_free(reader)
	var run [256]C.ringwal_record
	for {
		var count C.size_t
		status := C.ringwal_reader_next_run(reader, &run[0], C.size_t(len(run)), &count)
		if status != C.RINGWAL_OK {
			return check(status)
		}
		for _, record := range run[:count] {
			apply(uint64(record.lsn), unsafe.Slice((*byte)(record.data), int(record.len)))
		}
	}
}

// Close makes everything durable and closes the log.
func (log *Log) Close() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := check(C.ringwal_close(log.handle))
	C.ringwal_free(log.handle)
	log.handle = nil
	return err
}

func run(dir string) error {
	log, err := Open(dir)
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	failed := make(chan error, 10)
	for worker := 0; worker < 10; worker++ {
		wait.Add(1)
		go func(worker int) {
			defer wait.Done()
			for n := 0; n < 100; n++ {
				if _, err := log.AppendDurable([]byte(fmt.Sprintf("%d of %d", n, worker))); err != nil {
					failed <- err
					return
				}
			}
		}(worker)
	}
	wait.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	count := 0
	if err := log.Replay(func(uint64, []byte) { count++ }); err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	fmt.Printf("%d records\n", count)
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: append DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
